import type { EngineUpdate } from '../engine/engine.js';
import { WebGpuEngine } from '../engine/webgpu-engine.js';
import type { Gpu } from '../gpu/device.js';
import type { Program } from '../gpu/ops.js';
import { Kernels } from '../kernels/kernels.js';
import { assert } from '../lib/assert.js';
import { nowMs } from '../lib/clock.js';
import type { LaneRecords, VersionRecord } from '../telemetry/records.js';
import { Trainer } from '../train/trainer.js';
import { WeightStore, type SharedStore } from '../weights/store.js';
import { CostModel } from './cost-model.js';
import type { Doorbell } from './doorbell.js';
import { Executor, type ExecutorBudgets } from './executor.js';
import type { LaneAnswers, LaneRequest } from './messages.js';
import { PreemptionLog } from './preemption-log.js';
import { ProgramQueue } from './program-queue.js';

const TRAINER_PRIORITY = 1;
const ENGINE_PRIORITY = 6;

export interface LaneOptions {
  readonly lane: number;
  readonly job: string;
  readonly budgets: ExecutorBudgets;
  /** Ends the thread's naps; null where it must not nap. */
  readonly doorbell: Doorbell | null;
}

type Request<K extends LaneRequest['kind']> = Extract<LaneRequest, { kind: K }>;

interface EngineResident {
  readonly engine: WebGpuEngine;
  readonly queue: ProgramQueue;
  readonly store: WeightStore | null;
  /** It takes no more weights: it is about to go. */
  leaving: boolean;
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
  readonly #trainerQueue: ProgramQueue;
  #trainer: Trainer | null = null;
  #resident: EngineResident | null = null;
  /** Weights on their way into the engine: one version at a time. */
  #arrival: Promise<unknown> = Promise.resolve();
  #versions: VersionRecord[] = [];
  readonly #running: Promise<void>;
  #closing: Promise<null> | null = null;

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
    this.#trainerQueue = new ProgramQueue(job, 'trainer', TRAINER_PRIORITY, () => null);
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
        await this.#runTrainer(this.#needTrainer().keepReference(), 'init');
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
        for (const sequence of request.sequences) this.#needResident().engine.add(sequence);
        this.#executor.wake();
        return null;
      case 'abort':
        for (const id of request.ids) this.#needResident().engine.abort(id);
        return null;
      case 'flush':
        return { ...this.takeRecords(true), largestDispatchUs: this.#cost.largestDispatchUs };
      case 'close':
        return (this.#closing ??= this.#close());
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

  async #createTrainer(request: Request<'createTrainer'>): Promise<LaneAnswers['createTrainer']> {
    assert(this.#trainer === null, 'a lane holds one trainer');
    const before = this.gpu.bytesAllocated;
    const trainer = new Trainer(this.#kernels, request.config, request.layout, request.options);
    this.#trainer = trainer;
    const bytes = this.gpu.bytesAllocated - before;
    await this.#runTrainer(trainer.loadWeights(request.weights), 'init');
    return { bytes };
  }

  #createEngine(request: Request<'createEngine'>): LaneAnswers['createEngine'] {
    assert(this.#resident === null, 'a lane holds one engine');
    const before = this.gpu.bytesAllocated;
    const { config, layout, options } = request;
    const engine = new WebGpuEngine(this.#kernels, config, layout, options, this.#cost, (update) => {
      if (update.ids.length > 0) this.#preemptions.tokens(nowMs());
      this.onUpdate(update);
      this.#executor.wake();
    });
    const queue = new ProgramQueue(this.options.job, 'engine', ENGINE_PRIORITY, () => engine.nextStep());
    const store = request.store === null ? null : WeightStore.attach(request.store);
    this.#resident = { engine, queue, store, leaving: false };
    this.#executor.addResident(queue);
    return { bytes: this.gpu.bytesAllocated - before };
  }

  async #removeEngine(): Promise<LaneAnswers['removeEngine']> {
    const resident = this.#needResident();
    const { engine, queue } = resident;
    assert(!resident.leaving, 'the engine is being removed already');
    resident.leaving = true;
    engine.pause();
    queue.close(new Error(`the engine of lane ${this.options.lane} was removed`));
    // Nothing may be on its way into buffers that are about to go.
    await this.#arrival.catch(() => undefined);
    await this.#executor.idle(queue);
    await engine.settled();
    const evicted = engine.evict();
    this.#executor.removeResident(queue);
    this.#preemptions.engineLeft();
    engine.destroy();
    this.#resident = null;
    return { evicted };
  }

  async #train(request: Request<'train'>): Promise<LaneAnswers['train']> {
    const { program, result } = this.#needTrainer().step(request.sequences, this.#cost, request.options);
    await this.#runTrainer(program, 'actorTraining', request.requestedMs);
    const trained = await result;
    this.gpu.assertHealthy();
    return trained;
  }

