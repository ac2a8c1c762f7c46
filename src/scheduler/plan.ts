import type { z } from 'zod';
import type { Admission } from '../engine/admission.js';
import { assert } from '../lib/assert.js';
import type { RoundRule } from './rounds.js';
import type {
  EngineState,
  JobId,
  JobState,
  LaneId,
  Segment,
  Snapshot,
  StageGrant,
  StageRequest,
} from './state.js';

/** Every order says in a few words why, for the trace and for whoever wonders. */
interface Order {
  readonly reason: string;
}

/** Load the newest weights and generate. */
export interface WakeOrder extends Order {
  readonly job: JobId;
  readonly lane: LaneId;
  readonly slots: number;
  /** The newest version there is: none in between is ever loaded. */
  readonly version: number;
}

/** Stop generating and free the weights and the KV cache. */
export interface SleepOrder extends Order {
  readonly job: JobId;
  readonly lane: LaneId;
  /**
   * Where the sequences go that run there: back to the job's queue, or to its engine awake on another lane. Either
   * way each goes on from its last committed token.
   */
  readonly moveTo: 'queue' | LaneId;
}

/** Change how many sequences an engine awake may run at once. */
export interface ResizeOrder extends Order {
  readonly job: JobId;
  readonly lane: LaneId;
  readonly slots: number;
}

/** Change how the engines on a lane alternate; null leaves that to the lane again. */
export interface SegmentOrder extends Order {
  readonly lane: LaneId;
  /** A lane never goes over its own budgets, whatever this says. */
  readonly segment: Segment | null;
}

/** Give an engine awake another rule by which it admits sequences; null: each takes all it may need, as at waking. */
export interface AdmissionOrder extends Order {
  readonly job: JobId;
  readonly lane: LaneId;
  readonly admission: Admission | null;
}

/** How a job's rounds of rollouts begin from its next one on; null: each starts what a training step takes. */
export interface RoundOrder extends Order {
  readonly job: JobId;
  readonly rounds: RoundRule | null;
}

export interface GrantOrder extends Order {
  readonly request: number;
}

/** Why a request waits, and the lanes that stay free for it meanwhile: nobody else is granted those. */
export interface Reservation extends Order {
  readonly request: number;
  readonly lanes: readonly LaneId[];
}

/** What shall change, as pure data. What is not named stays as it is. */
export interface Plan {
  readonly wake: readonly WakeOrder[];
  readonly sleep: readonly SleepOrder[];
  readonly resize: readonly ResizeOrder[];
  readonly grant: readonly GrantOrder[];
  readonly reservations: readonly Reservation[];
  readonly segments?: readonly SegmentOrder[];
  readonly admission?: readonly AdmissionOrder[];
  readonly rounds?: readonly RoundOrder[];
  /** Plan again no later than this even if nothing happens, in ms on the snapshot's clock. */
  readonly reviewAtMs?: number;
  /** Plain JSON that comes back as `snapshot.memory`; left out, the old one stays. */
  readonly memory?: unknown;
}

/** A scheduling policy: no clock, no randomness, no memory but the snapshot's. */
export type Policy = (snapshot: Snapshot) => Plan;

/** A policy as it is chosen: by name, with its options. */
export interface PolicyDefinition<Options = unknown> {
  readonly name: string;
  /** The paper or system it is after; null for a baseline of our own. */
  readonly after: string | null;
  /** One line for those who choose. */
  readonly summary: string;
  /** No lane idles while a job that may use it has runnable sequences without a slot. */
  readonly isWorkConserving: boolean;
  /**
   * Every runnable job gets a slot and every request that fits gets its lanes within so many times the longest that any
   * holder keeps what it was given; Infinity where the policy promises no such thing.
   */
  readonly turnsMax: number;
  /** What `scheduler.options` may hold; all have defaults. */
  readonly options: z.ZodType<Options>;
  readonly create: (options: Options) => Policy;
}

export const EMPTY_PLAN: Plan = { wake: [], sleep: [], resize: [], grant: [], reservations: [] };

/** True when the plan asks nothing of any lane and grants nothing. */
export function isIdle(plan: Plan): boolean {
  const more = (plan.segments?.length ?? 0) + (plan.admission?.length ?? 0) + (plan.rounds?.length ?? 0);
  return plan.wake.length + plan.sleep.length + plan.resize.length + plan.grant.length + more === 0;
}

