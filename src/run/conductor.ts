import { LaneLost } from '../lanes/remote-lane.js';
import { at } from '../lib/assert.js';
import { nowMs } from '../lib/clock.js';
import { toError } from '../lib/errors.js';
import type { Policy, SegmentOrder } from '../scheduler/plan.js';
import { type Effects, type PlanRecord, Scheduler } from '../scheduler/scheduler.js';
import type { JobId } from '../scheduler/state.js';
import type { RunRecords } from '../telemetry/run-records.js';
import type { Fleet } from './fleet.js';
import type { JobConductor } from './job-conductor.js';
import { planChanges } from '../scheduler/plan-words.js';
import { violationText } from './policy-violation.js';

/** A policy as a run has it. */
export interface NamedPolicy {
  readonly name: string;
  readonly plan: Policy;
}

/** Longest wait between two reviews: a timer of Node knows no longer ones than some weeks. */
const REVIEW_MS_MAX = 3_600_000;

export interface ConductorParts {
  readonly fleet: Fleet;
  readonly records: RunRecords;
  /** What a lane may be filled with by plan; Infinity when nobody counts. */
  readonly laneBytes: number;
  readonly onPlan?: ((record: PlanRecord) => void) | undefined;
  /** The policy broke an invariant; the run goes on under the plan before. */
  readonly onViolation: (text: string) => void;
  readonly onFailed: (error: Error) => void;
}

/**
 * Carries the scheduler's plans to the jobs of a run, and tells it what happens to lanes. The scheduler decides, each
 * job carries out what concerns its own residents; the conductor waves.
 */
export class Conductor {
  readonly scheduler: Scheduler;
  readonly #jobs = new Map<JobId, JobConductor>();
  #cycles = 0;
  #review: NodeJS.Timeout | undefined;
  #closed = false;

  constructor(
    private readonly policy: NamedPolicy,
    private readonly parts: ConductorParts,
  ) {
    const { fleet } = parts;
    this.scheduler = new Scheduler(policy.plan, this.#effects(), fleet.numbers.length);
    for (const lane of fleet.numbers) if (fleet.isReady(lane)) this.laneReady(lane);
  }

  get cycles(): number {
    return this.#cycles;
  }

  /** The job is there: its orders go to `conductor` from now on. */
  add(conductor: JobConductor): void {
    const { job } = conductor;
    this.#jobs.set(job.id, conductor);
    this.scheduler.dispatch({ kind: 'jobAdded', job });
  }

  /** The job is done or given up; what it still has awake is put to sleep by the next plans. */
  finished(job: JobId): void {
    this.scheduler.dispatch({ kind: 'jobFinished', job });
  }

  /** A lane came up, for the first time or in place of one that was lost: engines may wake there. */
  laneReady(lane: number): void {
    if (at(this.scheduler.snapshot.lanes, lane).health === 'ready') return;
    this.scheduler.dispatch({ kind: 'laneReady', lane, bytesCapacity: this.parts.laneBytes });
  }

  /** A lane is gone with all that was on it: its rollouts go on elsewhere. Returns how many there are. */
  laneLost(lane: number, reason: string): number {
    for (const job of this.#jobs.values()) job.laneGone(lane);
    if (at(this.scheduler.snapshot.lanes, lane).health === 'ready')
      this.scheduler.dispatch({ kind: 'laneLost', lane, reason });
    return [...this.#jobs.values()].reduce((sum, job) => sum + job.takeBack(lane), 0);
  }

  /**
   * Ends scheduling: stages that wait are refused, the one that holds its lane goes on, rollouts stay where they are.
   */
  close(): void {
    this.#closed = true;
    clearTimeout(this.#review);
    this.scheduler.close();
  }

  #of(job: JobId): JobConductor {
    const conductor = this.#jobs.get(job);
    if (conductor === undefined) throw new Error(`assertion failed: an order for ${job}, which never came`);
    return conductor;
  }

  #effects(): Effects {
    const { records, onFailed } = this.parts;
    return {
      nowMs,
      wake: (order) => this.#of(order.job).wake(order),
      sleep: (order) => this.#of(order.job).sleep(order),
      resize: (order) => this.#of(order.job).resize(order),
      segment: (order) => this.#segment(order),
      admit: (order) => this.#of(order.job).admit(order),
      rounds: ({ job, rounds }) => {
        this.#of(job).rounds = rounds;
      },
      reviewAt: (timeMs) => this.#reviewAt(timeMs),
      record: (record) => {
        this.#cycles = record.cycle;
        this.parts.onPlan?.(record);
        const changes = planChanges(record.plan);
        if (changes.length > 0) records.plans.push({ cycle: record.cycle, atMs: record.timeMs, changes });
      },
      violation: (violations, plan) => {
        this.parts.onViolation(violationText(this.policy.name, violations, plan));
      },
      failed: onFailed,
    };
  }

  async #segment({ lane, segment }: SegmentOrder): Promise<void> {
    try {
      await this.parts.fleet.align(lane, segment);
    } catch (error) {
      if (!(error instanceof LaneLost)) this.parts.onFailed(toError(error));
      throw error;
    }
  }

  /** The scheduler wants to think again then, whether or not anything happens. */
  #reviewAt(timeMs: number): void {
    clearTimeout(this.#review);
    if (this.#closed) return;
    const waitMs = Math.min(REVIEW_MS_MAX, Math.max(0, timeMs - nowMs()));
    this.#review = setTimeout(() => this.scheduler.dispatch({ kind: 'tick' }), waitMs);
  }
}
