import { describe, expect, it } from 'vitest';
import { at } from '#src/lib/assert.js';
import { Random } from '#src/lib/prng.js';
import { reduce, type SchedulerEvent } from '#src/scheduler/events.js';
import { isIdle, type Policy, type PolicyDefinition } from '#src/scheduler/plan.js';
import { POLICIES, policyNamed } from '#src/scheduler/policies/index.js';
import { decide } from '#src/scheduler/scheduler.js';
import {
  bytesFree,
  createSnapshot,
  isUsable,
  mayLiveOn,
  type JobState,
  type Snapshot,
} from '#src/scheduler/state.js';
import { type Cycle, hold, randomCycles } from './cycles.js';
import { after, released, settled } from './world.js';

/** What every policy of the registry is held to. To be tested here, a policy need only be registered. */
const DEFINITIONS = [...POLICIES.values()];
const SEEDS = 60;
const CYCLES = 100;
/** The world that the slower checks start from, and how many plans it takes at most until nothing is left to do. */
const MIDDLE = 60;
const RESTS_MAX = 12;

function world(policy: Policy, name: string, seed: number): Cycle[] {
  return randomCycles(policy, new Random(seed).fork(name), CYCLES, `${name}, seed ${seed}`);
}

/** Carries out and plans again, without news, until there is nothing left to do. */
function atRest(snapshot: Snapshot, policy: Policy, where: string): Snapshot {
  let rested = snapshot;
  for (let plans = 0; plans < RESTS_MAX; plans++) {
    const { plan, violations, next } = decide(settled(rested), policy);
    hold(violations.length === 0, () => `${where}: ${JSON.stringify(violations)}`);
    if (isIdle(plan)) return next;
    rested = next;
  }
  throw new Error(`${where}: still changes its mind after ${RESTS_MAX} plans without news`);
}

/** The same world with all lanes in use. */
function allLanesUp(snapshot: Snapshot): Snapshot {
  const events = snapshot.lanes.flatMap((lane): SchedulerEvent[] => {
    const { id, epoch, health, reserved } = lane;
    const bytesCapacity = epoch > 0 ? lane.bytesCapacity : 200;
    return [
      ...(health === 'lost' ? [{ kind: 'laneReady', lane: id, bytesCapacity } as const] : []),
      ...(reserved ? [{ kind: 'laneUnreserved', lane: id } as const] : []),
    ];
  });
  return after(snapshot, ...events);
}

/** Bytes of a lane that only its trainers hold: whatever asks for more can never have it. */
function bytesPossible(snapshot: Snapshot, lane: number): number {
  const trainers = [...snapshot.jobs.values()].filter((job) => job.trainerLane === lane);
  const held = trainers.reduce((sum, job) => sum + job.trainerBytes, 0);
  return at(snapshot.lanes, lane).bytesCapacity - held;
}

const slotsOf = (job: JobState): number => job.engines.reduce((sum, engine) => sum + engine.slots, 0);

/**
 * Runs a world to its end: each round every sequence with a slot ends, jobs with none that can run finish, every stage is
 * given back, and nothing new comes. Returns how many rounds it took until each job had had a slot and each request
 * had been granted, of those that ever can.
 */
function roundsUntilServed(
  definition: PolicyDefinition,
  start: Snapshot,
  roundsMax: number,
  where: string,
): number {
  const policy = policyNamed(definition.name);
  const canRun = (job: JobState): boolean =>
    job.demand.runnable > 0 && job.engineLanes.some((lane) => job.engineBytes <= bytesPossible(start, lane));
  const jobs = new Set([...start.jobs.values()].filter(canRun).map((job) => job.id));
  const canBeGranted = start.requests.filter(({ lanes, bytes }) =>
    lanes.every((lane) => bytes <= bytesPossible(start, lane)),
  );
  const requests = new Set(canBeGranted.map((request) => request.id));
  let snapshot = start;
  for (let round = 1; round <= roundsMax; round++) {
    snapshot = settled(snapshot);
    const { plan, violations, next } = decide(snapshot, policy);
    hold(violations.length === 0, () => `${where}, round ${round}: ${JSON.stringify(violations)}`);
    for (const { request } of plan.grant) requests.delete(request);
    snapshot = released(settled(next));
    for (const job of snapshot.jobs.values()) {
      const slots = slotsOf(job);
      if (slots > 0) jobs.delete(job.id);
      const rollouts = Math.max(job.demand.rollouts - slots, 0);
      const runnable = Math.min(job.demand.runnable, rollouts);
      const isWaiting = snapshot.requests.some(
        (request) => request.job === job.id && requests.has(request.id),
      );
      if (job.finished) continue;
      const event: SchedulerEvent =
        (job.demand.runnable === 0 || !canRun(job)) && !isWaiting
          ? { kind: 'jobFinished', job: job.id }
          : {
              kind: 'demandChanged',
              job: job.id,
              demand: { rollouts, runnable, tokensRemaining: rollouts * 10 },
            };
      snapshot = reduce(snapshot, event, snapshot.timeMs);
    }
    if (jobs.size === 0 && requests.size === 0) return round;
    // A round takes as long as a turn.
    snapshot = reduce(snapshot, { kind: 'tick' }, snapshot.timeMs + 1000);
  }
  throw new Error(
    `${where}: after ${roundsMax} rounds jobs ${[...jobs].join()} and requests ${[...requests].join()} wait`,
  );
}

