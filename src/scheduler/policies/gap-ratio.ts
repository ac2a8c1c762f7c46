import { Draft } from '../draft.js';
import type { Plan, Policy, PolicyDefinition } from '../plan.js';
import { engineOn, mayLiveOn, type JobId, type JobState, type LaneId, type Snapshot } from '../state.js';
import { Allotment, contenders, reach } from './allotment.js';
import { divide, type Claimant } from './gap-planner.js';
import { NO_OPTIONS } from './options.js';
import { seat, type Guest } from './seating.js';
import { byTier, placeStages } from './stage-placement.js';

/**
 * RLix's generation: each job's share of the lanes follows its share of the rollouts that remain, as `divide` says.
 * Where every job can have a lane, lanes are divided; where there are too few, the slots of each lane. A job of which
 * no engine is awake yet counts one step's rollouts on top, so that a newcomer is not kept waiting.
 *
 * A job without rollouts has no target and no floor: it gives all back (P4). Stages by tier, as in `priority`.
 */
export const gapRatio: PolicyDefinition<object> = {
  name: 'gapRatio',
  after: 'RLix (gap-ratio planner)',
  summary: "each job's share of lanes or slots follows its share of the rollouts that remain",
  isWorkConserving: true,
  turnsMax: 1,
  options: NO_OPTIONS,
  create: () => gapRatioPolicy(rolloutsLeft),
};

/** Rollouts that remain, and those of a step while no engine is awake yet. */
export function rolloutsLeft({ demand, stepRollouts, engines }: JobState): number {
  const isAwake = engines.some((engine) => engine.status === 'awake');
  return demand.rollouts + (isAwake ? 0 : stepRollouts);
}

/** @param workOf what a job with rollouts outstanding has left, in any unit; above 0. */
export function gapRatioPolicy(workOf: (job: JobState) => number): Policy {
  return (snapshot: Snapshot): Plan => {
    const draft = new Draft(snapshot);
    placeStages(draft, byTier(snapshot.requests));
    const allotment = new Allotment(draft);
    shareByWork(allotment, contenders(draft), workOf);
    reach(allotment);
    return draft.plan();
  };
}

/** Lanes that are not to be shared out, whatever room they have. */
export interface ClosedLanes {
  /** To every job. */
  readonly all?: (lane: LaneId) => boolean;
  /** To one job, by its id. */
  readonly own?: ReadonlyMap<JobId, ReadonlySet<LaneId>>;
}

/** Allots lanes, or their slots, to jobs in proportion to the work they have left, as `divide` says. */
export function shareByWork(
  allotment: Allotment,
  wanting: readonly JobState[],
  workOf: (job: JobState) => number,
  { all: isClosed = () => false, own = new Map() }: ClosedLanes = {},
): void {
  const { draft } = allotment;
  const { lanes } = draft.snapshot;
  const bytes = new Float64Array(lanes.length);
  for (const { id } of lanes) bytes[id] = isClosed(id) ? -1 : allotment.bytesLeft(id);
  const bytesLeast = bytes.reduce((least, room) => Math.min(least, room), Infinity);
  const room = { bytes, bytesLeast, anywhere: new Map<number, readonly LaneId[]>() };
  const jobs = wanting
    .map((job) => contenderOf(job, room, own.get(job.id)))
    .filter((contender) => contender.lanes.length > 0);
  if (jobs.length === 0) return;
  const grain = grainFor(jobs, lanes.length);
  const claimants = jobs.map((contender) =>
    claimantOf(draft, contender, grain, bytes, workOf(contender.job)),
  );
  const shares = divide({ partsPerLane: grain.partsPerLane, bytes, claimants });
  shares.forEach((parts, index) => {
    const job = jobs[index]?.job;
    if (job === undefined) return;
    for (const [lane, count] of parts) allotment.give(job, lane, grain.slots(job, count));
  });
}

interface Contender extends Guest {
  readonly job: JobState;
  readonly closed: ReadonlySet<LaneId> | undefined;
}

/** Bytes for engines, by lane and on the lane that has least. */
interface LaneRoom {
  readonly bytes: Float64Array;
  readonly bytesLeast: number;
  /** By an engine's bytes: the lanes that have them, for jobs that may use every lane. */
  readonly anywhere: Map<number, readonly LaneId[]>;
}

