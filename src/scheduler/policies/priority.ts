import { at } from '../../lib/assert.js';
import { Draft, type Resident } from '../draft.js';
import type { Plan } from '../plan.js';
import { tierOf } from '../stages.js';
import {
  engineOn,
  isUsable,
  mayLiveOn,
  type EngineState,
  type JobState,
  type LaneId,
  type Snapshot,
  type StageRequest,
} from '../state.js';

/**
 * A request that this many plans have overtaken goes before every tier. It bounds the wait of a low tier under an
 * endless stream of higher ones, and is far above what one step of any job asks for.
 */
export const OVERTAKEN_MAX = 16;

/**
 * RLix's tiers, without its four defects (P1 to P4 in the tests).
 *
 * Stages: by tier, then by arrival; all lanes or none. A request that must wait keeps its lanes, so nothing below
 * overtakes it; one whose lanes are lost, reserved or too small keeps nothing and moves nobody.
 *
 * Generation: shares its lane with the trainer, whose slices simply go first, so a grant puts an engine to sleep
 * only where memory is too small for both. Each job's engine stays awake on its trainer's lane; others wake while
 * more sequences could run than there are slots, and sleep once idle and not missed.
 */
export function priority(snapshot: Snapshot): Plan {
  const draft = new Draft(snapshot);
  const jobs = [...snapshot.jobs.values()];
  for (const job of jobs) openSlots(draft, job);
  // Who leaves anyway leaves first: the room that makes may be all that is needed.
  for (const job of jobs) sleepUnneeded(draft, job);
  for (const request of inOrder(snapshot.requests)) placeStage(draft, request);
  for (const job of jobs) wakeAtHome(draft, job);
  wakeElsewhere(draft, jobs);
  return draft.plan();
}

function inOrder(requests: readonly StageRequest[]): StageRequest[] {
  const rank = (request: StageRequest): number =>
    request.overtaken >= OVERTAKEN_MAX ? -1 : tierOf(request.stage);
  return [...requests].sort((a, b) => rank(a) - rank(b) || a.id - b.id);
}

function placeStage(draft: Draft, request: StageRequest): void {
  const outOfUse = draft.outOfUse(request);
  if (outOfUse !== null) return draft.reserve(request, [], outOfUse);
  const inTheWay = draft.inTheWay(request);
  if (inTheWay !== null) return draft.reserve(request, request.lanes, inTheWay);

  const rooms = request.lanes.map((lane) => draft.room(lane, request.bytes));
  if (rooms.every((room) => room === 'free')) return draft.grant(request, 'all its lanes are free');
  const full = request.lanes[rooms.indexOf('never')];
  if (full !== undefined) {
    return draft.reserve(request, [], `lane ${full} can never free ${request.bytes} bytes`);
  }

  // Nobody is moved until it is certain that moving them is enough, on every lane.
  const isCertain = !rooms.includes('later');
  for (const room of isCertain ? rooms : []) {
    if (typeof room === 'string') continue;
    for (const resident of room) draft.sleep(resident, `makes room for ${request.job}'s ${request.stage}`);
  }
  for (const lane of request.lanes) draft.setAside(lane, request.bytes);
  const reason = isCertain
    ? 'engines are on their way to sleep to make room'
    : 'an engine has to wake up before it can make room';
  draft.reserve(request, request.lanes, reason);
}

/** Another policy may have left an engine with fewer slots than it has. */
function openSlots(draft: Draft, job: JobState): void {
  for (const engine of job.engines) {
    if (engine.status !== 'awake' || engine.slots === job.slotsMax) continue;
    draft.resize({ job, engine }, job.slotsMax, 'an engine awake has all its slots');
  }
}

function sleepUnneeded(draft: Draft, job: JobState): void {
  let isSpare = hasSpareEngine(draft, job);
  // Backwards, so that of several idle engines the one on the last lane goes first.
  for (let index = job.engines.length - 1; index >= 0; index--) {
    const engine = at(job.engines, index);
    const reason = whySleep(draft, job, engine, isSpare);
    if (reason === null || draft.isLeaving(engine)) continue;
    draft.sleep({ job, engine }, reason);
    isSpare = hasSpareEngine(draft, job);
  }
}

