import { Draft } from '../draft.js';
import type { Plan, PolicyDefinition } from '../plan.js';
import { isUsable, type JobState, type LaneId, type Snapshot } from '../state.js';
import { NO_OPTIONS } from './options.js';
import { byTier, OVERTAKEN_MAX, placeStages } from './stage-placement.js';
import { openSlots, sleepUnneeded, wakeAtHome } from './upkeep.js';

/**
 * RLix's tiers, without its four defects (P1 to P4 in the tests).
 *
 * Stages: by tier, then by arrival, as `placeStages` says.
 *
 * Generation: shares its lane with the trainer, whose slices simply go first, so a grant puts an engine to sleep
 * only where memory is too small for both. Each job's engine stays awake on its trainer's lane; others wake while
 * more sequences could run than there are slots, and sleep once idle and not missed.
 */
export const priority: PolicyDefinition<object> = {
  name: 'priority',
  after: 'RLix (tiers)',
  summary: 'training by tier, generation wherever it finds a lane with room',
  isWorkConserving: true,
  turnsMax: OVERTAKEN_MAX + 1,
  options: NO_OPTIONS,
  create: () => plan,
};

function plan(snapshot: Snapshot): Plan {
  const draft = new Draft(snapshot);
  const jobs = [...snapshot.jobs.values()];
  for (const job of jobs) openSlots(draft, job);
  // Who leaves anyway leaves first: the room that makes may be all that is needed.
  for (const job of jobs) sleepUnneeded(draft, job);
  placeStages(draft, byTier(snapshot.requests));
  for (const job of jobs) wakeAtHome(draft, job);
  wakeElsewhere(draft, jobs);
  return draft.plan();
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
