import { LaneLost } from '../lanes/remote-lane.js';
import { at } from '../lib/assert.js';
import { nowMs } from '../lib/clock.js';
import { toError } from '../lib/errors.js';
import type { AdmissionOrder, ResizeOrder, SleepOrder, WakeOrder } from '../scheduler/plan.js';
import type { RoundRule } from '../scheduler/rounds.js';
import type { Scheduler } from '../scheduler/scheduler.js';
import type { ExclusiveStage } from '../scheduler/stages.js';
import type { EngineState, JobSpec } from '../scheduler/state.js';
import type { RunRecords } from '../telemetry/run-records.js';
import type { DurableTrainer } from './durable-trainer.js';
import type { JobFleet } from './job-fleet.js';
import { JobReporter } from './job-reporter.js';
import type { RolloutPool } from './rollouts.js';
import type { TokenPace } from './token-pace.js';
import type { WeightsAccount } from './weights-account.js';

/** Weight of the latest in the running mean. */
const LEAD_BLEND = 0.3;

export interface JobConductorParts {
  readonly scheduler: Scheduler;
  readonly fleet: JobFleet;
  readonly pool: RolloutPool;
  readonly pace: TokenPace;
  readonly trainer: DurableTrainer;
  readonly records: RunRecords;
  readonly weights: WeightsAccount;
  /** Whether stages are told of a moment before they come. */
  readonly hints: boolean;
  readonly onFailed: (error: Error) => void;
}

/**
 * One job before the scheduler: carries out the orders that concern its engines, reports what they do, and asks for
 * its stages. It knows of no other job.
 */
export class JobConductor {
  /** How the job's next rounds begin, as the last plan to say so does; null: plain ones. */
  rounds: RoundRule | null = null;
  /** Prompts that wait for a long round: told with the next update. */
  deferredPrompts = 0;
  /** Newest version an engine may be given. */
  #version = 0;
  #closed = false;
  /** From a hint to the stage it announces: a running mean, and the hint under way. */
  #leadMs = 0;
  #hintedMs: number | null = null;
  /** Resolves once there are weights to wake with. */
  readonly #hasWeights: Promise<void>;
  #weightsExist: () => void = () => undefined;
  /** Pulls under way, by lane: until they are done the lane's engine may still run older weights. */
  readonly #pulls = new Map<number, number>();
  /** The version that each engine awake holds, by lane. */
  readonly #held = new Map<number, number>();
  readonly #reporter: JobReporter;

