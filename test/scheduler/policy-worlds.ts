import { expect } from 'vitest';
import { at } from '#src/lib/assert.js';
import { Random } from '#src/lib/prng.js';
import { reduce, type SchedulerEvent } from '#src/scheduler/events.js';
import { isIdle, type Plan, type Policy, type PolicyDefinition } from '#src/scheduler/plan.js';
import { decide } from '#src/scheduler/scheduler.js';
import { createSnapshot, type Snapshot } from '#src/scheduler/state.js';
import { after, randomEvent, released, settled } from './world.js';

const SEEDS = 50;
const CYCLES = 100;
/** Longer than any wait an option of a policy under test allows. */
const LATER_MS = 1_000;

/** A policy with some options set and the others as they are by default. */
export function made<Options>(definition: PolicyDefinition<Options>, options: object = {}): Policy {
  return definition.create(definition.options.parse(options));
}

export interface Decided {
  readonly plan: Plan;
  readonly next: Snapshot;
}

/** One decision, its memory sent through JSON as a record of a run would, refused if it breaks an invariant. */
export function decided(snapshot: Snapshot, policy: Policy, where = ''): Decided {
  const { plan, violations, next } = decide(snapshot, policy);
  if (violations.length > 0) throw new Error(`${where}: ${JSON.stringify(violations)}`);
  return { plan, next: { ...next, memory: JSON.parse(JSON.stringify(next.memory)) as unknown } };
}

/** The same snapshot some time later. */
export function later(snapshot: Snapshot, ms: number): Snapshot {
  return reduce(snapshot, { kind: 'tick' }, snapshot.timeMs + ms);
}

/** Plans until nothing more is ordered; each order is carried out at once. */
export function atRest(snapshot: Snapshot, policy: Policy): Snapshot {
  for (let plans = 0; plans < 10; plans++) {
    const { plan, next } = decided(snapshot, policy);
    snapshot = settled(next);
    if (isIdle(plan)) return snapshot;
  }
  throw new Error('no rest after 10 plans');
}

interface Step {
  readonly at: number;
  readonly events: readonly { readonly timeMs: number; readonly event: SchedulerEvent }[];
  readonly plan: Plan;
  readonly next: Snapshot;
}

/** Random events, now close together, now far apart, under the policy. */
function randomWorld(policy: Policy, seed: number): { readonly lanes: number; readonly steps: Step[] } {
  const random = new Random(seed);
  const lanes = random.int(1, 5);
  let snapshot = createSnapshot(lanes, 0);
  const steps = Array.from({ length: CYCLES }, (_, index): Step => {
    const where = `seed ${seed}, cycle ${index}`;
    const events: { timeMs: number; event: SchedulerEvent }[] = [];
    for (let draws = random.int(1, 4); draws > 0; draws--) {
      const event = randomEvent(snapshot, random) ?? ({ kind: 'tick' } as const);
      const timeMs = snapshot.timeMs + random.pick([0, 1, 30, 300]);
      snapshot = reduce(snapshot, event, timeMs);
      events.push({ timeMs, event });
    }
    const before = structuredClone(snapshot);
    const { plan, next } = decided(snapshot, policy, where);
    if (index % 10 === 0) expect(snapshot, `${where}: the snapshot was changed`).toEqual(before);
    snapshot = next;
    expectNoneFinishedAwake(next, where);
    return { at: index, events, plan, next };
  });
  return { lanes, steps };
}

function expectNoneFinishedAwake(snapshot: Snapshot, where: string): void {
  for (const job of snapshot.jobs.values()) {
    if (!job.finished || job.engines.every((engine) => engine.status !== 'awake')) continue;
    throw new Error(`${where}: ${job.id} has finished and is kept awake`);
  }
}

/** Every lane in use again. */
function repaired(snapshot: Snapshot): Snapshot {
  for (const lane of snapshot.lanes) {
    if (lane.health === 'lost') {
      const bytesCapacity = lane.epoch > 0 ? lane.bytesCapacity : 200;
      snapshot = after(snapshot, { kind: 'laneReady', lane: lane.id, bytesCapacity });
    }
    if (lane.reserved) snapshot = after(snapshot, { kind: 'laneUnreserved', lane: lane.id });
  }
  return snapshot;
}

/** Requests that fit beside the trainers, which never leave their lanes. */
function possible(snapshot: Snapshot): number[] {
  const bytesTrainers = (lane: number): number =>
    [...snapshot.jobs.values()]
      .filter((job) => job.trainerLane === lane)
      .reduce((sum, job) => sum + job.trainerBytes, 0);
  return snapshot.requests
    .filter(({ bytes, lanes }) =>
      lanes.every((lane) => bytes <= at(snapshot.lanes, lane).bytesCapacity - bytesTrainers(lane)),
    )
    .map((request) => request.id);
}

/**
 * What every policy must keep, over 50 random worlds of 100 plans: no invariant is broken and the snapshot is not
 * changed; finished jobs' engines sleep; the same events give the same plans; planning again settles within a few
 * plans; and once every holder gives back what it has, every request that fits is granted.
 */
export function expectSoundOverRandomWorlds(policy: Policy): void {
  for (let seed = 0; seed < SEEDS; seed++) {
    const { lanes, steps } = randomWorld(policy, seed);
    if (seed < 10) expectSameAgain(policy, lanes, steps, seed);
    for (let index = 19; index < CYCLES; index += 20) expectRest(policy, at(steps, index).next, seed);
    expectAllGranted(policy, at(steps, CYCLES / 2).next, seed);
  }
}

function expectSameAgain(policy: Policy, lanes: number, steps: readonly Step[], seed: number): void {
  let snapshot = createSnapshot(lanes, 0);
  for (const { events, plan, at: index } of steps) {
    for (const { timeMs, event } of events) snapshot = reduce(snapshot, event, timeMs);
    const again = decided(snapshot, policy);
    expect(again.plan, `seed ${seed}, cycle ${index}`).toEqual(plan);
    snapshot = again.next;
  }
}

/** At one and the same time: orders end, whatever they are. */
function expectRest(policy: Policy, snapshot: Snapshot, seed: number): void {
  for (let plans = 0; plans < 12; plans++) {
    const { plan, next } = decided(snapshot, policy, `seed ${seed}`);
    if (isIdle(plan)) return;
    snapshot = settled(next);
  }
  throw new Error(`seed ${seed}: no rest after 12 plans`);
}

function expectAllGranted(policy: Policy, start: Snapshot, seed: number): void {
  let snapshot = repaired(start);
  // For each request a plan to pass it the turn, one to make room and one to grant it, and some to begin with.
  const cyclesMax = 4 * snapshot.requests.length + 8;
  for (let cycle = 0; cycle < cyclesMax; cycle++) {
    snapshot = decided(released(settled(later(snapshot, LATER_MS))), policy, `seed ${seed}`).next;
  }
  const waiting = new Set(snapshot.requests.map((request) => request.id));
  const stuck = possible(snapshot).filter((id) => waiting.has(id));
  expect(stuck, `seed ${seed}`).toEqual([]);
}
