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
import { Allotment, reach } from './allotment.js';
import { canBeGranted, retire } from './engine-orders.js';
import { fillInOrder } from './fill-in-order.js';
import { remembered } from './options.js';
import { byTier, OVERTAKEN_MAX, placeStages } from './stage-placement.js';

const optionsSchema = z.strictObject({
  /** How much longer than the longest cycle alone a group's rollouts, or its training, may take together. */
  slack: z.number().min(1, 'must be at least 1').default(1.2),
  /** A training turn ends when its job neither holds nor asks for a stage for so long, in ms. */
  turn_gap_ms: z.number().gt(0, 'must be above 0').default(50),
  /** The longest that jobs who ask wait for one of their group whose turn it is and who does not, in ms. */
  turn_wait_ms_max: z.number().gt(0, 'must be above 0').default(60_000),
});

type Options = z.infer<typeof optionsSchema>;

/**
 * Co-execution after Weave (OSDI 2026; arXiv 2512.11306 as RollMux): jobs whose idle phases interleave form a group,
 * and training goes round in it: while one job trains, the others generate, and all stay resident, so a switch is a
 * change of slots.
 *
 * From the paper's abstract: groups, round-robin over phases within a group, residency. Reconstructed here, not
 * quoted: jobs that train on the same lane make one ring. A job joins the first group for which all rollouts, and all
 * training, each fit into `slack` times the longest cycle one member has alone; times are observed, and a job's first
 * cycle runs in a group of its own. The group that has the turn generates, who trains next first, each in the slots
 * that those before it leave; the others are held until the ring has come to them.
 *
 * A turn lasts from a job's first stage until it has published new weights, or has had enough time to ask for more.
 * Within a group turns are strict, up to `turn_wait_ms_max`: who asks too early waits. One of another group, whose
 * phases have nothing to do with it, goes first if it can begin at once; so does a request that has been overtaken too
 * often. `init` and jobs that never train stand outside the ring: they share lanes with it by weight, and come first
 * where memory is too small for both. Engines sleep only where it is, and when their sequences have slots elsewhere.
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
    const rings = ringsOf(draft, recall(snapshot), options);
    const isTurn = (request: StageRequest): boolean => {
      const ring = request.stage === 'init' ? undefined : rings.byJob.get(request.job);
      return ring === undefined || ring.turn?.job === request.job;
    };
    placeStages(draft, byTier(snapshot.requests.filter(isTurn)));
    for (const request of snapshot.requests) {
      if (!isTurn(request)) draft.reserve(request, [], 'it is the turn of another job of its ring');
    }
    take(draft, rings);
    const allotment = new Allotment(draft);
    fillInOrder(allotment, outside(snapshot, rings));
    fillInOrder(allotment, inTurn(snapshot, rings));
    reach(allotment, { keepsIdle: true });
    const reviewAtMs = reviewTime(snapshot, rings, options);
    const memory = remember(allotment, rings);
    return { ...draft.plan(), memory, ...(reviewAtMs === null ? {} : { reviewAtMs }) };
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
  return remembered(memorySchema, snapshot.memory) ?? { timeMs: snapshot.timeMs, phases: {}, turns: {} };
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
  const asking = requestsByJob(draft);
  const byJob = new Map<JobId, Ring>();
  const all = [...byLane].map(([lane, jobs]) => {
    const ids = jobs.map((job) => job.id);
    const members = groupsOf(ids, phasesOf, options.slack).flatMap((group, index) =>
      group
        .flatMap((id) => snapshot.jobs.get(id) ?? [])
        .map((job) => toMember(draft, job, index, asking.get(job.id) ?? [])),
    );
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

/** Requests of training that could be granted, by job. */
function requestsByJob(draft: Draft): Map<JobId, StageRequest[]> {
  const asking = new Map<JobId, StageRequest[]>();
  for (const request of draft.snapshot.requests) {
    if (request.stage === 'init' || !canBeGranted(draft, request)) continue;
    asking.set(request.job, [...(asking.get(request.job) ?? []), request]);
  }
  return asking;
}

function toMember(draft: Draft, job: JobState, group: number, asks: readonly StageRequest[]): Member {
  const { id, version } = job;
  return {
    id,
    version,
    group,
    isHolding: isTraining(draft.snapshot, id),
    isAsking: asks.length > 0,
    isReady: asks.some((request) => draft.inTheWay(request) === null),
    isOverdue: asks.some((request) => request.overtaken >= OVERTAKEN_MAX),
    hasWork: asks.length > 0 || job.demand.rollouts > 0,
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

/** Jobs that take no turns and have something to generate: they share lanes with the ring's by weight. */
function outside({ jobs }: Snapshot, rings: Rings): JobState[] {
  return [...jobs.values()].filter(
    (job) => !job.finished && job.demand.rollouts > 0 && !rings.byJob.has(job.id),
  );
}

/**
 * Who generates in which order. Of a ring, the group that has the turn: first the one who trains next, last the one
 * who trains now. Of several rings, the one whose turn has lasted longest goes first, so none waits for ever.
 */
function inTurn({ jobs }: Snapshot, rings: Rings): JobState[] {
  const byAge = [...rings.all].sort((a, b) => (a.turn?.sinceMs ?? Infinity) - (b.turn?.sinceMs ?? Infinity));
  return byAge.flatMap(({ turn, groups }) => {
    if (turn === null) return [];
    const group = groups.find((ids) => ids.includes(turn.job)) ?? [];
    const first = group.indexOf(turn.job) + (turn.isTaken ? 1 : 0);
    const inOrder = [...group.slice(first), ...group.slice(0, first)];
    return inOrder.flatMap((id) => jobs.get(id) ?? []).filter((job) => job.demand.rollouts > 0);
  });
}

function reviewTime(snapshot: Snapshot, rings: Rings, options: Options): number | null {
  const times = rings.all.flatMap(({ turn, members }) =>
    turn === null ? [] : (turnEndsAtMs(turn, members, boundsOf(options)) ?? []),
  );
  return times.length === 0 ? null : Math.max(Math.min(...times), snapshot.timeMs + 1);
}

/** What each job does from now on, for the times of its phases. */
function remember(allotment: Allotment, rings: Rings): Memory {
  const { draft } = allotment;
  const { snapshot } = draft;
  const runs = (job: JobState): boolean =>
    job.engines.some(
      (engine) =>
        engine.status === 'awake' && !draft.isLeaving(engine) && allotment.slots(job, engine.lane) > 0,
    );
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
