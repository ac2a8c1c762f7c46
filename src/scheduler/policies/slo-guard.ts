import { z } from 'zod';
import { Draft } from '../draft.js';
import type { PolicyDefinition } from '../plan.js';
import { engineOn, mayLiveOn, type JobState, type LaneId, type StageRequest } from '../state.js';
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
    for (const [lane, guard] of guards) shareLane(allotment, lane, guard, background);
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
  for (const job of jobs) serve(allotment, job, hosts);
  return hosts;
}

function serve(allotment: Allotment, job: JobState, hosts: Hosts): void {
  const { draft } = allotment;
  let missing = Math.max(job.demand.rollouts, 1);
  const isOpen = (lane: LaneId): boolean => allotment.slots(job, lane) === 0 && allotment.fits(job, lane);
  const take = (lane: LaneId): void => {
    if (missing <= 0 || !isOpen(lane)) return;
    allotment.give(job, lane, job.slotsMax);
    missing -= job.slotsMax;
    const here = hosts.get(lane);
    if (here === undefined) hosts.set(lane, [job]);
    else here.push(job);
  };
  const staying = job.engines.filter((engine) => !draft.isLeaving(engine));
  for (const { lane } of staying.sort((a, b) => b.running - a.running)) take(lane);
  if (job.trainerLane !== null && job.engineLanes.includes(job.trainerLane)) take(job.trainerLane);
  // Away from other foregrounds, then from everybody.
  const isBetter = (lane: LaneId, best: LaneId): boolean => {
    const more = (hosts.get(lane)?.length ?? 0) - (hosts.get(best)?.length ?? 0);
    return more < 0 || (more === 0 && draft.load(lane) < draft.load(best));
  };
  while (missing > 0) {
    let best: LaneId | null = null;
    for (const lane of job.engineLanes) {
      if (isOpen(lane) && (best === null || isBetter(lane, best))) best = lane;
    }
    if (best === null) return;
    take(best);
  }
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

/** Divides a guarded lane's slots among the background that runs something here or has no slot elsewhere. */
function shareLane(
  allotment: Allotment,
  lane: LaneId,
  guard: GuardedLane,
  background: readonly JobState[],
): void {
  const { draft } = allotment;
  const residents: JobState[] = [];
  const others: JobState[] = [];
  for (const job of background) {
    if (!mayLiveOn(job, lane)) continue;
    const engine = engineOn(job, lane);
    const isHere = engine !== undefined && !draft.isLeaving(engine);
    if (allotment.total(job) >= job.demand.runnable && !(isHere && engine.running > 0)) continue;
    (isHere ? residents : others).push(job);
  }
  // Who is here stays: taking turns in memory would cost more than it gives.
  let bytes = allotment.bytesLeft(lane);
  const fitting = new Set<JobState>();
  for (const job of [...residents, ...others]) {
    if (job.engineBytes > bytes) continue;
    bytes -= job.engineBytes;
    fitting.add(job);
  }
  // In order of arrival: an engine that wakes by this plan stands in the same place in the next.
  const inOrder = background.filter((job) => fitting.has(job));
  for (const [job, slots] of dividedByWeight(inOrder, guard.slots, guard.state.steps)) {
    if (slots > 0) allotment.give(job, lane, slots);
  }
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
