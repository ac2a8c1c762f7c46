import type { EngineUpdate, EvictedSequence, KvOnPreempt } from '../engine/engine.js';
import { WebGpuEngine } from '../engine/webgpu-engine.js';
import type { Program } from '../gpu/ops.js';
import type { Kernels } from '../kernels/kernels.js';
import { assert } from '../lib/assert.js';
import type { KvCounts } from '../telemetry/records.js';
import type { WeightBuffers } from '../kernels/weight-buffers.js';
import { WeightStore } from '../weights/store.js';
import type { CostModel } from './cost-model.js';
import type { Executor } from './executor.js';
import type { LaneRequest } from './messages.js';
import { ProgramQueue } from './program-queue.js';

const ENGINE_PRIORITY = 6;

export interface EngineResidentParts {
  readonly lane: number;
  readonly job: string;
  readonly kernels: Kernels;
  readonly cost: CostModel;
  readonly executor: Executor;
  readonly onUpdate: (update: EngineUpdate) => void;
}

/** A job's engine on a lane: its programs, and the weights on their way to it. */
export class EngineResident {
  readonly engine: WebGpuEngine;
  readonly queue: ProgramQueue;
  readonly #store: WeightStore | null;
  /** Weights on their way into the engine: one version at a time. */
  #arrival: Promise<unknown> = Promise.resolve();
  /** It takes no more weights: it is about to go. */
  #isGoing = false;

  constructor(
    private readonly parts: EngineResidentParts,
    request: Extract<LaneRequest, { kind: 'createEngine' }>,
  ) {
    const { kernels, cost, executor, onUpdate, job } = parts;
    const { config, layout, options, store, weight } = request;
    const wake = (): void => executor.wake();
    const engine = new WebGpuEngine(kernels, config, layout, options, cost, onUpdate, wake);
    // With no slots its sequences stay where they are, and nobody is kept waiting by them.
    const hasWork = (): boolean =>
      engine.version >= 0 && engine.sequenceCount > engine.parkedCount && engine.slotsMax > 0;
    this.engine = engine;
    this.queue = new ProgramQueue(job, 'engine', ENGINE_PRIORITY, () => engine.nextStep(), hasWork, weight);
    this.#store = store === null ? null : WeightStore.attach(store);
    executor.addResident(this.queue);
  }

  get job(): string {
    return this.parts.job;
  }

  /** What one decode step of it takes the device by prediction, waits left out, in ms; null before it has taken one. */
  get stepMs(): number | null {
    return this.queue.steps.decodeMs;
  }

  /** The buffers' values as `version`, unless the engine has it or is about to go; `onBegun` is called if it has not. */
  *flip(weights: WeightBuffers, version: number, onDone: () => void): Program {
    if (this.#isGoing || this.engine.version >= version) return;
    yield* this.engine.copyWeights(weights, version);
    yield { kind: 'submitted', call: onDone };
  }

  /** The store's newest version into the engine, unless it has it; `bytes` are those that crossed the host. */
  pull(onDone: (version: number, bytes: number) => void): Promise<{ version: number; bytes: number }> {
    return this.receive(async () => {
      const { engine, queue } = this;
      const store = this.#store;
      assert(store !== null, 'pull without a store');
      if (store.newestVersion <= engine.version) return { version: engine.version, bytes: 0 };
      const { version, buckets } = store.pull();
      const done = queue.run(engine.loadWeights(buckets, version));
      this.parts.executor.wake();
      await done;
      onDone(version, store.bytes);
      return { version, bytes: store.bytes };
    });
  }

  /** Runs `bring` once the version before it has arrived: two at a time would mix in the engine's spare buffers. */
  receive<T>(bring: () => Promise<T>): Promise<T> {
    const arrival = this.#arrival.then(bring, bring);
    this.#arrival = arrival;
    arrival.catch(() => undefined);
    return arrival;
  }

  /** Its caches leave the device, as far as `kv` wants it, before anybody else goes on. */
  makeRoom(kv: KvOnPreempt, onLeft: (counts: KvCounts) => void): void {
    const { engine, queue } = this;
    // One that holds or parks all its sequences has caches too.
    if (this.#isGoing || engine.version < 0 || engine.sequenceCount === 0) return;
    const end = this.parts.executor.leave(queue);
    const left = (): void => {
      end();
      onLeft(engine.takeKvCounts());
    };
    const program = function* (): Program {
      yield* engine.leave(kv);
      yield { kind: 'submitted', call: left };
    };
    // Who gives the queue up gives its sequences up too.
    queue.run(program()).catch(() => undefined);
  }

  /** Ends it and frees its memory; gives back the sequences it had. */
  async remove(): Promise<EvictedSequence[]> {
    const { engine, queue } = this;
    const { executor, lane, job } = this.parts;
    assert(!this.#isGoing, 'the engine is being removed already');
    this.#isGoing = true;
    engine.pause();
    queue.close(new Error(`the engine of job ${job} was removed from lane ${lane}`));
    // Nothing may be on its way into buffers that are about to go.
    await this.#arrival.catch(() => undefined);
    await executor.idle(queue);
    await engine.settled();
    const evicted = engine.evict();
    executor.removeResident(queue);
    engine.destroy();
    return evicted;
  }
}
