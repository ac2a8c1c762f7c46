import { at } from '../lib/assert.js';
import { errorText } from '../lib/errors.js';
import { check, type Violation } from './check.js';
import { reduce, type SchedulerEvent } from './events.js';
import {
  commit,
  EMPTY_PLAN,
  type AdmissionOrder,
  type Plan,
  type Policy,
  type ResizeOrder,
  type RoundOrder,
  type SegmentOrder,
  type SleepOrder,
  type WakeOrder,
} from './plan.js';
import type { ExclusiveStage } from './stages.js';
import { createSnapshot, type JobId, type LaneId, type Snapshot, type StageGrant } from './state.js';

/**
 * What a scheduler does to the world: live lanes behind worker threads, or simulated ones. Orders are started at
 * once and in the order of the plan, and are not awaited: a slow wake delays no grant. Each must settle or its lane
 * must be reported lost; bounding that wait is for whoever supervises the lane.
 *
 * An order rejects only when its lane cannot be used any more, so the scheduler takes a rejection as `laneLost`:
 * other lanes carry on, and the lane comes back with `laneReady`. What a lane answers after it was lost is ignored.
 */
export interface Effects {
  /** Milliseconds on a clock that never goes back. */
  nowMs(): number;
  /** Resolves with the version of the weights the engine holds, the ordered one or a newer. */
  wake(order: WakeOrder): Promise<number>;
  /** Resolves once the engine's memory is free and its sequences are where the order sends them. */
  sleep(order: SleepOrder): Promise<void>;
  resize(order: ResizeOrder): Promise<void>;
  segment(order: SegmentOrder): Promise<void>;
  admit(order: AdmissionOrder): Promise<void>;
  /** The job is told at once; no lane has to do with it. */
  rounds(order: RoundOrder): void;
  /** Dispatch a `tick` at this time, in ms on `nowMs`'s clock; replaces any earlier wish. */
  reviewAt(timeMs: number): void;
  /** One call for every cycle. The records of a run, in order, are all it takes to replay its decisions. */
  record(record: PlanRecord): void;
  /** The policy broke an invariant: its plan was thrown away, and what was planned before stands. */
  violation(violations: readonly Violation[], plan: Plan): void;
  /** A bug, here or in an effect: the scheduler has closed itself and refused every request with this error. */
  failed(error: Error): void;
}

/** What happened, what was decided on it, and, in the orders' own words, why. */
export interface PlanRecord {
  /** Counts up from 1. */
  readonly cycle: number;
  readonly timeMs: number;
  /** Everything dispatched since the cycle before. */
  readonly events: readonly { readonly timeMs: number; readonly event: SchedulerEvent }[];
  readonly plan: Plan;
  /** Not empty when the plan was not applied. */
  readonly violations: readonly Violation[];
}

export interface Decision {
  readonly plan: Plan;
  readonly violations: readonly Violation[];
  /** The snapshot under the plan, or the same as before if the plan breaks an invariant. */
  readonly next: Snapshot;
}

/** State → plan → check → state: pure, so that the same events always give the same decisions, live or replayed. */
export function decide(snapshot: Snapshot, policy: Policy): Decision {
  let plan: Plan;
  let violations: readonly Violation[];
  try {
    plan = policy(snapshot);
    violations = check(snapshot, plan);
  } catch (error) {
    // Whatever it answered, nobody can make sense of it.
    plan = EMPTY_PLAN;
    violations = [
      { invariant: 0, message: `the policy gave no plan: ${errorText(error)}`, context: { error } },
    ];
  }
  return { plan, violations, next: violations.length === 0 ? commit(snapshot, plan) : snapshot };
}

/** A job's wish for a stage on all of `lanes` at once; `bytes` of device memory on each, beyond what it occupies. */
export interface StageAsk {
  readonly job: JobId;
  readonly stage: ExclusiveStage;
  readonly lanes: readonly LaneId[];
  readonly bytes?: number;
}

/** A request ended without a grant: its job finished or the scheduler closed. */
export class StageRefused extends Error {
  override readonly name = 'StageRefused';
}

interface Waiting {
  readonly resolve: (grant: StageGrant) => void;
  readonly reject: (error: Error) => void;
}

/**
 * The scheduler of a run. Events change the snapshot at once; planning waits for the end of the running task, so
 * that events which belong together get one plan. There is nothing to overflow: only the snapshot is kept.
 */
export class Scheduler {
  #snapshot: Snapshot;
  readonly #waiting = new Map<number, Waiting>();
  #events: { timeMs: number; event: SchedulerEvent }[] = [];
  #cycles = 0;
  #isPlanDue = false;
  #closed: Error | null = null;

  constructor(
    readonly policy: Policy,
    readonly effects: Effects,
    laneCount: number,
  ) {
    this.#snapshot = createSnapshot(laneCount, effects.nowMs());
  }

  get snapshot(): Snapshot {
    return this.#snapshot;
  }