/** Lanes on which the job could generate; it likes best those that have its engine, then its trainer's. */
function contenderOf(job: JobState, room: LaneRoom, closed?: ReadonlySet<LaneId>): Contender {
  const fits = (lane: LaneId): boolean => job.engineBytes <= (room.bytes[lane] ?? -1);
  const isOpen = (lane: LaneId): boolean => closed?.has(lane) !== true;
  // To look at every lane for each of many jobs would take longer than all the rest.
  const fitting = job.engineBytes <= room.bytesLeast ? job.engineLanes : lanesThatFit(job, room);
  const lanes = closed === undefined ? fitting : without(fitting, closed);
  const liked = job.engines.map((engine) => engine.lane).filter((lane) => fits(lane) && isOpen(lane));
  const home = job.trainerLane;
  if (home !== null && mayLiveOn(job, home) && fits(home) && isOpen(home)) liked.push(home);
  return { job, lanes, liked, closed };
}

/** Jobs that may use every lane share one list: making it for each of many would cost more than all the rest. */
function lanesThatFit({ engineLanes, engineBytes }: JobState, room: LaneRoom): readonly LaneId[] {
  const isAnywhere = engineLanes.length === room.bytes.length;
  const known = isAnywhere ? room.anywhere.get(engineBytes) : undefined;
  if (known !== undefined) return known;
  const fitting: LaneId[] = [];
  for (const lane of engineLanes) if (engineBytes <= (room.bytes[lane] ?? -1)) fitting.push(lane);
  if (isAnywhere) room.anywhere.set(engineBytes, fitting);
  return fitting;
}

/** For few lanes closed among many: a block copy and a look for each is far cheaper than a filter. */
function without(lanes: readonly LaneId[], closed: ReadonlySet<LaneId>): LaneId[] {
  const open = [...lanes];
  for (const lane of closed) {
    const index = open.indexOf(lane);
    if (index >= 0) open.splice(index, 1);
  }
  return open;
}

/** What one part of a lane is. */
interface Grain {
  readonly partsPerLane: number;
  /** Most parts that a job may have of one lane. */
  readonly partsMax: number;
  /** The slots of a job that so many parts of one lane are, and back. */
  slots(job: JobState, parts: number): number;
  parts(job: JobState, slots: number): number;
}

function grainFor(jobs: readonly Contender[], laneCount: number): Grain {
  const isAny = (_: JobState, count: number): number => Math.min(count, 1);
  if (seat(jobs, laneCount, 1) !== null) {
    return { partsPerLane: 1, partsMax: 1, slots: (job, parts) => parts * job.slotsMax, parts: isAny };
  }
  // The job with the fewest slots has one a part, so that others' slots are never less than their parts.
  const partsPerLane = jobs.reduce((least, { job }) => Math.min(least, job.slotsMax), Infinity);
  if (seat(jobs, laneCount, partsPerLane) !== null) {
    return {
      partsPerLane,
      partsMax: partsPerLane,
      slots: (job, parts) => Math.round((parts * job.slotsMax) / partsPerLane),
      parts: (job, slots) => Math.round((slots * partsPerLane) / job.slotsMax),
    };
  }
  // More jobs than slots: one slot for each.
  return { partsPerLane: jobs.length, partsMax: 1, slots: isAny, parts: isAny };
}

function claimantOf(
  draft: Draft,
  { job, lanes, liked, closed }: Contender,
  grain: Grain,
  bytes: Float64Array,
  work: number,
): Claimant {
  const parts = new Map<LaneId, number>();
  for (const engine of job.engines) {
    if (draft.isLeaving(engine) || job.engineBytes > (bytes[engine.lane] ?? -1)) continue;
    if (closed?.has(engine.lane) === true) continue;
    const count = grain.parts(job, engine.slots);
    if (count > 0) parts.set(engine.lane, count);
  }
  const slotsPerPart = Math.max(grain.slots(job, grain.partsMax) / grain.partsMax, 1);
  return {
    id: job.id,
    work,
    lanes,
    liked,
    parts,
    partsMax: Math.ceil(job.demand.rollouts / slotsPerPart),
    partsPerLaneMax: grain.partsMax,
    runnable: job.demand.runnable,
    bytes: job.engineBytes,
    slots: (count) => grain.slots(job, count),
    running: (lane) => engineOn(job, lane)?.running ?? 0,
  };
}
