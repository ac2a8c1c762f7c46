import type { EngineUpdate } from '../engine/engine.js';
import type { Gpu } from '../gpu/device.js';
import type { Program } from '../gpu/ops.js';
import { Kernels } from '../kernels/kernels.js';
import { assert } from '../lib/assert.js';
import { nowMs } from '../lib/clock.js';
import { threadCpuMs } from '../lib/thread-cpu.js';
import type { Buckets } from '../model/layout.js';
import type { LaneRecords, VersionRecord } from '../telemetry/records.js';
import { Trainer } from '../train/trainer.js';
import { WARM_UP_STEP, warmUpBatch } from '../train/warm-up.js';
import { WeightStore, type SharedStore } from '../weights/store.js';
import { calibrate } from './calibration.js';
import { CostModel } from './cost-model.js';
import type { Doorbell } from './doorbell.js';
import { EngineResident } from './engine-resident.js';
import { Executor } from './executor.js';
import type { LaneAnswers, LaneRequest } from './messages.js';
import { PreemptionLog } from './preemption-log.js';
import { ProgramQueue } from './program-queue.js';
import type { LaneSettings } from './settings.js';

const TRAINER_PRIORITY = 1;

export interface LaneOptions {
  readonly lane: number;
  readonly job: string;
  readonly settings: LaneSettings;
  /** Ends the thread's naps; null where it must not nap. */
  readonly doorbell: Doorbell | null;
  /** As which the lane publishes weights; 0 by default. */
  readonly epoch?: number;
  /** Called after each part of a version that is written to the store. */
  readonly onStorePart?: () => void;
}

