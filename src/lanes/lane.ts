import type { EngineUpdate } from '../engine/engine.js';
import { WebGpuEngine } from '../engine/webgpu-engine.js';
import type { Gpu } from '../gpu/device.js';
import type { Program } from '../gpu/ops.js';
import { Kernels } from '../kernels/kernels.js';
import { assert } from '../lib/assert.js';
import { nowMs } from '../lib/clock.js';
import type { LaneRecords, ResidentKind, VersionRecord } from '../telemetry/records.js';
import { Trainer } from '../train/trainer.js';
import { WeightStore, type SharedStore } from '../weights/store.js';
import { CostModel } from './cost-model.js';
import { Executor, type ExecutorBudgets, type Resident } from './executor.js';
import type { LaneAnswers, LaneRequest } from './messages.js';
import { PreemptionLog } from './preemption-log.js';

const TRAINER_PRIORITY = 1;
const ENGINE_PRIORITY = 6;

export interface LaneOptions {
  readonly lane: number;
  readonly job: string;
  readonly budgets: ExecutorBudgets;
  readonly doorbell: Int32Array<SharedArrayBuffer> | null;
}

/** A resident fed by hand: programs queue up and run in order. */
class Queue implements Resident {
  readonly #programs: Program[] = [];

  constructor(
    readonly job: string,
    readonly kind: ResidentKind,
    readonly priority: number,
    private readonly fallback: () => Program | null,
  ) {}

  next(): Program | null {
    return this.#programs.shift() ?? this.fallback();
  }

  /** Resolves when every op of the program is submitted, so that what follows on the queue sees its effect. */
  run(program: Program): Promise<void> {
    return new Promise((resolve) => {
      this.#programs.push(
        (function* () {
          yield* program;
          yield { kind: 'submitted', call: resolve };
        })(),
      );
    });
  }
}

/**
 * One device and its residents: what a lane's thread runs, and nothing of how messages reach it. Training outranks
 * generation; the executor does the rest.
 */
export class Lane {
  readonly #kernels: Kernels;
  readonly #cost: CostModel;
  readonly #preemptions: PreemptionLog;
  readonly #executor: Executor;
  readonly #trainerQueue: Queue;
  #engineQueue: Queue | null = null;
  #trainer: Trainer | null = null;
  #engine: WebGpuEngine | null = null;
  #store: WeightStore | null = null;
  #versions: VersionRecord[] = [];
  readonly #running: Promise<void>;

  constructor(
    private readonly gpu: Gpu,
    private readonly options: LaneOptions,
    private readonly onUpdate: (update: EngineUpdate) => void,
  ) {
    const { lane, job, budgets, doorbell } = options;
    this.#kernels = new Kernels(gpu);
    this.#cost = new CostModel(budgets.sliceUs);
    this.#preemptions = new PreemptionLog(lane);
    this.#executor = new Executor(gpu, lane, budgets, this.#cost, this.#preemptions, doorbell);
    this.#trainerQueue = new Queue(job, 'trainer', TRAINER_PRIORITY, () => null);
    this.#executor.addResident(this.#trainerQueue);
    this.#running = this.#executor.run();
  }

  /** Rejects when the lane cannot go on; resolves after `close`. */
  get running(): Promise<void> {
    return this.#running;
  }

