import { z } from 'zod';
import { at } from '../../lib/assert.js';
import { Draft } from '../draft.js';
import type { Plan, PolicyDefinition, SleepOrder } from '../plan.js';
import {
  engineOn,
  isUsable,
  type EngineState,
  type JobId,
  type JobState,
  type LaneId,
  type Snapshot,
} from '../state.js';
import {
  canBeGranted,
  isSpare,
  neediestFirst,
  retire,
  setSlots,
  sleepingLanes,
  wakeWhenRoom,
} from './engine-orders.js';
import { byTier, placeStages } from './stage-placement.js';

const optionsSchema = z.strictObject({
  /**
   * What a job's engines do on lanes that its own stage takes. `sleep`: they free their memory, and their sequences
   * move. `hold`: they keep memory and sequences, and go on when the stage is over.
   */
  give_way: z.enum(['sleep', 'hold'], 'must be sleep or hold').default('sleep'),
});

type Options = z.infer<typeof optionsSchema>;

/**
 * ROLL's Partial Overlapping (alibaba/ROLL, `partial_gpu_mode`, February 2026): a job generates on all its lanes, and
 * only the lanes its training needs are taken back for as long as that lasts.
 *
 * From ROLL's code: training lanes are a strict subset of the engine's; shrink before the stage, expand after it; an
 * engine always stays active. Ours: several jobs, each giving way to its own stages only (another job's stage just
 * goes first on the lane); sequences move with their tokens to an engine that has room for all of them, else to the
 * queue, where ROLL aborts the turn; engines wake by demand; a job that has a single lane to use is held there, which
 * is time sharing. Waiting for the lanes already counts as taking them: what is moved early runs meanwhile.
 */
export const partialOverlap: PolicyDefinition<Options> = {
  name: 'partialOverlap',
  after: 'ROLL Partial Overlapping',
  summary: 'a stage takes its lanes from its own job only; generation goes on on the others',
  isWorkConserving: false,
  turnsMax: Infinity,
  options: optionsSchema,
  create: (options) => (snapshot) => {
    const draft = new Draft(snapshot);
    const taken = lanesTaken(draft);
    retire(draft);
    placeStages(draft, byTier(snapshot.requests));
    const jobs = [...snapshot.jobs.values()].filter((job) => !job.finished);
    for (const job of jobs) shrinkAndExpand(draft, job, taken.get(job.id) ?? NO_LANES, options);
    for (const job of neediestFirst(draft, jobs)) wake(draft, job, taken.get(job.id) ?? NO_LANES);
    return { ...draft.plan(), sleep: moves(draft, draft.plan()) };
  },
};

type Lanes = ReadonlySet<LaneId>;
const NO_LANES: Lanes = new Set();

/** By job: lanes that a stage of its own holds, or waits for with some hope. */
function lanesTaken(draft: Draft): Map<JobId, Set<LaneId>> {
  const { grants, requests } = draft.snapshot;
  const taken = new Map<JobId, Set<LaneId>>();
  for (const { job, lanes } of [...grants, ...requests.filter((request) => canBeGranted(draft, request))]) {
    const own = taken.get(job) ?? new Set();
    for (const lane of lanes) own.add(lane);
    taken.set(job, own);
  }
  return taken;
}

/** Engines give way on lanes taken, and have all their slots on the others. */
function shrinkAndExpand(draft: Draft, job: JobState, taken: Lanes, options: Options): void {
  const kept = taken.size === 0 ? null : keptEngine(draft, job, taken);
  const isOnlyLane = taken.size > 0 && usableLanes(draft.snapshot, job) === 1;
  for (const engine of job.engines) {
    if (engine.status !== 'awake' || draft.isLeaving(engine)) continue;
    const resident = { job, engine };
    if (!taken.has(engine.lane)) setSlots(draft, resident, job.slotsMax, 'no stage of its job is here');
    else if (isOnlyLane) setSlots(draft, resident, 0, 'a stage of its job takes the only lane it can use');
    else if (engine === kept) setSlots(draft, resident, job.slotsMax, 'no other engine of its job is awake');
    else if (options.give_way === 'sleep') draft.sleep(resident, 'a stage of its job takes the lane');
    else setSlots(draft, resident, 0, 'a stage of its job takes the lane');
  }
}

/** The engine on a lane taken that must go on because it would be the job's last; null when none must. */
function keptEngine(draft: Draft, job: JobState, taken: Lanes): EngineState | null {
  if (job.demand.rollouts === 0) return null;
  const awake = job.engines.filter((engine) => engine.status === 'awake' && !draft.isLeaving(engine));
  if (awake.some((engine) => !taken.has(engine.lane))) return null;
  // One that runs stays the one: those held keep their sequences and may have more.
  const order = (a: EngineState, b: EngineState): number =>
    Math.sign(b.slots) - Math.sign(a.slots) || b.running - a.running || a.lane - b.lane;
  return awake.sort(order)[0] ?? null;
}

function usableLanes(snapshot: Snapshot, job: JobState): number {
  return job.engineLanes.filter((lane) => isUsable(at(snapshot.lanes, lane))).length;
}

/** Engines wake on lanes not taken while sequences have no slot there, and one wherever there is work at all. */
function wake(draft: Draft, job: JobState, taken: Lanes): void {
  let missing = Math.max(job.demand.runnable, Math.min(job.demand.rollouts, 1));
  for (const engine of job.engines) {
    if (!taken.has(engine.lane) && !draft.isLeaving(engine)) missing -= draft.slotsOf(engine);
  }
  if (missing <= 0) return;
  for (const lane of sleepingLanes(draft, job)) {
    if (taken.has(lane)) continue;
    const reason = `${missing} sequences have no slot`;
    const waking = { job, lane, slots: job.slotsMax, reason };
    const isComing = wakeWhenRoom(draft, waking, (resident) => isSpare(draft, resident, job));
    if (isComing) missing -= job.slotsMax;
    if (missing <= 0) return;
  }
}

/** The sleep orders, each with a place to go: the job's engine with most room if that is enough for all, else the queue. */
function moves(draft: Draft, plan: Plan): SleepOrder[] {
  const promised = new Map<EngineState, number>();
  const roomOn = (engine: EngineState): number =>
    draft.slotsOf(engine) - engine.running - (promised.get(engine) ?? 0);
  return plan.sleep.map((order) => {
    const job = draft.snapshot.jobs.get(order.job);
    const running = job === undefined ? 0 : (engineOn(job, order.lane)?.running ?? 0);
    if (job === undefined || running === 0) return order;
    const [target] = job.engines
      .filter((engine) => engine.status === 'awake' && !draft.isLeaving(engine) && roomOn(engine) >= running)
      .sort((a, b) => roomOn(b) - roomOn(a) || a.lane - b.lane);
    if (target === undefined) return order;
    promised.set(target, (promised.get(target) ?? 0) + running);
    return { ...order, moveTo: target.lane };
  });
}
