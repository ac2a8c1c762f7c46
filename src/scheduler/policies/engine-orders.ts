import type { Draft, Resident } from '../draft.js';
import type { JobState, LaneId, StageRequest } from '../state.js';
import { canWake, whyGone } from './upkeep.js';

/** False for a request that no release would help: a lane is out of use, or its memory too small. */
export function canBeGranted(draft: Draft, request: StageRequest): boolean {
  if (draft.outOfUse(request) !== null) return false;
  return request.lanes.every((lane) => draft.room(lane, request.bytes) !== 'never');
}

/** Puts to sleep what no policy keeps: engines of finished jobs, and those on reserved lanes. */
export function retire(draft: Draft): void {
  for (const job of draft.snapshot.jobs.values()) {
    for (const engine of job.engines) {
      const reason = engine.status === 'awake' ? whyGone(draft, job, engine) : null;
      if (reason !== null) draft.sleep({ job, engine }, reason);
    }
  }
}

/** Lanes on which the job's engine sleeps and could wake, ascending. */
export function sleepingLanes(draft: Draft, job: JobState): LaneId[] {
  return job.engineLanes.filter((lane) => canWake(draft, job, lane));
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
