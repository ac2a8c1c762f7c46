import { z } from 'zod';
import { Draft } from '../draft.js';
import type { PolicyDefinition } from '../plan.js';
import type { JobId, JobState, LaneId, Snapshot, StageRequest } from '../state.js';
import {
  closeCycle,
  groupsOf,
  NO_PHASES,
  observe,
  phasesSchema,
  type Phases,
} from './coexec-round-robin-phases.js';
import {
  turnEndsAtMs,
  turnNow,
  turnSchema,
  type Member,
  type Turn,
  type TurnBounds,
} from './coexec-round-robin-turns.js';
import { canBeGranted, retire, setSlots, sleepingLanes, wakeWhenRoom } from './engine-orders.js';
import { byTier, placeStages } from './stage-placement.js';

const optionsSchema = z.strictObject({
  /** How much longer than the longest cycle alone a group's rollouts, or its training, may take together. */
  slack: z.number().min(1, 'must be at least 1').default(1.2),
  /** A training turn ends when its job neither holds nor asks for a stage for so long, in ms. */
  turn_gap_ms: z.number().gt(0, 'must be above 0').default(50),
  /** The longest that jobs who ask for a stage wait for one whose turn it is and who does not, in ms. */
  turn_wait_ms_max: z.number().gt(0, 'must be above 0').default(60_000),
});

type Options = z.infer<typeof optionsSchema>;

/**
 * Co-execution after Weave (OSDI 2026; arXiv 2512.11306 as RollMux): jobs whose idle phases interleave form a group,
 * and training goes round in it: while one job trains, the others generate, and all stay resident, so a switch is a
 * change of slots.
 *
 * From the paper's abstract: groups, round-robin over phases within a group, residency. Reconstructed here, not
 * quoted: jobs that train on the same lane make one strict ring. A job joins the first group for which all rollouts,
 * and all training, each fit into `slack` times the longest cycle one member has alone; times are observed, and a
 * job's first cycle runs in a group of its own. The group that has the turn generates; the others are held until
 * the ring has come to them. A turn lasts from a job's first stage until it has published new weights, or has had
 * enough time to ask for more. Its engines are held meanwhile if another member has sequences to run. `init` and
 * jobs that never train stand outside the ring. Engines sleep only where memory is too small for all.
 */
export const coexecRoundRobin: PolicyDefinition<Options> = {
  name: 'coexecRoundRobin',
  after: 'Weave / RollMux',
  summary: 'training goes round among jobs that share a lane; while one trains, its group generates',
  isWorkConserving: false,
  turnsMax: Infinity,
  options: optionsSchema,
  create: (options) => (snapshot) => {
    const draft = new Draft(snapshot);
    retire(draft);
    const memory = recall(snapshot);
    const rings = ringsOf(draft, memory, options);
    const isTurn = (request: StageRequest): boolean => {
      const ring = request.stage === 'init' ? undefined : rings.byJob.get(request.job);
      return ring === undefined || ring.turn?.job === request.job;
    };
    placeStages(draft, byTier(snapshot.requests.filter(isTurn)));
    for (const request of snapshot.requests) {
      if (!isTurn(request)) draft.reserve(request, [], 'it is the turn of another job of its ring');
    }
    take(draft, rings);
    const jobs = [...snapshot.jobs.values()].filter((job) => !job.finished);
    const generating = jobs.filter((job) => mayGenerate(job, snapshot, rings.byJob.get(job.id)));
    openAndHold(draft, jobs, new Set(generating));
    for (const job of generating) wake(draft, job);
    const reviewAtMs = reviewTime(snapshot, rings, options);
    const remembered = remember(draft, rings, new Set(generating));
    return { ...draft.plan(), memory: remembered, ...(reviewAtMs === null ? {} : { reviewAtMs }) };
  },
};

const memorySchema = z.object({
  timeMs: z.number(),
  phases: z.record(z.string(), phasesSchema),
  /** By training lane. */
  turns: z.record(z.string(), turnSchema),
});

type Memory = z.infer<typeof memorySchema>;

function recall(snapshot: Snapshot): Memory {
  const memory = memorySchema.safeParse(snapshot.memory);
  return memory.data ?? { timeMs: snapshot.timeMs, phases: {}, turns: {} };
}

/** The jobs that train on one lane. */
interface Ring {
  readonly lane: LaneId;
  readonly members: readonly Member[];
  groups: readonly (readonly JobId[])[];
  turn: Turn | null;
}

interface Rings {
  readonly all: readonly Ring[];
  readonly byJob: ReadonlyMap<JobId, Ring>;
  readonly phases: Map<JobId, Phases>;
}

