import { z } from 'zod';
import { at } from '../../lib/assert.js';
import { Draft, type Resident } from '../draft.js';
import type { PolicyDefinition } from '../plan.js';
import { engineOn, isUsable, mayLiveOn, type JobState, type LaneId, type StageRequest } from '../state.js';
import {
  dividedByWeight,
  guardSchema,
  openGuard,
  pressureOf,
  slotsAllowed,
  stepGuard,
  type Guard,
  type GuardOptions,
} from './slo-guard-level.js';
import { isSpare, neediestFirst, retire, setSlots, sleepingLanes, wakeWhenRoom } from './engine-orders.js';
import { byTier, OVERTAKEN_MAX, placeStages } from './stage-placement.js';

const ABOVE_0 = 'must be above 0';

const optionsSchema = z.strictObject({
  /** Between two steps of the background's level on a lane, in ms. */
  interval_ms: z.number().gt(0, ABOVE_0).default(500),
  /** Slots the background gains per step while the foreground has slack. */
  increase: z.number().gt(0, ABOVE_0).default(1),
  /** What is left of the level per step while the foreground is over its limit. */
  decrease: z.number().gt(0, ABOVE_0).lt(1, 'must be below 1').default(0.5),
  /** There is slack while the foreground's latency is at most this share of its limit. */
  headroom: z.number().gt(0, ABOVE_0).max(1, 'must be at most 1').default(0.8),
  /** The background's slots on a lane when a foreground engine comes there. */
  slots_start: z.number().min(0, 'must be at least 0').default(1),
});

type Options = z.infer<typeof optionsSchema>;

/**
 * SLO-safe co-serving after ROSE (arXiv 2605.06534): rollouts harvest what a foreground leaves, and the foreground's
 * latency holds. Foreground is every job with a `tokenLatencyMs`; its engines are woken first and always have all
 * their slots. On a lane with such an engine the background's slots follow an additive-increase,
 * multiplicative-decrease law on the latencies the engines report: none while one is over its limit, a level that is
 * cut by `decrease` per step meanwhile, grown by `increase` per step while there is slack, and kept in between.
 *
 * From ROSE's abstract: who gives way to whom, and on which signal. Reconstructed: the control law (Chiu and Jain's
 * AIMD; ROSE's executor, its memory sharing and its router are not described there), several background jobs on a
 * lane sharing the level by weight, in turns where it is too small for all. It guards against rollouts only: stages
 * go before every engine, the foreground's own first, so trainers belong on lanes of their own.
 */
export const sloGuard: PolicyDefinition<Options> = {
  name: 'sloGuard',
  after: 'ROSE',
  summary: 'jobs with a token latency limit keep it; rollouts of the others use what that leaves',
  isWorkConserving: false,
  turnsMax: Infinity,
  options: optionsSchema,
  create: (options) => (snapshot) => {
    const draft = new Draft(snapshot);
    retire(draft);
    const jobs = [...snapshot.jobs.values()].filter((job) => !job.finished);
    placeStages(draft, inOrder(draft));
    for (const job of foreground(jobs)) serve(draft, job);
    const guards = stepGuards(draft, jobs, options);
    const background = jobs.filter((job) => !isForeground(job));
    for (const job of neediestFirst(draft, background)) useFreeLanes(draft, job, guards);
    let isWatched = false;
    const order = new Map(background.map((job, index) => [job, index]));
    const parts = { jobs: background, order, byLane: residentsByLane(draft, background) };
    for (const [lane, guard] of guards) if (shareLane(draft, lane, guard, parts)) isWatched = true;
    const memory = {
      lanes: Object.fromEntries([...guards].map(([lane, { state }]) => [String(lane), state])),
    };
    const steps = [...guards.values()].map(({ state }) => state.steppedMs + options.interval_ms);
    const reviewAtMs = Math.max(Math.min(...steps), snapshot.timeMs + 1);
    return { ...draft.plan(), memory, ...(isWatched ? { reviewAtMs } : {}) };
  },
};

const memorySchema = z.object({ lanes: z.record(z.string(), guardSchema) });

function isForeground(job: JobState): boolean {
  return job.tokenLatencyMs !== null;
}

/** Those with sequences to run first: an idle one that made room for them must not take it. */
function foreground(jobs: readonly JobState[]): JobState[] {
  const rank = (job: JobState): number => (job.demand.runnable > 0 ? 0 : 1);
  return jobs.filter(isForeground).sort((a, b) => rank(a) - rank(b));
}

/** The foreground's stages first; of the others, those overtaken too often are with them. */
function inOrder(draft: Draft): StageRequest[] {
  const { jobs, requests } = draft.snapshot;
  const rank = (request: StageRequest): number => {
    const job = jobs.get(request.job);
    const isFirst = request.overtaken >= OVERTAKEN_MAX || (job !== undefined && isForeground(job));
    return isFirst ? 0 : 1;
  };
  return byTier(requests).sort((a, b) => rank(a) - rank(b));
}

/** All slots for engines awake, one engine awake even without work, more while sequences have no slot. */
function serve(draft: Draft, job: JobState): void {
  for (const engine of job.engines) setSlots(draft, { job, engine }, job.slotsMax, 'foreground');
  let missing = Math.max(job.demand.runnable, 1) - draft.slots(job);
  if (missing <= 0) return;
  const lanes = sleepingLanes(draft, job).sort((a, b) => draft.load(a) - draft.load(b) || a - b);
  for (const lane of lanes) {
    const waking = { job, lane, slots: job.slotsMax, reason: 'foreground' };
    // One idle foreground makes room for another that has sequences to run, never the other way round.
    const isComing = wakeWhenRoom(
      draft,
      waking,
      ({ job: other }) => !isForeground(other) || (job.demand.runnable > 0 && other.demand.rollouts === 0),
    );
    if (isComing) missing -= job.slotsMax;
    if (missing <= 0) return;
  }
}

