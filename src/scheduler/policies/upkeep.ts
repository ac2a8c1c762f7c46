import { at } from '../../lib/assert.js';
import type { Draft, Resident } from '../draft.js';
import { engineOn, isUsable, mayLiveOn, type EngineState, type JobState, type LaneId } from '../state.js';

/** True when the job's engine sleeps on a lane where it could wake, memory aside. */
export function canWake(draft: Draft, job: JobState, lane: LaneId): boolean {
  return (
    !job.finished &&
    isUsable(at(draft.snapshot.lanes, lane)) &&
    mayLiveOn(job, lane) &&
    engineOn(job, lane) === undefined
  );
}

/** Why an engine awake has to leave under every policy; null if it does not. */
export function whyGone(draft: Draft, job: JobState, engine: EngineState): string | null {
  if (job.finished) return 'its job has finished';
  return at(draft.snapshot.lanes, engine.lane).reserved ? 'its lane is reserved' : null;
}

/** All slots for every engine awake: another policy may have left it with fewer. */
export function openSlots(draft: Draft, job: JobState): void {
  for (const engine of job.engines) {
    if (engine.status !== 'awake' || engine.slots === job.slotsMax) continue;
    draft.resize({ job, engine }, job.slotsMax, 'an engine awake has all its slots');
  }
}

/** Puts to sleep what has to leave, and what idles away from home and is not missed. */
export function sleepUnneeded(draft: Draft, job: JobState): void {
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
  const isIdle = engine.running === 0 && engine.lane !== job.trainerLane;
  return whyGone(draft, job, engine) ?? (isSpare && isIdle ? 'idle, and the demand fits elsewhere' : null);
}

/** Visitors make room for an engine at home; those that run something, only for sequences that have no slot. */
export function wakeAtHome(draft: Draft, job: JobState): void {
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
