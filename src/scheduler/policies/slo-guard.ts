import { z } from 'zod';
import { at } from '../../lib/assert.js';
import { Draft } from '../draft.js';
import type { PolicyDefinition } from '../plan.js';
import {
  engineOn,
  mayLiveOn,
  type EngineState,
  type JobState,
  type LaneId,
  type StageRequest,
} from '../state.js';
import { Allotment, contenders, reach } from './allotment.js';
import { setSlots } from './engine-orders.js';
import { shareByWork } from './gap-ratio.js';
import { remembered } from './options.js';
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
import { byTier, OVERTAKEN_MAX, placeStages } from './stage-placement.js';
import { tokensLeft } from './token-weighted.js';

const ABOVE_0 = 'must be above 0';

const optionsSchema = z.strictObject({
  /** Between two increases of the background's level on a lane, in ms. */
  interval_ms: z.number().gt(0, ABOVE_0).default(500),
  /** Slots the background gains per step while the foreground has slack. */
  increase: z.number().gt(0, ABOVE_0).default(1),
  /** What is left of the level when the foreground gets over its limit. */
  decrease: z.number().gt(0, ABOVE_0).lt(1, 'must be below 1').default(0.5),
  /** There is slack while the foreground's latency is at most this share of its limit. */
  headroom: z.number().gt(0, ABOVE_0).max(1, 'must be at most 1').default(0.8),
  /** The background's slots on a lane when a foreground engine comes there. */
  slots_start: z.number().min(0, 'must be at least 0').default(1),
  /** A level that was too much is tried again after so long, in ms; after each failure it takes twice as long. */
  probe_ms: z.number().gt(0, ABOVE_0).default(10_000),
});

type Options = z.infer<typeof optionsSchema>;

/**
 * SLO-safe co-serving after ROSE (arXiv 2605.06534): rollouts harvest what a foreground leaves, and the foreground's
 * latency holds. Foreground is every job with a `tokenLatencyMs`; its engines come first and always have all their
 * slots. On a lane with such an engine the background's slots follow an additive-increase, multiplicative-decrease law
 * on the latencies the engines report: none while one is over its limit, then fewer than before, more step by step
 * while there is slack. A lane whose foreground wants nothing is the background's until it does.
 *
 * From ROSE's abstract: who gives way to whom, and on which signal. Reconstructed: the control law (Chiu and Jain's
 * AIMD with a memory of what failed; ROSE's executor, its memory sharing and its router are not described there),
 * several background jobs on a lane sharing the level by weight, in turns where it is too small for all. It guards
 * against rollouts only: stages go before every engine, the foreground's own first, so trainers belong on lanes of
 * their own.
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
    placeStages(draft, inOrder(draft));
    const allotment = new Allotment(draft);
    const front = foreground([...snapshot.jobs.values()]);
    const hosts = serveAll(allotment, front);
    const guards = stepGuards(draft, hosts, options);
    const background = contenders(draft).filter((job) => !isForeground(job));
    shareByWork(allotment, background, tokensLeft, { all: (lane) => guards.has(lane) });
    shareGuarded(allotment, guards, background);
    reach(allotment);
    holdIdle(draft, guards);
    const memory = {
      lanes: Object.fromEntries([...guards].map(([lane, { state }]) => [String(lane), state])),
    };
    const isWatched = [...guards.keys()].some((lane) => background.some((job) => mayLiveOn(job, lane)));
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
  return jobs.filter((job) => isForeground(job) && !job.finished).sort((a, b) => rank(a) - rank(b));
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

/** Foreground jobs by the lane they are allotted. */
type Hosts = Map<LaneId, JobState[]>;

/** Slots for every rollout, and one engine even without: somebody waits for its first token. */
function serveAll(allotment: Allotment, jobs: readonly JobState[]): Hosts {
  const hosts: Hosts = new Map();
  const bytesLeast = jobs.reduce((least, job) => Math.min(least, job.engineBytes), Infinity);
  let open = allotment.draft.snapshot.lanes.map(({ id }) => id);
  for (const job of jobs) {
    // What is full now is full for all that follow.
    open = open.filter((lane) => allotment.bytesLeft(lane) >= bytesLeast);
    serve(allotment, job, open, hosts);
  }
  return hosts;
}

