import { LaneLost } from '../lanes/remote-lane.js';
import { at } from '../lib/assert.js';
import { nowMs } from '../lib/clock.js';
import { toError } from '../lib/errors.js';
import type { AdmissionOrder, Policy, ResizeOrder, SleepOrder, WakeOrder } from '../scheduler/plan.js';
import { type Effects, type PlanRecord, Scheduler } from '../scheduler/scheduler.js';
import type { ExclusiveStage } from '../scheduler/stages.js';
import type { EngineState, JobSpec } from '../scheduler/state.js';
import type { RunRecords } from '../telemetry/run-records.js';
import type { DurableTrainer } from './durable-trainer.js';
import { type Fleet, TRAINER_LANE } from './fleet.js';
import { violationText } from './policy-violation.js';
import type { RolloutPool } from './rollouts.js';
import type { WeightsAccount } from './weights-account.js';

/** A policy as a run has it. */
export interface NamedPolicy {
  readonly name: string;
  readonly plan: Policy;
}

/** Longest wait between two reviews: a timer of Node knows no longer ones than some weeks. */
const REVIEW_MS_MAX = 3_600_000;
/** Weight of the latest in the running mean. */
const LEAD_BLEND = 0.3;

export interface ConductorParts {
  readonly fleet: Fleet;
  readonly pool: RolloutPool;
  readonly trainer: DurableTrainer;
  readonly records: RunRecords;
  readonly weights: WeightsAccount;
  /** Whether stages are told of a moment before they come. */
  readonly hints: boolean;
  /** The policy broke an invariant; the run goes on under the plan before. */
  readonly onViolation: (text: string) => void;
  readonly onFailed: (error: Error) => void;
}

/**
 * Carries out the scheduler's plans on live lanes, and tells it what happens there. The scheduler decides; the
 * conductor waves.
 */
export class Conductor {
  readonly scheduler: Scheduler;
  /** Newest version an engine may be given. */
  #version = 0;
  #cycles = 0;
  #review: NodeJS.Timeout | undefined;
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