describe.each(DEFINITIONS)('$name, over random worlds,', (definition) => {
  const policy = policyNamed(definition.name);
  const worlds = Array.from({ length: SEEDS }, (_, seed) => world(policy, definition.name, seed));

  it('keeps every invariant, and gives every part of a plan something to do', () => {
    const plans = worlds.flat().map((cycle) => cycle.plan);
    for (const part of ['wake', 'sleep', 'grant', 'reservations'] as const) {
      const orders = plans.reduce((sum, plan) => sum + plan[part].length, 0);
      expect(orders, part).toBeGreaterThan(50);
    }
  });

  it('comes to rest when there is no news', () => {
    for (const cycles of worlds) for (const { next, where } of cycles) atRest(next, policy, where);
  });

  it.runIf(definition.isWorkConserving)('leaves no lane idle for which a job has sequences and room', () => {
    for (const cycles of worlds) {
      for (const { next, where } of cycles) {
        const snapshot = atRest(next, policy, where);
        const jobs = [...snapshot.jobs.values()];
        const free = bytesFree(snapshot);
        for (const lane of snapshot.lanes) {
          const isBusy = jobs.some((job) =>
            job.engines.some((engine) => engine.lane === lane.id && engine.slots > 0),
          );
          const isWaitedFor = snapshot.requests.some((request) => request.lanes.includes(lane.id));
          if (isBusy || isWaitedFor || !isUsable(lane)) continue;
          const idler = jobs.find(
            (job) =>
              !job.finished &&
              mayLiveOn(job, lane.id) &&
              job.demand.runnable > slotsOf(job) &&
              (job.engines.some((engine) => engine.lane === lane.id) || job.engineBytes <= at(free, lane.id)),
          );
          hold(idler === undefined, () => `${where}: ${idler?.id} could use lane ${lane.id}`);
        }
      }
    }
  });

  it.runIf(Number.isFinite(definition.turnsMax))('serves everyone within the turns it states', () => {
    worlds.forEach((cycles, seed) => {
      const start = allLanesUp(at(cycles, MIDDLE).next);
      const jobs = [...start.jobs.values()];
      const most = Math.max(0, ...jobs.map((job) => job.demand.rollouts));
      // A holder keeps what it has until its rollouts have ended, at one a round; then it falls asleep and another wakes.
      const holdRounds = most + 4;
      const waiting = jobs.length + start.requests.length + 1;
      roundsUntilServed(definition, start, definition.turnsMax * waiting * holdRounds, `seed ${seed}`);
    });
  });

  it('keeps nothing of a job that has finished', () => {
    for (const cycles of worlds) {
      for (const { next, where } of cycles) {
        for (const job of next.jobs.values()) {
          const isAwake = job.engines.some((engine) => engine.status === 'awake');
          hold(!job.finished || (!isAwake && job.engines.length > 0), () => `${where}: ${job.id}`);
        }
      }
    }
  });

  it('decides the same on the same events, from what the snapshot remembers alone', () => {
    for (const cycles of worlds.slice(0, 20)) {
      const replayed = policyNamed(definition.name);
      let snapshot = createSnapshot(at(cycles, 0).before.lanes.length, 0);
      for (const { events, plan, where } of cycles) {
        for (const event of events) snapshot = reduce(snapshot, event, snapshot.timeMs + 1);
        // What it remembers is plain JSON, so it may go through a file.
        const memory: unknown = JSON.parse(JSON.stringify(snapshot.memory));
        const decision = decide({ ...snapshot, memory }, replayed);
        expect(decision.plan, where).toEqual(plan);
        snapshot = decision.next;
      }
    }
  });

  it('never changes the snapshot it is given', () => {
    for (const { before, where } of worlds.slice(0, 10).flat()) {
      const copy = structuredClone(before);
      decide(before, policy);
      expect(before, where).toEqual(copy);
    }
  });

  it('takes over from every other policy', () => {
    for (const other of DEFINITIONS) {
      const before = policyNamed(other.name);
      for (let seed = 0; seed < 5; seed++) {
        const { next, where } = at(world(before, `${other.name} then ${definition.name}`, seed), MIDDLE);
        atRest(next, policy, where);
      }
    }
  });
});