/**
 * True if one engine fewer still has a slot for everything. All outstanding rollouts count here, not only the
 * runnable ones that wake an engine: those that wait for their environment come back, and an engine should not nap
 * between two turns.
 */
function hasSpareEngine(draft: Draft, job: JobState): boolean {
  return job.demand.rollouts <= draft.slots(job) - job.slotsMax;
}

/** Null keeps the engine as it is. */
function whySleep(draft: Draft, job: JobState, engine: EngineState, isSpare: boolean): string | null {
  if (engine.status !== 'awake') return null;
  if (job.finished) return 'its job has finished';
  if (at(draft.snapshot.lanes, engine.lane).reserved) return 'its lane is reserved';
  const isIdle = engine.running === 0 && engine.lane !== job.trainerLane;
  return isSpare && isIdle ? 'idle, and the demand fits elsewhere' : null;
}

/** Visitors make room for an engine at home; those that run something, only for sequences that have no slot. */
function wakeAtHome(draft: Draft, job: JobState): void {
  const home = job.trainerLane;
  if (home === null || !canWake(draft, job, home)) return;
  const isMissed = job.demand.runnable > draft.slots(job);
  const mayLeave = ({ job: other, engine }: Resident): boolean =>
    other.trainerLane !== home && (isMissed || engine.running === 0);
  const room = draft.room(home, job.engineBytes, mayLeave);
  if (room === 'never') return;
  if (room === 'free') {
    draft.wake(job, home, "its trainer's lane");
    return sleepUnneeded(draft, job);
  }
  if (room !== 'later') {
    for (const visitor of room) draft.sleep(visitor, `makes room for ${job.id}, whose trainer is here`);
  }
  draft.setAside(home, job.engineBytes);
}

function canWake(draft: Draft, job: JobState, lane: LaneId): boolean {
  return (
    !job.finished &&
    isUsable(at(draft.snapshot.lanes, lane)) &&
    mayLiveOn(job, lane) &&
    engineOn(job, lane) === undefined
  );
}

/** Lanes take turns, emptiest first; at each the next job that can use it gets it, and goes to the back. */
function wakeElsewhere(draft: Draft, jobs: readonly JobState[]): void {
  const needy = jobs.flatMap((job) => needs(draft, job) ?? []);
  const byLoad: LaneId[][] = [];
  for (const lane of draft.snapshot.lanes) {
    if (isUsable(lane)) (byLoad[draft.load(lane.id)] ??= []).push(lane.id);
  }
  for (let load = 0; load < byLoad.length && needy.length > 0; load++) {
    for (const lane of byLoad[load] ?? []) {
      const turn = needy.findIndex(
        ({ job, isOpen }) => isOpen[lane] === 1 && job.engineBytes <= draft.bytesFree(lane),
      );
      if (turn < 0) continue;
      const [next] = needy.splice(turn, 1);
      if (next === undefined) continue;
      draft.wake(next.job, lane, `${next.missing} sequences have no slot`);
      (byLoad[load + 1] ??= []).push(lane);
      next.isOpen[lane] = 0;
      next.missing -= next.job.slotsMax;
      if (next.missing > 0) needy.push(next);
    }
  }
}

interface NeedyJob {
  readonly job: JobState;
  /** By lane: 1 where its engine sleeps and could wake. */
  readonly isOpen: Uint8Array;
  /** Sequences that could run and have no slot. */
  missing: number;
}

function needs(draft: Draft, job: JobState): NeedyJob | null {
  const missing = job.demand.runnable - draft.slots(job);
  if (missing <= 0) return null;
  const isOpen = new Uint8Array(draft.snapshot.lanes.length);
  for (const lane of job.engineLanes) isOpen[lane] = 1;
  for (const engine of job.engines) isOpen[engine.lane] = 0;
  // Home has had its turn, with better claims.
  if (job.trainerLane !== null) isOpen[job.trainerLane] = 0;
  return { job, isOpen, missing };
}
