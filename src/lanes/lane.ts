import type { EngineUpdate } from '../engine/engine.js';
import type { Gpu } from '../gpu/device.js';
import { Kernels } from '../kernels/kernels.js';
import { nowMs } from '../lib/clock.js';
import { threadCpuMs } from '../lib/thread-cpu.js';
import type { LaneRecords, VersionRecord } from '../telemetry/records.js';
import { CostModel } from './cost-model.js';
import type { Doorbell } from './doorbell.js';
import type { EngineResident } from './engine-resident.js';
import { Executor } from './executor.js';
import type { StageWork } from './learner-resident.js';
import type { JobRequest, LaneAnswers, LaneRequest } from './messages.js';
import { PreemptionLog } from './preemption-log.js';
import type { ProgramQueue } from './program-queue.js';
import type { LaneSettings } from './settings.js';
import { Tenant } from './tenant.js';

export interface LaneOptions {
  readonly lane: number;
  readonly settings: LaneSettings;
  /** Ends the thread's naps; null where it must not nap. */
  readonly doorbell: Doorbell | null;
  /** As which the lane publishes weights; 0 by default. */
  readonly epoch?: number;
  /** Called after each part of a version that is written to the store. */
  readonly onStorePart?: () => void;
}

/**
 * One device and the jobs on it: what a lane's thread runs, and nothing of how messages reach it. Training outranks
 * generation, whosever it is; the executor does the rest.
 */
export class Lane {
  readonly #kernels: Kernels;
  readonly #cost: CostModel;
  readonly #preemptions: PreemptionLog;
  readonly #executor: Executor;
  /** By job: those that have a trainer, a critic or an engine here. */
  readonly #tenants = new Map<string, Tenant>();
  #versions: VersionRecord[] = [];
  #settings: LaneSettings;
  readonly #running: Promise<void>;
  #closing: Promise<null> | null = null;

  constructor(
    private readonly gpu: Gpu,
    private readonly options: LaneOptions,
    private readonly onUpdate: (update: EngineUpdate, job: string, stepMs: number | null) => void,
  ) {
    const { lane, settings, doorbell } = options;
    this.#kernels = new Kernels(gpu);
    this.#settings = settings;
    this.#cost = new CostModel(settings.budgets.sliceUs);
    this.#preemptions = new PreemptionLog(lane);
    this.#executor = new Executor(gpu, lane, settings, this.#cost, this.#preemptions, doorbell, () =>
      this.#released(),
    );
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
    if ('job' in request) return this.#ask(request);
    switch (request.kind) {
      case 'configure':
        this.#settings = request.settings;
        this.#executor.configure(request.settings);
        return null;
      case 'align':
        this.#executor.align(request.segment);
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

  async #ask(request: JobRequest): Promise<LaneAnswers[JobRequest['kind']]> {
    const { job } = request;
    const tenant = this.#tenants.get(job) ?? this.#newTenant(job);
    const done = tenant.handle(request);
    // A request of a job that has nothing here leaves nothing behind.
    if (!tenant.isGone) this.#tenants.set(job, tenant);
    try {
      return await done;
    } finally {
      if (tenant.isGone) this.#tenants.delete(job);
    }
  }

  #newTenant(job: string): Tenant {
    const { lane, epoch = 0, onStorePart = () => undefined } = this.options;
    return new Tenant({
      lane,
      job,
      epoch,
      gpu: this.gpu,
      kernels: this.#kernels,
      cost: this.#cost,
      executor: this.#executor,
      sliceUs: () => this.#settings.budgets.sliceUs,
      runStage: (queue, work) => this.#runStage(queue, work),
      onStorePart,
      onUpdate: (update) => this.#receive(update, job),
      onVersion: (record) => this.#versions.push(record),
      onEngineLeft: () => this.#preemptions.engineLeft(job),
    });
  }

  #receive(update: EngineUpdate, job: string): void {
    const engine = this.#tenants.get(job)?.engine;
    const recomputed = engine?.engine.takeTokensRecomputed() ?? 0;
    this.#preemptions.recomputed(recomputed);
    if (update.ids.length > 0) this.#preemptions.tokens(job, nowMs());
    this.onUpdate(update, job, engine?.stepMs ?? null);
    this.#executor.wake();
  }

  /** Waits for what is in flight, however the lane stands, and gives the device back. */
  async #close(): Promise<null> {
    const reason = new Error(`lane ${this.options.lane} was closed`);
    this.#executor.stop();
    for (const tenant of this.#tenants.values()) tenant.abandon(reason);
    // Why it failed, if it did, is for those who watch `running`.
    await this.#running.catch(() => undefined);
    const settled = this.#engines().map(({ engine }) => engine.settled());
    await Promise.allSettled([...settled, this.gpu.device.queue.onSubmittedWorkDone()]);
    this.gpu.close();
    return null;
  }

  #engines(): EngineResident[] {
    return [...this.#tenants.values()].flatMap(({ engine }) => (engine === null ? [] : [engine]));
  }

  /** Work that outranks generation: engines that are busy, whosever they are, are preempted for it. */
  #runStage(
    queue: ProgramQueue,
    { program, stage, requestedMs, detectedMs }: Required<StageWork>,
  ): Promise<void> {
    const done = queue.runContained(program);
    // A queue that takes nothing more wants no device.
    if (!queue.hasWork) return done;
    const learners = [...this.#tenants.values()].flatMap((tenant) => tenant.learners);
    const isHeld = learners.some((learner) => this.#executor.isBusy(learner.queue));
    if (!isHeld) this.#makeRoom();
    this.#executor.request(queue, stage, requestedMs, detectedMs);
    if (this.#settings.kvOnPreempt.kind === 'held')
      this.#preemptions.held(this.#engines().reduce((sum, { engine }) => sum + engine.sequenceCount, 0));
    return done;
  }

  /** The caches of all engines leave the device, as far as the settings want it, before a stage begins. */
  #makeRoom(): void {
    const kv = this.#settings.kvOnPreempt;
    if (kv.kind === 'held') return;
    for (const engine of this.#engines())
      engine.makeRoom(kv, (counts) => this.#preemptions.left(engine.job, counts, nowMs()));
  }

  /** No stage wants the device any more. */
  #released(): void {
    for (const { engine } of this.#engines()) engine.comeBack();
    this.#executor.wake();
  }
}
