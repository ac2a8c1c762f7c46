import { describe, expect, it } from 'vitest';
import { at } from '#src/lib/assert.js';
import { Random } from '#src/lib/prng.js';
import { reduce } from '#src/scheduler/events.js';
import { isIdle } from '#src/scheduler/plan.js';
import { policyNamed } from '#src/scheduler/policies/index.js';
import { OVERTAKEN_MAX } from '#src/scheduler/policies/stage-placement.js';
import { decide } from '#src/scheduler/scheduler.js';
import { tierOf } from '#src/scheduler/stages.js';
import {
  bytesFree,
  createSnapshot,
  engineOn,
  isUsable,
  type Snapshot,
  type StageRequest,
} from '#src/scheduler/state.js';
import { type Cycle, hold, randomCycles } from './cycles.js';
import { after, released, settled } from './world.js';

const priority = policyNamed('priority');
const SEEDS = 100;
const CYCLES = 150;

function world(seed: number): Cycle[] {
  return randomCycles(priority, new Random(seed), CYCLES, `seed ${seed}`);
}

const WORLDS = Array.from({ length: SEEDS }, (_, seed) => world(seed));

function everyCycle(check: (cycle: Cycle) => void): void {
  for (const cycles of WORLDS) for (const cycle of cycles) check(cycle);
}

const share = (a: StageRequest, b: { readonly lanes: readonly number[] }): boolean =>
  a.lanes.some((lane) => b.lanes.includes(lane));
const rank = (request: StageRequest): number =>
  request.overtaken >= OVERTAKEN_MAX ? -1 : tierOf(request.stage);
const isAhead = (a: StageRequest, b: StageRequest): boolean => (rank(a) - rank(b) || a.id - b.id) < 0;
const usable = (snapshot: Snapshot, lane: number): boolean => {
  const state = snapshot.lanes[lane];
  return state !== undefined && isUsable(state);
};

/** Bytes of a lane that only its trainers hold: whatever asks for more can never have it. */
function bytesPossible(snapshot: Snapshot, lane: number): number {
  const trainers = [...snapshot.jobs.values()].filter((job) => job.trainerLane === lane);
  const held = trainers.reduce((sum, job) => sum + job.trainerBytes, 0);
  return (snapshot.lanes[lane]?.bytesCapacity ?? 0) - held;
}

const canEverRun = (snapshot: Snapshot, request: StageRequest): boolean =>
  request.lanes.every((lane) => request.bytes <= bytesPossible(snapshot, lane));