/** @param open all lanes that have room for it, and maybe others; ascending */
function serve(allotment: Allotment, job: JobState, open: readonly LaneId[], hosts: Hosts): void {
  const { draft } = allotment;
  let missing = Math.max(job.demand.rollouts, 1);
  const take = (lane: LaneId): void => {
    if (missing <= 0 || allotment.slots(job, lane) > 0 || !allotment.fits(job, lane)) return;
    allotment.give(job, lane, job.slotsMax);
    missing -= job.slotsMax;
    const here = hosts.get(lane);
    if (here === undefined) hosts.set(lane, [job]);
    else here.push(job);
  };
  const staying = job.engines.filter((engine) => !draft.isLeaving(engine));
  for (const { lane } of staying.sort((a, b) => b.running - a.running)) take(lane);
  if (job.trainerLane !== null && mayLiveOn(job, job.trainerLane)) take(job.trainerLane);
  if (missing <= 0) return;
  // Away from other foregrounds, then from everybody. Nothing that this job takes changes a lane it has not taken.
  const fitting = open.filter((lane) => allotment.fits(job, lane) && mayLiveOn(job, lane));
  for (const sameHosts of grouped(fitting, (lane) => hosts.get(lane)?.length ?? 0)) {
    for (const lanes of grouped(sameHosts, (lane) => draft.load(lane))) {
      if (missing <= 0) return;
      for (const lane of lanes) take(lane);
    }
  }
}

/** Lanes by a small whole number, least first; in their order within each group. */
function grouped(lanes: readonly LaneId[], numberOf: (lane: LaneId) => number): LaneId[][] {
  const groups: LaneId[][] = [];
  for (const lane of lanes) {
    const number = numberOf(lane);
    while (groups.length <= number) groups.push([]);
    at(groups, number).push(lane);
  }
  return groups;
}

interface GuardedLane {
  readonly state: Guard;
  /** Slots the background may have here now. */
  readonly slots: number;
}

/** The lanes with a foreground, each with its level as of now; ascending. */
function stepGuards(draft: Draft, hosts: Hosts, options: GuardOptions): Map<LaneId, GuardedLane> {
  const { snapshot } = draft;
  const memory = remembered(memorySchema, snapshot.memory)?.lanes ?? {};
  const slotsMax = new Float64Array(snapshot.lanes.length);
  for (const job of snapshot.jobs.values()) {
    if (isForeground(job) || job.finished) continue;
    for (const lane of job.engineLanes) slotsMax[lane] = (slotsMax[lane] ?? 0) + job.slotsMax;
  }
  const guards = new Map<LaneId, GuardedLane>();
  for (const [lane, jobs] of [...hosts].sort(([a], [b]) => a - b)) {
    const { isQuiet, pressure } = readingOf(jobs, lane);
    const known = memory[String(lane)] ?? openGuard(options, snapshot.timeMs);
    const reading = { pressure, slotsMax: slotsMax[lane] ?? 0, nowMs: snapshot.timeMs };
    const state = isQuiet ? { ...known, isOver: false } : stepGuard(known, reading, options);
    guards.set(lane, { state, slots: isQuiet ? Infinity : slotsAllowed(state) });
  }
  return guards;
}

/** Of the foreground on a lane: whether it has nothing to run at all, and how near its limit it is. */
function readingOf(jobs: readonly JobState[], lane: LaneId): { isQuiet: boolean; pressure: number } {
  let isQuiet = true;
  let pressure = 0;
  for (const job of jobs) {
    const engine = engineOn(job, lane);
    if (job.demand.runnable > 0 || (engine?.running ?? 0) > 0) isQuiet = false;
    if (engine === undefined || job.tokenLatencyMs === null) continue;
    pressure = Math.max(pressure, pressureOf(engine, job.tokenLatencyMs));
  }
  return { isQuiet, pressure };
}