/** The snapshot once a checked plan has been ordered: engines wake or fall asleep, requests have become grants. */
export function commit(snapshot: Snapshot, plan: Plan): Snapshot {
  return {
    ...snapshot,
    jobs: commitRounds(commitEngines(snapshot, plan), plan),
    lanes: commitSegments(snapshot, plan),
    ...commitGrants(snapshot, plan),
    memory: plan.memory === undefined ? snapshot.memory : plan.memory,
  };
}

type Engines = Map<LaneId, EngineState>;

function commitEngines(snapshot: Snapshot, plan: Plan): ReadonlyMap<JobId, JobState> {
  const { admission: admissions = [] } = plan;
  if (plan.wake.length + plan.sleep.length + plan.resize.length + admissions.length === 0)
    return snapshot.jobs;
  const changed = new Map<JobId, Engines>();
  const enginesOf = (id: JobId): Engines => {
    const known = changed.get(id);
    if (known !== undefined) return known;
    const engines: Engines = new Map(jobOf(snapshot, id).engines.map((engine) => [engine.lane, engine]));
    changed.set(id, engines);
    return engines;
  };
  const change = (order: { job: JobId; lane: LaneId }, part: Partial<EngineState>): void => {
    const engines = enginesOf(order.job);
    const engine = engines.get(order.lane);
    assert(engine !== undefined, `no engine of ${order.job} on lane ${order.lane}`);
    engines.set(order.lane, { ...engine, ...part });
  };
  for (const order of plan.sleep) change(order, { status: 'fallingAsleep' });
  for (const order of plan.resize) change(order, { slots: order.slots });
  for (const order of admissions) change(order, { admission: order.admission });
  for (const { job, lane, slots, version } of plan.wake) {
    const bytes = jobOf(snapshot, job).engineBytes;
    const started = { running: 0, tokenLatencyMs: null, stepMs: null, bytes };
    enginesOf(job).set(lane, { lane, status: 'waking', slots, version, ...started });
  }
  const jobs = new Map(snapshot.jobs);
  for (const [id, engines] of changed) {
    const sorted = [...engines.values()].sort((a, b) => a.lane - b.lane);
    jobs.set(id, { ...jobOf(snapshot, id), engines: sorted });
  }
  return jobs;
}

function commitRounds(jobs: Snapshot['jobs'], { rounds = [] }: Plan): Snapshot['jobs'] {
  if (rounds.length === 0) return jobs;
  const changed = new Map(jobs);
  for (const order of rounds) {
    const job = jobs.get(order.job);
    assert(job !== undefined, `no job ${order.job}`);
    changed.set(order.job, { ...job, rounds: order.rounds });
  }
  return changed;
}

function commitSegments(snapshot: Snapshot, { segments = [] }: Plan): Snapshot['lanes'] {
  if (segments.length === 0) return snapshot.lanes;
  const ordered = new Map(segments.map(({ lane, segment }) => [lane, segment]));
  return snapshot.lanes.map((lane) => {
    const segment = ordered.get(lane.id);
    return segment === undefined ? lane : { ...lane, segment };
  });
}

function commitGrants(snapshot: Snapshot, plan: Plan): Pick<Snapshot, 'requests' | 'grants'> {
  if (plan.grant.length === 0) return { requests: snapshot.requests, grants: snapshot.grants };
  const granted = new Set(plan.grant.map((order) => order.request));
  const newest = new Map<LaneId, number>();
  const grants: StageGrant[] = [...snapshot.grants];
  const waiting: StageRequest[] = [];
  for (const request of snapshot.requests) {
    if (!granted.has(request.id)) {
      waiting.push(request);
      continue;
    }
    const { id, job, stage, lanes, bytes, askedMs } = request;
    grants.push({ request: id, job, stage, lanes, bytes, askedMs, sinceMs: snapshot.timeMs });
    for (const lane of lanes) newest.set(lane, id);
  }
  assert(waiting.length + granted.size === snapshot.requests.length, 'a grant names no waiting request');
  const requests = waiting.map((request) => {
    const isOvertaken = request.lanes.some((lane) => (newest.get(lane) ?? 0) > request.id);
    return isOvertaken ? { ...request, overtaken: request.overtaken + 1 } : request;
  });
  return { requests, grants };
}

function jobOf(snapshot: Snapshot, id: JobId): JobState {
  const job = snapshot.jobs.get(id);
  assert(job !== undefined, `no job ${id}`);
  return job;
}
