import { z } from 'zod';
import { at } from '../../lib/assert.js';
import { Draft } from '../draft.js';
import type { PolicyDefinition, SleepOrder } from '../plan.js';
import { engineOn, isUsable, type EngineState, type JobId, type JobState, type LaneId } from '../state.js';
import { Allotment, contenders, reach } from './allotment.js';
import { canBeGranted } from './engine-orders.js';
import { rolloutsLeft, shareByWork } from './gap-ratio.js';
import { byTier, placeStages } from './stage-placement.js';

const optionsSchema = z.strictObject({
  /**
   * What a job's engines do on lanes that its own stage takes. `sleep`: they free their memory, and their sequences
   * move. `hold`: they keep memory and sequences, and go on when the stage is over; those sleep all the same whose
   * sequences have slots on another lane, and those whose memory is needed. On the only lane that a job can use its
   * engine always holds: training and generation take turns there.
   */
  give_way: z.enum(['sleep', 'hold'], 'must be sleep or hold').default('sleep'),
});

type Options = z.infer<typeof optionsSchema>;

/**
 * ROLL's Partial Overlapping (alibaba/ROLL, `partial_gpu_mode`, February 2026): a job generates on all its lanes, and
 * only the lanes its training needs are taken back for as long as that lasts.
 *
 * From ROLL's code: training lanes are a strict subset of the engine's; shrink before the stage, expand after it; an
 * engine always stays active. Ours: sequences move with their tokens to an engine that has room for all of them, else
 * to the queue, where ROLL aborts the turn and loses it. Several jobs divide the lanes among them as in `gapRatio`,
 * and each gives way to its own stages only: another job's stage just goes first on the lane.
 *
 * With one lane there is no strict subset: there the engine holds its sequences, KV cache and all, while the stage
 * lasts, which is strict alternation. If a stage takes all of several lanes, one engine goes on beside it.
 *
 * A stage takes its lanes once nothing but engines is in its way. While it waits for another stage it takes those
 * that the other holds: what is moved early runs meanwhile, and no lane idles for a stage that cannot begin (P1).
 */
export const partialOverlap: PolicyDefinition<Options> = {
  name: 'partialOverlap',
  after: 'ROLL Partial Overlapping',
  summary: 'a stage takes its lanes from its own job only; generation goes on on the others',
  isWorkConserving: false,
  turnsMax: 1,
  options: optionsSchema,
  create: (options) => (snapshot) => {
    let draft = new Draft(snapshot);
    placeStages(draft, byTier(snapshot.requests));
    const cessions = cessionsOf(draft, options);
    const hasVictims = draft.plan().sleep.length > 0;
    // Who leaves anyway leaves first: that may be all the room that a stage needs.
    if (hasVictims) draft = new Draft(snapshot);
    for (const cession of cessions.values()) shrink(draft, cession);
    if (hasVictims) placeStages(draft, byTier(snapshot.requests));
    const allotment = new Allotment(draft);
    const own = new Map([...cessions].map(([id, { lanes }]) => [id, lanes]));
    shareByWork(allotment, contenders(draft), rolloutsLeft, { own });
    for (const cession of cessions.values()) goOn(allotment, cession);
    reach(allotment, {
      whyOut: ({ id }, lane) => (isOut(allotment, cessions.get(id), lane) ? GIVES_WAY : null),
    });
    const plan = draft.plan();
    return { ...plan, sleep: moves(draft, plan.sleep) };
  },
};

const GIVES_WAY = 'a stage of its job takes the lane';

/** What a job cedes to its own stages. */
interface Cession {
  readonly job: JobState;
  readonly lanes: ReadonlySet<LaneId>;
  /** Its engines there sleep. */
  readonly isEmptied: boolean;
  /** The engine that goes on beside the stage because it is the job's last one awake. */
  readonly last: EngineState | null;
}