  constructor(
    private readonly policy: NamedPolicy,
    private readonly job: JobSpec,
    private readonly parts: ConductorParts,
  ) {
    this.#hasWeights = new Promise((resolve) => {
      this.#weightsExist = resolve;
    });
    const { fleet } = parts;
    this.scheduler = new Scheduler(policy.plan, this.#effects(), fleet.numbers.length);
    for (const lane of fleet.numbers) if (fleet.isReady(lane)) this.laneReady(lane);
    this.scheduler.dispatch({ kind: 'jobAdded', job });
  }

  get cycles(): number {
    return this.#cycles;
  }

  get version(): number {
    return this.#version;
  }

  /** Weights of version 0 are on the trainer (and in the store): engines may wake. */
  weightsReady(): void {
    this.#weightsExist();
  }

  /** Demand or room changed: rollouts are placed, and the scheduler hears of it. */
  update(): void {
    if (this.#closed) return;
    const { pool } = this.parts;
    const { id } = this.job;
    const open = this.#awake().filter(({ lane }) => (this.#pulls.get(lane) ?? 0) === 0);
    pool.place(new Map(open.map(({ lane, slots }) => [lane, slots])));
    this.scheduler.dispatch({ kind: 'demandChanged', job: id, demand: pool.demand });
    for (const { lane, status, running: told, version: toldVersion } of this.#engines()) {
      const running = pool.runningOn(lane);
      const version = this.#held.get(lane) ?? toldVersion;
      if (status !== 'awake' || (told === running && toldVersion === version)) continue;
      this.scheduler.dispatch({ kind: 'progress', job: id, lane, running, version, tokens: 0 });
    }
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
    const grant = await this.scheduler.request({ job, stage, lanes: [TRAINER_LANE] });
    const grantedMs = nowMs();
    try {
      return await work(requestedMs);
    } finally {
      this.parts.records.stages.push({ job, stage, requestedMs, grantedMs, releasedMs: nowMs() });
      this.scheduler.release(grant);
    }
  }

  /**
   * The trainer's weights are `version` now, and its lane's engine has them: engines awake on other lanes pull them,
   * those asleep get nothing until they wake.
   */
  published(version: number, seconds: number): void {
    this.#version = version;
    if (this.#held.has(TRAINER_LANE)) this.#held.set(TRAINER_LANE, version);
    this.parts.weights.published(seconds);
    // The job was added with its first version: only later ones are news.
    if (version > this.job.version)
      this.scheduler.dispatch({ kind: 'versionPublished', job: this.job.id, version });
    if (this.#closed) return;
    for (const { lane } of this.#awake()) if (lane !== TRAINER_LANE) void this.#pull(lane);
  }

  /** A lane came up, for the first time or in place of one that was lost: its engine may wake. */
  laneReady(lane: number): void {
    if (at(this.scheduler.snapshot.lanes, lane).health === 'ready') return;
    this.scheduler.dispatch({ kind: 'laneReady', lane, bytesCapacity: Infinity });
  }

  /** A lane is gone with all that was on it: its rollouts go on elsewhere. Returns how many there are. */
  laneLost(lane: number, reason: string): number {
    this.#held.delete(lane);
    if (at(this.scheduler.snapshot.lanes, lane).health === 'ready')
      this.scheduler.dispatch({ kind: 'laneLost', lane, reason });
    return this.parts.pool.laneLost(lane);
  }

  /**
   * Ends scheduling: stages that wait are refused, the one that holds its lane goes on, rollouts stay where they are.
   */
  close(): void {
    this.#closed = true;
    clearTimeout(this.#review);
    this.scheduler.close();
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

  /** Engines that are awake by the scheduler's plan too: one on its way to sleep takes nothing new. */
  #awake(): EngineState[] {
    const { awake } = this.parts.fleet;
    return this.#engines().filter(({ lane, status }) => status === 'awake' && awake.includes(lane));
  }

  #engines(): readonly EngineState[] {
    return this.scheduler.snapshot.jobs.get(this.job.id)?.engines ?? [];
  }

  #effects(): Effects {
    const { records, onFailed } = this.parts;
    return {
      nowMs,
      wake: (order) => this.#wake(order),
      sleep: (order) => this.#sleep(order),
      resize: (order) => this.#resize(order),
      admit: (order) => this.#admit(order),
      reviewAt: (timeMs) => this.#reviewAt(timeMs),
      record: (record) => {
        this.#cycles = record.cycle;
        const changes = planChanges(record);
        if (changes.length > 0) records.plans.push({ cycle: record.cycle, atMs: record.timeMs, changes });
      },
      violation: (violations, plan) => {
        this.parts.onViolation(violationText(this.policy.name, violations, plan));
      },
      failed: onFailed,
    };
  }

  async #wake({ lane, slots }: WakeOrder): Promise<number> {
    const epoch = this.#epochOf(lane);
    await this.#hasWeights;
    // The one in its place has an order of its own.
    if (this.#epochOf(lane) !== epoch) throw new LaneLost(`lane ${lane} was lost before it woke`);
    try {
      const version = await this.#wakeWithNewest(lane);
      if (slots < this.job.slotsMax) await this.parts.fleet.limitSlots(lane, slots);
      this.#held.set(lane, version);
      // The scheduler learns of it when this returns; rollouts are placed right after.
      setImmediate(() => this.update());
      return version;
    } catch (error) {
      this.#failed(error);
      throw error;
    }
  }

  /**
   * The engine beside the trainer gets its weights by a device copy, any other those of the store. A version published
   * while the lane was waking reached only engines awake by then: it is fetched here.
   */
  async #wakeWithNewest(lane: number): Promise<number> {
    const { fleet, trainer, weights } = this.parts;
    const remote = await fleet.createEngine(lane);
    if (lane === TRAINER_LANE) return trainer.giveHome(remote);
    for (;;) {
      const startedMs = nowMs();
      const { version, bytes } = await fleet.pull(lane);
      weights.pulled(bytes, (nowMs() - startedMs) / 1000);
      if (version >= this.#version) return version;
    }
  }

  async #resize({ lane, slots }: ResizeOrder): Promise<void> {
    try {
      await this.parts.fleet.limitSlots(lane, slots);
      // With more slots there may be room for those that wait.
      this.update();
    } catch (error) {
      this.#failed(error);
      throw error;
    }
  }

  async #admit({ lane, admission }: AdmissionOrder): Promise<void> {
    try {
      await this.parts.fleet.admit(lane, admission);
    } catch (error) {
      this.#failed(error);
      throw error;
    }
  }

  /** The scheduler wants to think again then, whether or not anything happens. */
  #reviewAt(timeMs: number): void {
    clearTimeout(this.#review);
    const waitMs = Math.min(REVIEW_MS_MAX, Math.max(0, timeMs - nowMs()));
    this.#review = setTimeout(() => this.scheduler.dispatch({ kind: 'tick' }), waitMs);
  }

  async #sleep({ lane }: SleepOrder): Promise<void> {
    const { fleet, pool } = this.parts;
    this.#held.delete(lane);
    try {
      pool.comeBack(lane, await fleet.sleep(lane));
    } catch (error) {
      this.#failed(error);
      throw error;
    }
  }

  #epochOf(lane: number): number {
    return at(this.scheduler.snapshot.lanes, lane).epoch;
  }

  /** A lane that was lost is for the fleet to replace; anything else is a bug. */
  #failed(error: unknown): void {
    if (!(error instanceof LaneLost)) this.parts.onFailed(toError(error));
  }
}

function planChanges({ plan }: PlanRecord): string[] {
  return [
    ...plan.wake.map(
      ({ job, lane, slots, reason }) => `wake ${job} engine on lane ${lane}, ${slots} slots: ${reason}`,
    ),
    ...plan.sleep.map(({ job, lane, reason }) => `put ${job} engine on lane ${lane} to sleep: ${reason}`),
    ...plan.resize.map(
      ({ job, lane, slots, reason }) => `resize ${job} engine on lane ${lane} to ${slots} slots: ${reason}`,
    ),
    ...plan.grant.map(({ request, reason }) => `grant request ${request}: ${reason}`),
  ];
}