  /** Says that something happened. Throws at once when it cannot have, which is a bug of the caller's. */
  dispatch(event: SchedulerEvent): void {
    if (this.#closed !== null) return;
    const timeMs = this.effects.nowMs();
    this.#snapshot = reduce(this.#snapshot, event, timeMs);
    this.#events.push({ timeMs, event });
    if (event.kind === 'jobFinished') this.#refuseGone(`job ${event.job} has finished`);
    if (this.#isPlanDue) return;
    this.#isPlanDue = true;
    queueMicrotask(() => this.plan());
  }

  /**
   * Resolves once the job holds the stage on all its lanes. Ask for all lanes of a stage at once: two jobs that each
   * hold one lane and ask for the other's wait for ever.
   *
   * @throws StageRefused when the job finishes or the scheduler closes first.
   */
  request({ job, stage, lanes, bytes = 0 }: StageAsk): Promise<StageGrant> {
    if (this.#closed !== null) return Promise.reject(this.#closed);
    return new Promise((resolve, reject) => {
      this.dispatch({ kind: 'stageRequested', job, stage, lanes, bytes });
      this.#waiting.set(this.#snapshot.lastRequest, { resolve, reject });
    });
  }

  /** Gives a grant back. One whose job has finished meanwhile was taken back then: that is no mistake. */
  release(grant: StageGrant): void {
    if (this.#closed !== null) return;
    const isHeld = this.#snapshot.grants.some((held) => held.request === grant.request);
    const isJobOver = this.#snapshot.jobs.get(grant.job)?.finished ?? true;
    if (isHeld || !isJobOver) this.dispatch({ kind: 'stageReleased', request: grant.request });
  }

  /** Holds a stage while `work` runs, however that ends. */
  async during<T>(ask: StageAsk, work: (grant: StageGrant) => Promise<T>): Promise<T> {
    const grant = await this.request(ask);
    try {
      return await work(grant);
    } finally {
      this.release(grant);
    }
  }

  /** Plans now what would be planned at the end of the running task; nothing if nothing happened. */
  plan(): void {
    if (!this.#isPlanDue || this.#closed !== null) return;
    this.#isPlanDue = false;
    try {
      this.#cycle();
    } catch (error) {
      this.#fail(error);
    }
  }

  /** Refuses every request, waiting or to come, and ignores all events from here on. */
  close(reason: Error = new StageRefused('the scheduler is closed')): void {
    if (this.#closed !== null) return;
    this.#closed = reason;
    for (const { reject } of this.#waiting.values()) reject(reason);
    this.#waiting.clear();
  }

  #cycle(): void {
    const events = this.#events;
    this.#events = [];
    const { plan, violations, next } = decide(this.#snapshot, this.policy);
    this.#snapshot = next;
    this.effects.record({ cycle: ++this.#cycles, timeMs: next.timeMs, events, plan, violations });
    if (violations.length > 0) this.effects.violation(violations, plan);
    else this.#apply(plan);
  }

  #apply(plan: Plan): void {
    for (const order of plan.sleep) {
      const { job, lane } = order;
      this.#start(lane, `putting ${job} to sleep`, async () => {
        await this.effects.sleep(order);
        return { kind: 'fellAsleep', job, lane };
      });
    }
    for (const order of plan.resize) {
      this.#start(order.lane, `resizing ${order.job}`, async () => {
        await this.effects.resize(order);
        return null;
      });
    }
    for (const order of plan.segments ?? []) {
      this.#start(order.lane, 'setting its segments', async () => {
        await this.effects.segment(order);
        return null;
      });
    }
    for (const order of plan.admission ?? []) {
      this.#start(order.lane, `telling ${order.job} how to admit`, async () => {
        await this.effects.admit(order);
        return null;
      });
    }
    for (const order of plan.wake) {
      const { job, lane } = order;
      this.#start(lane, `waking ${job}`, async () => {
        return { kind: 'wokeUp', job, lane, version: await this.effects.wake(order) };
      });
    }
    for (const order of plan.rounds ?? []) this.effects.rounds(order);
    if (plan.grant.length > 0) this.#grant(new Set(plan.grant.map((order) => order.request)));
    if (plan.reviewAtMs !== undefined) this.effects.reviewAt(plan.reviewAtMs);
  }

  #grant(requests: ReadonlySet<number>): void {
    for (const grant of this.#snapshot.grants) {
      if (!requests.has(grant.request)) continue;
      this.#waiting.get(grant.request)?.resolve(grant);
      this.#waiting.delete(grant.request);
    }
  }

  /** Starts an order; its lane answers with an event, unless it has been lost or replaced meanwhile. */
  #start(lane: LaneId, what: string, order: () => Promise<SchedulerEvent | null>): void {
    const { epoch } = at(this.#snapshot.lanes, lane);
    const isSame = (): boolean => {
      const now = at(this.#snapshot.lanes, lane);
      return now.health === 'ready' && now.epoch === epoch;
    };
    order()
      .then(
        (event) => event,
        (error: unknown): SchedulerEvent => ({
          kind: 'laneLost',
          lane,
          reason: `${what}: ${errorText(error)}`,
        }),
      )
      .then((event) => {
        if (event !== null && isSame()) this.dispatch(event);
      })
      .catch((error: unknown) => this.#fail(error));
  }

  #fail(thrown: unknown): void {
    const error = thrown instanceof Error ? thrown : new Error(errorText(thrown));
    this.close(error);
    this.effects.failed(error);
  }

  #refuseGone(reason: string): void {
    const ids = new Set(this.#snapshot.requests.map((request) => request.id));
    for (const [id, { reject }] of this.#waiting) {
      if (ids.has(id) || this.#snapshot.grants.some((grant) => grant.request === id)) continue;
      reject(new StageRefused(reason));
      this.#waiting.delete(id);
    }
  }
}