  /** Carries out one request. `close` is the only one after which no other may come. */
  async handle(request: LaneRequest): Promise<LaneAnswers[LaneRequest['kind']]> {
    switch (request.kind) {
      case 'createTrainer':
        return this.#createTrainer(request);
      case 'createEngine':
        return this.#createEngine(request);
      case 'removeEngine':
        return this.#removeEngine();
      case 'keepReference':
        await this.#runTrainer(this.#needTrainer().keepReference());
        return null;
      case 'train':
        return this.#train(request);
      case 'score':
        return this.#score(request);
      case 'publish':
        return this.#publish(request.version, request.store);
      case 'pull':
        return this.#pull();
      case 'exportWeights':
        return { weights: await this.#exportWeights() };
      case 'add':
        for (const sequence of request.sequences) this.#needEngine().add(sequence);
        this.#executor.wake();
        return null;
      case 'abort':
        for (const id of request.ids) this.#needEngine().abort(id);
        return null;
      case 'flush':
        return { ...this.takeRecords(true), largestDispatchUs: this.#cost.largestDispatchUs };
      case 'close':
        return this.#close();
      default:
        return request satisfies never;
    }
  }

  /** What happened since the last call; `all` also ends records still waiting for their last moment. */
  takeRecords(all: boolean): LaneRecords {
    const { slices, dropped } = this.#executor.takeSlices();
    const versions = this.#versions;
    this.#versions = [];
    return { slices, preemptions: this.#preemptions.take(all), versions, slicesDropped: dropped };
  }

  #createTrainer(request: Extract<LaneRequest, { kind: 'createTrainer' }>): LaneAnswers['createTrainer'] {
    assert(this.#trainer === null, 'a lane holds one trainer');
    const before = this.gpu.bytesAllocated;
    this.#trainer = new Trainer(this.#kernels, request.config, request.layout, request.options);
    void this.#runTrainer(this.#trainer.loadWeights(request.weights));
    return { bytes: this.gpu.bytesAllocated - before };
  }

  #createEngine(request: Extract<LaneRequest, { kind: 'createEngine' }>): LaneAnswers['createEngine'] {
    assert(this.#engine === null, 'a lane holds one engine');
    const before = this.gpu.bytesAllocated;
    const { config, layout, options } = request;
    const engine = new WebGpuEngine(this.#kernels, config, layout, options, this.#cost, (update) => {
      if (update.ids.length > 0) this.#preemptions.tokens(nowMs());
      this.onUpdate(update);
      this.#executor.wake();
    });
    this.#engine = engine;
    this.#store = request.store === null ? null : WeightStore.attach(request.store);
    this.#engineQueue = new Queue(this.options.job, 'engine', ENGINE_PRIORITY, () => engine.nextStep());
    this.#executor.addResident(this.#engineQueue);
    return { bytes: this.gpu.bytesAllocated - before };
  }

  async #removeEngine(): Promise<LaneAnswers['removeEngine']> {
    const engine = this.#needEngine();
    const queue = this.#engineQueue;
    assert(queue !== null, 'an engine without its queue');
    engine.pause();
    await this.#executor.idle(queue);
    await engine.settled();
    const evicted = engine.evict();
    this.#executor.removeResident(queue);
    engine.destroy();
    this.#engine = null;
    this.#engineQueue = null;
    return { evicted };
  }

  async #train(request: Extract<LaneRequest, { kind: 'train' }>): Promise<LaneAnswers['train']> {
    const { program, result } = this.#needTrainer().step(request.sequences, this.#cost, request.options);
    this.#executor.request('actorTraining', request.requestedMs, this.#engineHasWork());
    await this.#runTrainer(program);
    return result;
  }

  async #score(request: Extract<LaneRequest, { kind: 'score' }>): Promise<LaneAnswers['score']> {
    const { program, result } = this.#needTrainer().score(request.sequences, this.#cost, request.which);
    this.#executor.request(request.stage, request.requestedMs, this.#engineHasWork());
    await this.#runTrainer(program);
    return { logprobs: await result };
  }

  /** Trainer → this lane's engine by device copies, and → the store through the host when others may want it. */
  async #publish(version: number, shared: SharedStore | null): Promise<LaneAnswers['publish']> {
    const trainer = this.#needTrainer();
    const engine = this.#engine;
    if (engine !== null) {
      const startedMs = nowMs();
      await this.#runTrainer(engine.copyWeights(trainer.weights, version));
      this.#record('flip', version, startedMs, 0);
    }
    if (shared === null) return { storeBytes: 0 };
    const startedMs = nowMs();
    const store = WeightStore.attach(shared);
    store.publish(version, await this.#exportWeights());
    this.#record('publish', version, startedMs, store.bytes);
    return { storeBytes: store.bytes };
  }

  async #pull(): Promise<LaneAnswers['pull']> {
    const engine = this.#needEngine();
    const store = this.#store;
    assert(store !== null && this.#engineQueue !== null, 'pull without a store');
    const startedMs = nowMs();
    const { version, buckets } = store.pull();
    if (version <= engine.version) return { version: engine.version, bytes: 0 };
    const done = this.#engineQueue.run(engine.loadWeights(buckets, version));
    this.#executor.wake();
    await done;
    this.#record('pull', version, startedMs, store.bytes);
    return { version, bytes: store.bytes };
  }

  async #exportWeights(): Promise<LaneAnswers['exportWeights']['weights']> {
    const { program, result } = this.#needTrainer().exportWeights();
    await this.#runTrainer(program);
    return result;
  }

  async #close(): Promise<null> {
    this.#executor.stop();
    await this.#running;
    await this.#engine?.settled();
    await this.gpu.device.queue.onSubmittedWorkDone();
    this.gpu.close();
    return null;
  }

  #runTrainer(program: Program): Promise<void> {
    const done = this.#trainerQueue.run(program);
    this.#executor.wake();
    return done;
  }

  #engineHasWork(): boolean {
    return this.#engine !== null && this.#engine.sequenceCount > 0;
  }

  #record(kind: VersionRecord['kind'], version: number, startedMs: number, bytes: number): void {
    const atMs = nowMs();
    const { lane, job } = this.options;
    this.#versions.push({ lane, job, version, kind, atMs, durationMs: atMs - startedMs, bytes });
  }

  #needTrainer(): Trainer {
    assert(this.#trainer !== null, 'this lane has no trainer');
    return this.#trainer;
  }

  #needEngine(): WebGpuEngine {
    assert(this.#engine !== null, 'this lane has no engine');
    return this.#engine;
  }
}