  constructor(
    readonly job: JobSpec,
    private readonly parts: JobConductorParts,
  ) {
    const deferredPrompts = (): number => this.deferredPrompts;
    this.#reporter = new JobReporter(job, { ...parts, held: this.#held, deferredPrompts });
    this.#hasWeights = new Promise((resolve) => {
      this.#weightsExist = resolve;
    });
  }

  get version(): number {
    return this.#version;
  }

  get scheduler(): Scheduler {
    return this.parts.scheduler;
  }

  /** Weights of version 0 are on the trainer (and in the store): engines may wake. */
  weightsReady(): void {
    this.#weightsExist();
  }

  /** Demand or room changed: rollouts are placed, and the scheduler hears of it at once. */
  update(): void {
    if (this.#closed) return;
    this.#place();
    this.#reporter.tell();
  }

  /** A rollout ended, paused or goes on, as they do all the time: the scheduler hears of several together. */
  changed(): void {
    if (this.#closed) return;
    this.#place();
    this.#reporter.changed();
  }

  /** The job's engine on the lane has taken a step. */
  heard(lane: number): void {
    this.#reporter.heard(lane);
  }

  /** A stage will be asked for very soon: what is on its lane makes itself easy to stop. */
  hint(): void {
    if (this.parts.hints) this.parts.fleet.hint(nowMs() + this.#leadMs);
    this.#hintedMs = nowMs();
  }

  /** Holds a stage on the trainer's lane while `work` runs; `work` is told when the stage was asked for. */
  async stage<T>(stage: ExclusiveStage, work: (requestedMs: number) => Promise<T>): Promise<T> {
    const requestedMs = nowMs();
    if (this.#hintedMs !== null) this.#leadMs += LEAD_BLEND * (requestedMs - this.#hintedMs - this.#leadMs);
    this.#hintedMs = null;
    const job = this.job.id;
    const { fleet, records } = this.parts;
    // Whoever decides on it knows what the job knows.
    this.#reporter.tellRest();
    const mustQueue = this.#isLaneTaken(fleet.trainerLane);
    const grant = await this.scheduler.request({ job, stage, lanes: [fleet.trainerLane] });
    const grantedMs = nowMs();
    try {
      // Generation yields to a stage that has been granted: waiting for another stage is a queue, and no yield.
      return await work(mustQueue ? grantedMs : requestedMs);
    } finally {
      records.stages.push({ job, stage, requestedMs, grantedMs, releasedMs: nowMs() });
      this.scheduler.release(grant);
    }
  }

  /**
   * The trainer's weights are `version` now, and its lane's engine has them: engines awake on other lanes pull them,
   * those asleep get nothing until they wake.
   */
  published(version: number, seconds: number): void {
    const { fleet, weights } = this.parts;
    this.#version = version;
    if (this.#held.has(fleet.trainerLane)) this.#held.set(fleet.trainerLane, version);
    weights.published(seconds);
    // The job was added with its first version: only later ones are news.
    if (version > this.job.version)
      this.scheduler.dispatch({ kind: 'versionPublished', job: this.job.id, version });
    if (this.#closed) return;
    for (const { lane } of this.#awake()) if (lane !== fleet.trainerLane) void this.#pull(lane);
  }

  /** A lane is gone: no engine there holds anything any more. */
  laneGone(lane: number): void {
    this.#held.delete(lane);
    this.parts.pace.clear(lane);
  }

  /** What the job ran on a lost lane goes on elsewhere. Returns how many rollouts that are. */
  takeBack(lane: number): number {
    const rollouts = this.parts.pool.laneLost(lane);
    return this.#closed ? 0 : rollouts;
  }

  /** The job ends: nothing is placed or pulled any more, and engines on their way get no weights. */
  close(): void {
    this.#closed = true;
    this.#reporter.close();
    this.#weightsExist();
  }

  async wake({ lane, slots }: WakeOrder): Promise<number> {
    const epoch = this.#epochOf(lane);
    await this.#hasWeights;
    // The one in its place has an order of its own.
    if (this.#epochOf(lane) !== epoch) throw new LaneLost(`lane ${lane} was lost before it woke`);
    await this.#carryOut(async () => {
      // A job that is over needs no engine: it counts as awake until a plan puts it to sleep.
      if (this.#closed) return;
      const version = await this.#wakeWithNewest(lane);
      if (slots < this.job.slotsMax) await this.parts.fleet.limitSlots(lane, slots);
      this.#held.set(lane, version);
      // The scheduler learns of it when this returns; rollouts are placed right after.
      setImmediate(() => this.update());
    });
    return this.#held.get(lane) ?? this.#version;
  }

  resize({ lane, slots }: ResizeOrder): Promise<void> {
    return this.#carryOut(async () => {
      await this.parts.fleet.limitSlots(lane, slots);
      // With more slots there may be room for those that wait.
      this.update();
    });
  }

  admit({ lane, admission }: AdmissionOrder): Promise<void> {
    return this.#carryOut(() => this.parts.fleet.admit(lane, admission));
  }

  sleep({ lane }: SleepOrder): Promise<void> {
    const { fleet, pool, pace } = this.parts;
    this.#held.delete(lane);
    return this.#carryOut(async () => {
      // One that could not be made, or was not needed any more, is not there.
      if (!fleet.awake.includes(lane)) return;
      const evicted = await fleet.sleep(lane);
      pace.clear(lane);
      pool.comeBack(lane, evicted);
    });
  }

  /**
   * The engine beside the trainer gets its weights by a device copy, any other those of the store. A version published
   * while the lane was waking reached only engines awake by then: it is fetched here.
   */
  async #wakeWithNewest(lane: number): Promise<number> {
    const { fleet, trainer, weights } = this.parts;
    const remote = await fleet.createEngine(lane);
    // A trainer may be gone as soon as its job is over.
    if (this.#closed) return this.#version;
    if (lane === fleet.trainerLane) return trainer.giveHome(remote);
    for (;;) {
      const startedMs = nowMs();
      const { version, bytes } = await fleet.pull(lane);
      weights.pulled(bytes, (nowMs() - startedMs) / 1000);
      if (version >= this.#version) return version;
    }
  }

  /** The store's newest version into an awake engine; new rollouts wait for it, so that none begins on older weights. */
  async #pull(lane: number): Promise<void> {
    const startedMs = nowMs();
    this.#pulls.set(lane, (this.#pulls.get(lane) ?? 0) + 1);
    try {
      const { version, bytes } = await this.parts.fleet.pull(lane);
      this.#held.set(lane, version);
      this.parts.weights.pulled(bytes, (nowMs() - startedMs) / 1000);
    } catch (error) {
      // An engine on its way to sleep refuses weights, as it should: it gets the newest when it wakes.
      if (this.#awake().some((engine) => engine.lane === lane)) this.#failed(error);
    } finally {
      this.#pulls.set(lane, (this.#pulls.get(lane) ?? 0) - 1);
    }
    this.update();
  }

  #place(): void {
    const open = this.#awake().filter(({ lane }) => (this.#pulls.get(lane) ?? 0) === 0);
    this.parts.pool.place(new Map(open.map(({ lane, slots }) => [lane, slots])));
  }

  /** Engines that are awake by the scheduler's plan too: one on its way to sleep takes nothing new. */
  #awake(): EngineState[] {
    const { awake } = this.parts.fleet;
    return this.#engines().filter(({ lane, status }) => status === 'awake' && awake.includes(lane));
  }

  #engines(): readonly EngineState[] {
    return this.scheduler.snapshot.jobs.get(this.job.id)?.engines ?? [];
  }

  /** Another stage holds the lane, or waits for it. */
  #isLaneTaken(lane: number): boolean {
    const { grants, requests } = this.scheduler.snapshot;
    return [...grants, ...requests].some(({ lanes }) => lanes.includes(lane));
  }

  #epochOf(lane: number): number {
    return at(this.scheduler.snapshot.lanes, lane).epoch;
  }

  /**
   * An order fails with its lane only, which is then for the fleet to replace. Anything else ends this job and costs
   * the others nothing: to the scheduler a lane that it takes for lost would never come back.
   */
  async #carryOut(order: () => Promise<void>): Promise<void> {
    try {
      await order();
    } catch (error) {
      if (error instanceof LaneLost) throw error;
      this.#failed(error);
    }
  }

  /** A lane that was lost is for the fleet to replace; anything else is a bug. */
  #failed(error: unknown): void {
    if (!(error instanceof LaneLost)) this.parts.onFailed(toError(error));
  }
}