  async #score(request: Request<'score'>): Promise<LaneAnswers['score']> {
    const { program, result } = this.#needTrainer().score(request.sequences, this.#cost, request.which);
    await this.#runTrainer(program, request.stage, request.requestedMs);
    const logprobs = await result;
    this.gpu.assertHealthy();
    return { logprobs };
  }

  /** Trainer → this lane's engine by device copies, and → the store through the host when others may want it. */
  async #publish(version: number, shared: SharedStore | null): Promise<LaneAnswers['publish']> {
    const trainer = this.#needTrainer();
    const resident = this.#resident;
    if (resident !== null && !resident.leaving) {
      await this.#receive(async () => {
        if (resident.engine.version >= version) return;
        const startedMs = nowMs();
        await this.#runTrainer(resident.engine.copyWeights(trainer.weights, version), 'actorTraining');
        this.#record('flip', version, startedMs, 0);
      });
    }
    if (shared === null) return { storeBytes: 0 };
    const startedMs = nowMs();
    const store = WeightStore.attach(shared);
    store.publish(version, await this.#exportWeights());
    this.#record('publish', version, startedMs, store.bytes);
    return { storeBytes: store.bytes };
  }

  /** The store's newest version into the engine, unless it has it. */
  #pull(): Promise<LaneAnswers['pull']> {
    return this.#receive(async () => {
      const { engine, queue, store } = this.#needResident();
      assert(store !== null, 'pull without a store');
      if (store.newestVersion <= engine.version) return { version: engine.version, bytes: 0 };
      const startedMs = nowMs();
      const { version, buckets } = store.pull();
      const done = queue.run(engine.loadWeights(buckets, version));
      this.#executor.wake();
      await done;
      this.#record('pull', version, startedMs, store.bytes);
      return { version, bytes: store.bytes };
    });
  }

  /** Runs `bring` once the version before it has arrived: two at a time would mix in the engine's spare buffers. */
  #receive<T>(bring: () => Promise<T>): Promise<T> {
    const arrival = this.#arrival.then(bring, bring);
    this.#arrival = arrival;
    arrival.catch(() => undefined);
    return arrival;
  }

  async #exportWeights(): Promise<LaneAnswers['exportWeights']['weights']> {
    const { program, result } = this.#needTrainer().exportWeights();
    await this.#runTrainer(program, 'actorTraining');
    return result;
  }

  /** Waits for what is in flight, however the lane stands, and gives the device back. */
  async #close(): Promise<null> {
    const reason = new Error(`lane ${this.options.lane} was closed`);
    this.#executor.stop();
    this.#trainerQueue.abandon(reason);
    this.#resident?.queue.abandon(reason);
    // Why it failed, if it did, is for those who watch `running`.
    await this.#running.catch(() => undefined);
    await Promise.allSettled([this.#resident?.engine.settled(), this.gpu.device.queue.onSubmittedWorkDone()]);
    this.gpu.close();
    return null;
  }

  /** Work that outranks generation: an engine that is busy is preempted for it. */
  #runTrainer(program: Program, stage: string, requestedMs = nowMs()): Promise<void> {
    const done = this.#trainerQueue.run(program);
    this.#executor.request(stage, requestedMs, this.#engineHasWork());
    return done;
  }

  #engineHasWork(): boolean {
    if (this.#resident === null) return false;
    const { engine } = this.#resident;
    return engine.version >= 0 && engine.sequenceCount > 0;
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

  #needResident(): EngineResident {
    assert(this.#resident !== null, 'this lane has no engine');
    return this.#resident;
  }
}