interface GuardedLane {
  readonly state: Guard;
  /** Slots the background may have here now. */
  readonly slots: number;
}

/** The lanes on which a foreground engine is or will be awake, each with its level as of now. */
function stepGuards(
  draft: Draft,
  jobs: readonly JobState[],
  options: GuardOptions,
): Map<LaneId, GuardedLane> {
  const { snapshot } = draft;
  const memory = memorySchema.safeParse(snapshot.memory).data?.lanes ?? {};
  const slotsMax = new Float64Array(snapshot.lanes.length);
  for (const job of jobs) {
    if (isForeground(job)) continue;
    for (const lane of job.engineLanes) slotsMax[lane] = at(slotsMax, lane) + job.slotsMax;
  }
  const pressures = new Map<LaneId, number>();
  for (const job of jobs) {
    if (job.tokenLatencyMs === null) continue;
    for (const engine of job.engines) {
      if (draft.isLeaving(engine)) continue;
      const pressure = pressureOf(engine, job.tokenLatencyMs);
      pressures.set(engine.lane, Math.max(pressures.get(engine.lane) ?? 0, pressure));
    }
  }
  for (const { job: id, lane } of draft.plan().wake) {
    const job = snapshot.jobs.get(id);
    if (job !== undefined && isForeground(job) && !pressures.has(lane)) pressures.set(lane, 0);
  }
  const guards = new Map<LaneId, GuardedLane>();
  for (const [lane, pressure] of [...pressures].sort(([a], [b]) => a - b)) {
    const known = memory[String(lane)];
    const state =
      known === undefined
        ? openGuard(options, snapshot.timeMs)
        : stepGuard(known, { pressure, slotsMax: at(slotsMax, lane), nowMs: snapshot.timeMs }, options);
    guards.set(lane, { state, slots: slotsAllowed(state, pressure) });
  }
  return guards;
}

/** Where there is no foreground the background has all its slots, and wakes while sequences have none. */
function useFreeLanes(draft: Draft, job: JobState, guards: ReadonlyMap<LaneId, GuardedLane>): void {
  for (const engine of job.engines) {
    if (!guards.has(engine.lane))
      setSlots(draft, { job, engine }, job.slotsMax, 'no foreground on this lane');
  }
  let missing = job.demand.runnable - draft.slots(job);
  if (missing <= 0) return;
  for (const lane of sleepingLanes(draft, job)) {
    if (guards.has(lane)) continue;
    const waking = { job, lane, slots: job.slotsMax, reason: `${missing} sequences have no slot` };
    const isComing = wakeWhenRoom(
      draft,
      waking,
      (resident) => !isForeground(resident.job) && isSpare(draft, resident, job),
    );
    if (isComing) missing -= job.slotsMax;
    if (missing <= 0) return;
  }
}

/** Engines of these jobs that stay, by lane; in the order of the jobs. */
function residentsByLane(draft: Draft, jobs: readonly JobState[]): Map<LaneId, Resident[]> {
  const byLane = new Map<LaneId, Resident[]>();
  for (const job of jobs) {
    for (const engine of job.engines) {
      if (draft.isLeaving(engine)) continue;
      const residents = byLane.get(engine.lane);
      if (residents === undefined) byLane.set(engine.lane, [{ job, engine }]);
      else residents.push({ job, engine });
    }
  }
  return byLane;
}

/** Divides a guarded lane's slots among the background there. Returns whether there is any that wants some. */
function shareLane(draft: Draft, lane: LaneId, guard: GuardedLane, background: Background): boolean {
  const residents = background.byLane.get(lane) ?? [];
  const open = background.jobs.filter((job) => couldWake(draft, job, lane));
  const wanting = residents.map(({ job }) => job).filter((job) => job.demand.rollouts > 0);
  // In order of arrival: an engine that wakes by this plan stands in the same place in the next.
  const order = (job: JobState): number => background.order.get(job) ?? 0;
  const all = open.length === 0 ? wanting : [...wanting, ...open].sort((a, b) => order(a) - order(b));
  const shares = dividedByWeight(all, guard.slots, guard.state.steps);
  for (const resident of residents) {
    setSlots(draft, resident, shares.get(resident.job) ?? 0, 'what the foreground leaves here');
  }
  for (const job of open) {
    const share = shares.get(job) ?? 0;
    if (share === 0 || job.engineBytes > draft.bytesFree(lane)) continue;
    draft.wake(job, lane, 'what the foreground leaves here', share);
  }
  return all.length > 0;
}

interface Background {
  readonly jobs: readonly JobState[];
  readonly order: ReadonlyMap<JobState, number>;
  readonly byLane: ReadonlyMap<LaneId, readonly Resident[]>;
}

/** On guarded lanes the background displaces nobody. */
function couldWake(draft: Draft, job: JobState, lane: LaneId): boolean {
  return (
    job.demand.runnable > draft.slots(job) &&
    job.engineBytes <= draft.bytesFree(lane) &&
    isUsable(at(draft.snapshot.lanes, lane)) &&
    mayLiveOn(job, lane) &&
    engineOn(job, lane) === undefined
  );
}