function ringsOf(draft: Draft, memory: Memory, options: Options): Rings {
  const { snapshot } = draft;
  const phases = new Map<JobId, Phases>();
  const byLane = new Map<LaneId, JobState[]>();
  for (const job of snapshot.jobs.values()) {
    if (job.finished || job.trainerLane === null || job.stepRollouts === 0) continue;
    phases.set(job.id, observe(memory.phases[job.id] ?? NO_PHASES, snapshot.timeMs - memory.timeMs));
    byLane.set(job.trainerLane, [...(byLane.get(job.trainerLane) ?? []), job]);
  }
  const phasesOf = (id: JobId): Phases => phases.get(id) ?? NO_PHASES;
  const asking = new Set(
    snapshot.requests
      .filter((request) => request.stage !== 'init' && canBeGranted(draft, request))
      .map((request) => request.job),
  );
  const byJob = new Map<JobId, Ring>();
  const all = [...byLane].map(([lane, jobs]) => {
    const ids = jobs.map((job) => job.id);
    const order = groupsOf(ids, phasesOf, options.slack).flat();
    const members = order
      .flatMap((id) => snapshot.jobs.get(id) ?? [])
      .map((job) => toMember(job, snapshot, asking));
    const before = memory.turns[String(lane)] ?? null;
    const turn = turnNow(before, members, snapshot.timeMs, boundsOf(options));
    const isOver = before?.isTaken === true && (turn?.job !== before.job || !turn.isTaken);
    const last = before === null ? undefined : phases.get(before.job);
    if (isOver && last !== undefined) phases.set(before.job, closeCycle(last));
    // The cycle just closed may have changed who fits together.
    const ring: Ring = { lane, members, groups: groupsOf(ids, phasesOf, options.slack), turn };
    for (const id of ids) byJob.set(id, ring);
    return ring;
  });
  return { all, byJob, phases };
}

function boundsOf(options: Options): TurnBounds {
  return { gapMs: options.turn_gap_ms, waitMs: options.turn_wait_ms_max };
}

function toMember(job: JobState, snapshot: Snapshot, asking: ReadonlySet<JobId>): Member {
  const { id, version } = job;
  const isAsking = asking.has(id);
  return {
    id,
    version,
    isHolding: isTraining(snapshot, id),
    isAsking,
    hasWork: isAsking || job.demand.rollouts > 0,
  };
}

function isTraining(snapshot: Snapshot, job: JobId): boolean {
  return snapshot.grants.some((grant) => grant.job === job && grant.stage !== 'init');
}

/** A turn whose job is granted a stage of its training is taken. */
function take(draft: Draft, rings: Rings): void {
  const granted = new Set(draft.plan().grant.map((order) => order.request));
  for (const { id, job, stage } of draft.snapshot.requests) {
    const ring = rings.byJob.get(job);
    if (!granted.has(id) || stage === 'init' || ring?.turn?.job !== job) continue;
    ring.turn = { ...ring.turn, isTaken: true, idleSinceMs: null };
  }
}

function mayGenerate(job: JobState, snapshot: Snapshot, ring: Ring | undefined): boolean {
  const turn = ring?.turn ?? null;
  if (ring === undefined || turn === null) return true;
  const active = ring.groups.find((group) => group.includes(turn.job)) ?? [];
  if (!active.includes(job.id)) return false;
  if (turn.job !== job.id || !turn.isTaken) return true;
  return !active.some((id) => id !== job.id && (snapshot.jobs.get(id)?.demand.runnable ?? 0) > 0);
}

function openAndHold(draft: Draft, jobs: readonly JobState[], generating: ReadonlySet<JobState>): void {
  for (const job of jobs) {
    const mayRun = generating.has(job);
    const reason = mayRun ? 'its group has the turn' : 'it trains, or another group has the turn';
    for (const engine of job.engines) setSlots(draft, { job, engine }, mayRun ? job.slotsMax : 0, reason);
  }
}

/** Engines wake while sequences have no slot; those that are held or that nobody misses make room. */
function wake(draft: Draft, job: JobState): void {
  let missing = job.demand.runnable - draft.slots(job);
  if (missing <= 0) return;
  for (const lane of sleepingLanes(draft, job)) {
    const waking = { job, lane, slots: job.slotsMax, reason: `${missing} sequences have no slot` };
    const isComing = wakeWhenRoom(
      draft,
      waking,
      ({ job: other, engine }) => draft.slotsOf(engine) === 0 || other.demand.rollouts === 0,
    );
    if (isComing) missing -= job.slotsMax;
    if (missing <= 0) return;
  }
}

function reviewTime(snapshot: Snapshot, rings: Rings, options: Options): number | null {
  const times = rings.all.flatMap(({ turn, members }) =>
    turn === null ? [] : (turnEndsAtMs(turn, members, boundsOf(options)) ?? []),
  );
  return times.length === 0 ? null : Math.max(Math.min(...times), snapshot.timeMs + 1);
}

/** What each job does from now on, for the times of its phases. */
function remember(draft: Draft, rings: Rings, generating: ReadonlySet<JobState>): Memory {
  const { snapshot } = draft;
  const runs = (job: JobState): boolean =>
    generating.has(job) &&
    job.demand.runnable > 0 &&
    job.engines.some((engine) => engine.status === 'awake' && !draft.isLeaving(engine));
  const phases: Memory['phases'] = {};
  const turns: Memory['turns'] = {};
  for (const { lane, members, turn } of rings.all) {
    if (turn !== null) turns[String(lane)] = turn;
    const jobs = members.flatMap(({ id }) => snapshot.jobs.get(id) ?? []);
    const weights = jobs.filter(runs).reduce((sum, job) => sum + job.weight, 0);
    for (const job of jobs) {
      const trains = turn?.job === job.id && turn.isTaken && turn.idleSinceMs === null;
      const doing = trains ? 'training' : runs(job) ? 'generation' : 'nothing';
      const share = doing === 'generation' ? job.weight / weights : 1;
      phases[job.id] = { ...(rings.phases.get(job.id) ?? NO_PHASES), doing, share };
    }
  }
  return { timeMs: snapshot.timeMs, phases, turns };
}