function cessionsOf(draft: Draft, options: Options): Map<JobId, Cession> {
  const cessions = new Map<JobId, Cession>();
  for (const [id, lanes] of lanesTaken(draft)) {
    const job = draft.snapshot.jobs.get(id);
    if (job === undefined || job.finished) continue;
    const hasOther = job.engineLanes.some((lane) => isOpen(draft, lane) && !lanes.has(lane));
    const isOnlyLane = !hasOther && job.engineLanes.filter((lane) => isOpen(draft, lane)).length <= 1;
    const isEmptied = options.give_way === 'sleep' && !isOnlyLane;
    cessions.set(id, { job, lanes, isEmptied, last: isOnlyLane ? null : lastAwake(draft, job, lanes) });
  }
  return cessions;
}

function isOpen(draft: Draft, lane: LaneId): boolean {
  return isUsable(at(draft.snapshot.lanes, lane));
}

/** By job: lanes that a stage of its own holds, is about to be granted, or waits for behind another stage. */
function lanesTaken(draft: Draft): Map<JobId, Set<LaneId>> {
  const { snapshot } = draft;
  const { grant, reservations } = draft.plan();
  const granted = new Set(grant.map((order) => order.request));
  const lanesKept = new Map(reservations.map(({ request, lanes }) => [request, lanes.length]));
  const holders = [...snapshot.grants, ...snapshot.requests.filter((request) => granted.has(request.id))];
  const held = new Set(holders.flatMap((holder) => holder.lanes));
  const taken = new Map<JobId, Set<LaneId>>();
  const take = (job: JobId, lanes: readonly LaneId[]): void => {
    const own = taken.get(job) ?? new Set();
    for (const lane of lanes) own.add(lane);
    taken.set(job, own);
  };
  for (const { job, lanes } of holders) take(job, lanes);
  for (const request of snapshot.requests) {
    const { id, job, lanes } = request;
    if (granted.has(id) || !canBeGranted(draft, request)) continue;
    const isNext = lanesKept.get(id) === lanes.length;
    take(job, isNext ? lanes : lanes.filter((lane) => held.has(lane)));
  }
  return taken;
}

/** The engine that must go on because no other of the job is awake elsewhere; null when none must. */
function lastAwake(draft: Draft, job: JobState, taken: ReadonlySet<LaneId>): EngineState | null {
  if (job.demand.rollouts === 0) return null;
  const awake = job.engines.filter(({ status, lane }) => status === 'awake' && isOpen(draft, lane));
  if (awake.some((engine) => !taken.has(engine.lane))) return null;
  // One that runs stays the one: those held keep their sequences and may have more.
  const order = (a: EngineState, b: EngineState): number =>
    Math.sign(b.slots) - Math.sign(a.slots) || b.running - a.running || a.lane - b.lane;
  return awake.sort(order)[0] ?? null;
}

function shrink(draft: Draft, { job, lanes, isEmptied, last }: Cession): void {
  if (!isEmptied) return;
  for (const engine of job.engines) {
    if (engine.status !== 'awake' || engine === last || !lanes.has(engine.lane)) continue;
    draft.sleep({ job, engine }, GIVES_WAY);
  }
}

function goOn(allotment: Allotment, { job, last }: Cession): void {
  if (last === null || allotment.draft.isLeaving(last) || !allotment.fits(job, last.lane)) return;
  allotment.give(job, last.lane, job.slotsMax);
}

/** None wakes where a stage of its job is; those awake leave if the lanes are to be empty. */
function isOut(allotment: Allotment, cession: Cession | undefined, lane: LaneId): boolean {
  if (cession?.lanes.has(lane) !== true || allotment.slots(cession.job, lane) > 0) return false;
  return cession.isEmptied || engineOn(cession.job, lane) === undefined;
}

/** The sleep orders, each with a place to go: the job's engine with most room if that is enough for all, else the queue. */
function moves(draft: Draft, sleep: readonly SleepOrder[]): SleepOrder[] {
  const promised = new Map<EngineState, number>();
  const roomOn = (engine: EngineState): number =>
    draft.slotsOf(engine) - engine.running - (promised.get(engine) ?? 0);
  return sleep.map((order) => {
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