type Request<K extends LaneRequest['kind']> = Extract<LaneRequest, { kind: K }>;

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
  #versions: VersionRecord[] = [];
  #settings: LaneSettings;
  readonly #running: Promise<void>;
  #closing: Promise<null> | null = null;

  constructor(
    private readonly gpu: Gpu,
    private readonly options: LaneOptions,
    private readonly onUpdate: (update: EngineUpdate) => void,
  ) {
    const { lane, job, settings, doorbell } = options;
    this.#kernels = new Kernels(gpu);
    this.#settings = settings;
    this.#cost = new CostModel(settings.budgets.sliceUs);
    this.#preemptions = new PreemptionLog(lane);
    this.#executor = new Executor(gpu, lane, settings, this.#cost, this.#preemptions, doorbell, () =>
      this.#released(),
    );
    this.#trainerQueue = new ProgramQueue(job, 'trainer', TRAINER_PRIORITY, () => null);
    this.#executor.addResident(this.#trainerQueue);
    this.#running = this.#run();
  }

  async #run(): Promise<void> {
    await this.#executor.synchronise();
    await this.#executor.run();
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
      case 'loadState':
        await this.#runTrainer(this.#needTrainer().loadState(request.state), 'init');
        return null;
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
      case 'configure':
        this.#settings = request.settings;
        this.#executor.configure(request.settings);
        return null;
      case 'hint':
        this.#executor.hint(request.expectedMs, request.untilMs);
        return null;
      case 'flush':
        return {
          ...this.takeRecords(true),
          largestDispatchUs: this.#executor.largestDispatchUs,
          cpuMs: threadCpuMs(),
        };
      case 'close':
        return (this.#closing ??= this.#close());
      default:
        return request satisfies never;
    }
  }

  /** What happened since the last call; `all` also ends records still waiting for their last moment. */
  takeRecords(all: boolean): LaneRecords {
    const versions = this.#versions;
    this.#versions = [];
    const preemptions = this.#preemptions.take(all);
    const undisturbed = this.#preemptions.takeUndisturbed();
    return { ...this.#executor.takeRecords(), preemptions, undisturbed, versions };
  }

  async #createTrainer(request: Request<'createTrainer'>): Promise<LaneAnswers['createTrainer']> {
    assert(this.#trainer === null, 'a lane holds one trainer');
    const before = this.gpu.bytesAllocated;
    const trainer = new Trainer(this.#kernels, request.config, request.layout, request.options);
    this.#trainer = trainer;
    const bytes = this.gpu.bytesAllocated - before;
    await this.#warmUp(trainer);
    await this.#runTrainer(trainer.loadWeights(request.weights), 'init');
    return { bytes };
  }

  async #warmUp(trainer: Trainer): Promise<void> {
    const { contextTokensMax, rowsMax } = trainer.options;
    const batch = warmUpBatch(Math.min(contextTokensMax, rowsMax));
    let result: Promise<unknown> = Promise.resolve();
    const make = (): Program => {
      const job = trainer.step(batch, this.#cost, WARM_UP_STEP);
      result = job.result;
      return job.program;
    };
    await this.#calibrate(this.#trainerQueue, make, () => result);
  }

  async #createEngine(request: Request<'createEngine'>): Promise<LaneAnswers['createEngine']> {
    assert(this.#resident === null, 'a lane holds one engine');
    const before = this.gpu.bytesAllocated;
    const { lane, job } = this.options;
    const parts = { lane, job, kernels: this.#kernels, cost: this.#cost, executor: this.#executor };
    const resident = new EngineResident({ ...parts, onUpdate: (update) => this.#receive(update) }, request);
    this.#resident = resident;
    await this.#calibrate(resident.queue, () => resident.engine.warmUp());
    return { bytes: this.gpu.bytesAllocated - before };
  }

  #receive(update: EngineUpdate): void {
    this.#preemptions.recomputed(this.#resident?.engine.takeTokensRecomputed() ?? 0);
    if (update.ids.length > 0) this.#preemptions.tokens(nowMs());
    this.onUpdate(update);
    this.#executor.wake();
  }

  async #removeEngine(): Promise<LaneAnswers['removeEngine']> {
    const evicted = await this.#needResident().remove();
    this.#preemptions.engineLeft();
    this.#resident = null;
    return { evicted };
  }

  /** @throws UserError when the smallest piece of the resident's work is longer than a slice may be */
  async #calibrate(
    queue: ProgramQueue,
    make: () => Program,
    outcome: () => Promise<unknown> = () => Promise.resolve(),
  ): Promise<void> {
    const run = async (program: Program): Promise<void> => {
      const done = queue.run(program);
      this.#executor.wake();
      await done;
      await this.#executor.idle(queue);
      await Promise.all([this.#executor.timed(), outcome()]);
    };
    await calibrate({ make, run, cost: this.#cost, sliceUs: this.#settings.budgets.sliceUs });
  }

  async #train(request: Request<'train'>): Promise<LaneAnswers['train']> {
    const detectedMs = nowMs();
    const { requestedMs, sequences, options, publish, commit = false } = request;
    const store = publish?.store ?? null;
    let handedOverMs = detectedMs;
    const { program, result } = this.#needTrainer().stepAndExport(sequences, this.#cost, options, {
      handOver: () => {
        handedOverMs = nowMs();
        // Without a version to publish, no engine is behind.
        return this.#flip(publish?.version ?? -1);
      },
      exports: commit ? 'state' : store === null ? 'nothing' : 'weights',
    });
    const run = (): Promise<void> => this.#runTrainer(program, 'actorTraining', requestedMs, detectedMs);
    await (publish === undefined || this.#resident === null ? run() : this.#resident.receive(run));
    const { result: trained, weights, state } = await result;
    this.gpu.assertHealthy();
    if (publish !== undefined && store !== null && weights !== null)
      this.#write(publish.version, store, weights);
    return { ...trained, state, publishMs: publish === undefined ? 0 : nowMs() - handedOverMs };
  }

  async #score(request: Request<'score'>): Promise<LaneAnswers['score']> {
    const detectedMs = nowMs();
    const { program, result } = this.#needTrainer().score(request.sequences, this.#cost, request.which);
    await this.#runTrainer(program, request.stage, request.requestedMs, detectedMs);
    const logprobs = await result;
    this.gpu.assertHealthy();
    return { logprobs };
  }

  /** Trainer → this lane's engine by device copies, and → the store through the host when others may want it. */
  async #publish(version: number, shared: SharedStore | null): Promise<LaneAnswers['publish']> {
    this.#needTrainer();
    const run = (): Promise<void> => this.#runTrainer(this.#flip(version), 'actorTraining');
    await (this.#resident === null ? run() : this.#resident.receive(run));
    if (shared === null) return { storeBytes: 0 };
    return { storeBytes: this.#write(version, shared, await this.#exportWeights()) };
  }

  /** The trainer's weights into this lane's engine, unless it has them, is about to go or is not there. */
  *#flip(version: number): Program {
    if (this.#resident === null) return;
    const startedMs = nowMs();
    const done = (): void => this.#record('flip', version, startedMs, 0);
    yield* this.#resident.flip(this.#needTrainer().weights, version, done);
  }

  /** Into the store; returns the bytes. */
  #write(version: number, shared: SharedStore, weights: Buckets): number {
    const startedMs = nowMs();
    const store = WeightStore.attach(shared, this.options.epoch);
    store.publish(version, weights, this.options.onStorePart);
    this.#record('publish', version, startedMs, store.bytes);
    return store.bytes;
  }

  #pull(): Promise<LaneAnswers['pull']> {
    const startedMs = nowMs();
    return this.#needResident().pull((version, bytes) => this.#record('pull', version, startedMs, bytes));
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
  #runTrainer(program: Program, stage: string, requestedMs = nowMs(), detectedMs = nowMs()): Promise<void> {
    const done = this.#trainerQueue.run(program);
    if (!this.#executor.isBusy(this.#trainerQueue)) this.#makeRoom();
    this.#executor.request(this.#trainerQueue, stage, requestedMs, detectedMs);
    if (this.#settings.kvOnPreempt.kind === 'held')
      this.#preemptions.held(this.#resident?.engine.sequenceCount ?? 0);
    return done;
  }

  /** The engine's caches leave the device, as far as the settings want it, before a stage begins. */
  #makeRoom(): void {
    const kv = this.#settings.kvOnPreempt;
    if (kv.kind === 'held') return;
    this.#resident?.makeRoom(kv, (counts) => this.#preemptions.left(counts, nowMs()));
  }

  #released(): void {
    this.#resident?.engine.comeBack();
    this.#executor.wake();
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
