import { at } from '../../lib/assert.js';
import type { Draft, Resident } from '../draft.js';
import { tierOf } from '../stages.js';
import { engineOn, isUsable, type JobState, type LaneId, type StageRequest } from '../state.js';

/** A request that this many plans have overtaken goes before every tier: that bounds the wait of a low one. */
export const OVERTAKEN_MAX = 16;

/** Sorts requests: those overtaken too often, then by tier, then by arrival. */
export function byTier(a: StageRequest, b: StageRequest): number {
  return rankOf(a) - rankOf(b) || a.id - b.id;
}

function rankOf(request: StageRequest): number {
  return request.overtaken >= OVERTAKEN_MAX ? -1 : tierOf(request.stage);
}

/**
 * Grants each request all its lanes or none, in the order given. One that waits for a stage or for memory keeps its
 * lanes, so nothing behind it overtakes; one that cannot run as things are keeps nothing and moves nobody.
 */
export function placeStages(draft: Draft, requests: readonly StageRequest[]): void {
  for (const request of requests) {
    const impossible = draft.outOfUse(request);
    if (impossible !== null) {
      draft.reserve(request, [], impossible);
      continue;
    }
    const holder = draft.inTheWay(request);
    if (holder === null) grantWhenRoom(draft, request);
    else draft.reserve(request, request.lanes, holder);
  }
}

function grantWhenRoom(draft: Draft, request: StageRequest): void {
  const rooms = request.lanes.map((lane) => ({ lane, room: draft.room(lane, request.bytes) }));
  const full = rooms.find(({ room }) => room === 'never');
  if (full !== undefined) {
    return draft.reserve(request, [], `lane ${full.lane} can never free ${request.bytes} bytes`);
  }
  if (rooms.every(({ room }) => room === 'free')) return draft.grant(request, 'all its lanes are free');
  const sleepers = rooms.flatMap(({ room }) => (typeof room === 'string' ? [] : room));
  // Moving some is no use while another lane is not sure to have room.
  const isSure = rooms.every(({ room }) => room !== 'later');
  for (const sleeper of isSure ? sleepers : []) {
    draft.sleep(sleeper, `makes room for ${request.job}'s ${request.stage}`);
  }
  for (const { lane } of rooms) draft.setAside(lane, request.bytes);
  const reason = isSure ? 'engines fall asleep to make room' : 'an engine must wake before it can make room';
  draft.reserve(request, request.lanes, reason);
}

/** False for a request that no release would help: a lane is out of use, or its memory too small. */
export function canBeGranted(draft: Draft, request: StageRequest): boolean {
  if (draft.outOfUse(request) !== null) return false;
  return request.lanes.every((lane) => draft.room(lane, request.bytes) !== 'never');
}

/** Puts to sleep what no policy keeps: engines of finished jobs, and those on reserved lanes. */
export function retire(draft: Draft): void {
  for (const job of draft.snapshot.jobs.values()) {
    for (const engine of job.engines) {
      if (engine.status !== 'awake') continue;
      if (job.finished) draft.sleep({ job, engine }, 'its job has finished');
      else if (at(draft.snapshot.lanes, engine.lane).reserved) {
        draft.sleep({ job, engine }, 'its lane is reserved');
      }
    }
  }
}

/** Lanes on which the job's engine sleeps and could wake, ascending. */
export function sleepingLanes(draft: Draft, job: JobState): LaneId[] {
  if (job.finished) return [];
  return job.engineLanes.filter(
    (lane) => isUsable(at(draft.snapshot.lanes, lane)) && engineOn(job, lane) === undefined,
  );
}

export interface Waking {
  readonly job: JobState;
  readonly lane: LaneId;
  readonly slots: number;
  readonly reason: string;
}

/**
 * Wakes an engine if its bytes are free. If they could be once others have fallen asleep, those that `mayLeave` are
 * put to sleep and the bytes are kept for it. Returns whether the engine will come, now or by a later plan.
 */
export function wakeWhenRoom(
  draft: Draft,
  { job, lane, slots, reason }: Waking,
  mayLeave: (resident: Resident) => boolean,
): boolean {
  const room = draft.room(lane, job.engineBytes, mayLeave);
  if (room === 'never') return false;
  if (room === 'free') {
    draft.wake(job, lane, reason, slots);
    return true;
  }
  if (room !== 'later') {
    for (const resident of room) draft.sleep(resident, `makes room for ${job.id}'s engine`);
  }
  draft.setAside(lane, job.engineBytes);
  return true;
}

/** Gives an engine awake this many slots, by an order only if it has another number. */
export function setSlots(draft: Draft, resident: Resident, slots: number, reason: string): void {
  const { engine } = resident;
  if (engine.status !== 'awake' || draft.isLeaving(engine) || draft.slotsOf(engine) === slots) return;
  draft.resize(resident, slots, reason);
}

/**
 * Whose engines make room for a job's without harm: nobody misses them, or their job has several awake where this
 * one has none. Plan for jobs in the order of `neediestFirst`, or the one that left takes the room that it made.
 */
export function isSpare(draft: Draft, { job: other }: Resident, job: JobState): boolean {
  if (other.demand.rollouts === 0) return true;
  return enginesStaying(draft, job) === 0 && enginesStaying(draft, other) > 1;
}

/** Jobs that have no engine before those that have one; in order of arrival within both. */
export function neediestFirst(draft: Draft, jobs: readonly JobState[]): JobState[] {
  const rank = (job: JobState): number => Math.min(enginesStaying(draft, job), 1);
  return [...jobs].sort((a, b) => rank(a) - rank(b));
}

function enginesStaying(draft: Draft, job: JobState): number {
  return job.engines.filter((engine) => !draft.isLeaving(engine)).length;
}