/** A background job, and its place among them in order of arrival. */
interface Sharer {
  readonly job: JobState;
  readonly place: number;
}

interface Neighbour extends Sharer {
  readonly engine: EngineState;
}

/** Divides the guarded lanes' slots among the background that runs something there or has no slot elsewhere. */
function shareGuarded(
  allotment: Allotment,
  guards: ReadonlyMap<LaneId, GuardedLane>,
  background: readonly JobState[],
): void {
  const neighbours = neighboursOn(allotment.draft, guards, background);
  const isHungry = (job: JobState): boolean => allotment.total(job) < job.demand.runnable;
  let hungry = background.map((job, place): Sharer => ({ job, place })).filter(({ job }) => isHungry(job));
  const bytesLeast = background.reduce((least, job) => Math.min(least, job.engineBytes), Infinity);
  for (const [lane, guard] of guards) {
    if (allotment.bytesLeft(lane) < bytesLeast) continue;
    const sharers = sharersOf(allotment, lane, neighbours.get(lane) ?? [], hungry);
    let isFed = false;
    for (const [job, slots] of dividedByWeight(sharers, guard.slots, guard.state.steps)) {
      if (slots > 0) allotment.give(job, lane, slots);
      isFed ||= !isHungry(job);
    }
    // Slots are only ever given: who has enough need not be asked again.
    if (isFed) hungry = hungry.filter(({ job }) => isHungry(job));
  }
}

/** By guarded lane: the background's engines that stay there, in order of arrival. */
function neighboursOn(
  draft: Draft,
  guards: ReadonlyMap<LaneId, GuardedLane>,
  background: readonly JobState[],
): Map<LaneId, Neighbour[]> {
  const neighbours = new Map<LaneId, Neighbour[]>();
  background.forEach((job, place) => {
    for (const engine of job.engines) {
      if (!guards.has(engine.lane) || draft.isLeaving(engine)) continue;
      const here = neighbours.get(engine.lane);
      if (here === undefined) neighbours.set(engine.lane, [{ job, place, engine }]);
      else here.push({ job, place, engine });
    }
  });
  return neighbours;
}

/**
 * Who divides a lane's slots, in order of arrival: an engine that wakes by this plan stands in the same place in the
 * next. Who is here stays, as taking turns in memory would cost more than it gives.
 */
function sharersOf(
  allotment: Allotment,
  lane: LaneId,
  here: readonly Neighbour[],
  hungry: readonly Sharer[],
): JobState[] {
  let bytes = allotment.bytesLeft(lane);
  const residents: Sharer[] = [];
  for (const neighbour of here) {
    const { job, engine } = neighbour;
    const hasUse = engine.running > 0 || allotment.total(job) < job.demand.runnable;
    if (!hasUse || job.engineBytes > bytes) continue;
    bytes -= job.engineBytes;
    residents.push(neighbour);
  }
  const staying = new Set(here.map(({ job }) => job));
  const sharers: JobState[] = [];
  let next = 0;
  const seatBefore = (place: number): void => {
    for (; next < residents.length && at(residents, next).place < place; next++)
      sharers.push(at(residents, next).job);
  };
  for (const { job, place } of hungry) {
    if (job.engineBytes > bytes || staying.has(job) || !mayLiveOn(job, lane)) continue;
    bytes -= job.engineBytes;
    seatBefore(place);
    sharers.push(job);
  }
  seatBefore(Infinity);
  return sharers;
}

/** Background engines without work have no slots beside a foreground: what comes for them waits for the next plan. */
function holdIdle(draft: Draft, guards: ReadonlyMap<LaneId, GuardedLane>): void {
  for (const job of draft.snapshot.jobs.values()) {
    if (isForeground(job) || job.demand.rollouts > 0) continue;
    for (const engine of job.engines) {
      if (guards.has(engine.lane)) setSlots(draft, { job, engine }, 0, 'a foreground is on this lane');
    }
  }
}