describe('priority, over random worlds,', () => {
  it('keeps every invariant, and does and says everything it can', () => {
    const kinds = [
      'its lane is reserved',
      'is reserved',
      'is lost',
      'holds lane',
      'is kept for',
      'can never free',
      'on their way to sleep to make room',
      'has to wake up before it can make room',
      'all its lanes are free',
      'its job has finished',
      'idle, and the demand fits elsewhere',
      /^makes room for .*'s /,
      'whose trainer is here',
      "its trainer's lane",
      'sequences have no slot',
    ];
    const seen = new Map(kinds.map((kind) => [kind, 0]));
    everyCycle(({ plan }) => {
      for (const { reason } of [...plan.wake, ...plan.sleep, ...plan.grant, ...plan.reservations]) {
        const kind = kinds.find((part) =>
          typeof part === 'string' ? reason.includes(part) : part.test(reason),
        );
        if (kind === undefined) throw new Error(`a reason of no known kind: ${reason}`);
        seen.set(kind, (seen.get(kind) ?? 0) + 1);
      }
    });
    for (const [kind, count] of seen) expect(count, String(kind)).toBeGreaterThan(10);
  });

  it('comes to rest: its own plan gives it nothing more to do', () => {
    everyCycle(({ next, where }) => {
      const again = decide(next, priority);
      hold(isIdle(again.plan), () => `${where}: ${JSON.stringify(again.plan)}`);
    });
  });

  it('lets nobody overtake a request that could run', () => {
    everyCycle(({ before, plan, next, where }) => {
      for (const { request } of plan.grant) {
        const granted = before.requests.find((candidate) => candidate.id === request);
        const stillWait = new Set(next.requests.map((candidate) => candidate.id));
        for (const waiting of before.requests.filter((candidate) => stillWait.has(candidate.id))) {
          if (granted === undefined || !isAhead(waiting, granted) || !share(waiting, granted)) continue;
          const isOut = waiting.lanes.some((lane) => !usable(before, lane));
          hold(isOut || !canEverRun(before, waiting), () => `${where}: ${request} before ${waiting.id}`);
        }
      }
    });
  });

  it('lets no request wait that has its lanes and its bytes and nobody ahead', () => {
    everyCycle(({ next, where }) => {
      const free = bytesFree(next);
      for (const waiting of next.requests) {
        const isFree = waiting.lanes.every(
          (lane) =>
            usable(next, lane) &&
            !next.grants.some((grant) => grant.lanes.includes(lane)) &&
            (free[lane] ?? 0) >= waiting.bytes,
        );
        const isFirst = !next.requests.some((other) => isAhead(other, waiting) && share(waiting, other));
        hold(!isFree || !isFirst, () => `${where}: request ${waiting.id}`);
      }
    });
  });

  it('leaves no lane without an engine that has sequences for it and room', () => {
    everyCycle(({ next, where }) => {
      const free = bytesFree(next);
      for (const job of next.jobs.values()) {
        const staying = job.engines.filter((engine) => engine.status !== 'fallingAsleep');
        if (job.finished || job.demand.runnable <= staying.reduce((sum, engine) => sum + engine.slots, 0))
          continue;
        for (const lane of job.engineLanes) {
          if (!usable(next, lane) || engineOn(job, lane) !== undefined) continue;
          // Room may be set aside for a stage that waits for sleepers, or for an engine on its way home.
          const isPromised =
            next.requests.some((request) => request.lanes.includes(lane)) ||
            [...next.jobs.values()].some(
              (other) => other.trainerLane === lane && engineOn(other, lane) === undefined,
            );
          hold(
            isPromised || (free[lane] ?? 0) < job.engineBytes,
            () => `${where}: ${job.id} on lane ${lane}`,
          );
        }
      }
    });
  });

  it('keeps nothing of a finished job once its engines are asleep', () => {
    everyCycle(({ next, where }) => {
      for (const job of next.jobs.values()) {
        if (!job.finished) continue;
        const isAwake = job.engines.some((engine) => engine.status === 'awake');
        const holds = [...next.requests, ...next.grants].some((stage) => stage.job === job.id);
        hold(!isAwake && !holds && job.engines.length > 0, () => `${where}: ${job.id}`);
      }
    });
  });

  it('grants every request that fits once those before it give back, each cycle moving on', () => {
    WORLDS.forEach((cycles, seed) => {
      let snapshot = at(cycles, 60).next;
      for (const lane of snapshot.lanes) {
        if (lane.health === 'lost') {
          const bytesCapacity = lane.epoch > 0 ? lane.bytesCapacity : 200;
          snapshot = after(snapshot, { kind: 'laneReady', lane: lane.id, bytesCapacity });
        }
        if (lane.reserved) snapshot = after(snapshot, { kind: 'laneUnreserved', lane: lane.id });
      }
      // A plan to grant and, where room must be made first, one to wake what is in between and one to move it.
      const cyclesMax = 3 * snapshot.requests.length + 3;
      for (let cycle = 0; cycle < cyclesMax; cycle++) {
        const decision = decide(released(settled(snapshot)), priority);
        hold(decision.violations.length === 0, () => `seed ${seed}: ${JSON.stringify(decision.violations)}`);
        snapshot = decision.next;
      }
      const stuck = snapshot.requests.filter((request) => canEverRun(snapshot, request));
      expect(stuck, `seed ${seed}`).toEqual([]);
    });
  });

  it('decides the same on the same events', () => {
    for (const cycles of WORLDS.slice(0, 20)) {
      let snapshot = createSnapshot(at(cycles, 0).before.lanes.length, 0);
      for (const { events, plan, where } of cycles) {
        for (const event of events) snapshot = reduce(snapshot, event, snapshot.timeMs + 1);
        const decision = decide(snapshot, priority);
        expect(decision.plan, where).toEqual(plan);
        snapshot = decision.next;
      }
    }
  });

  it('never changes the snapshot it is given', () => {
    for (const cycles of WORLDS.slice(0, 20)) {
      for (const { before, where } of cycles) {
        const copy = structuredClone(before);
        decide(before, priority);
        expect(before, where).toEqual(copy);
      }
    }
  });
});
