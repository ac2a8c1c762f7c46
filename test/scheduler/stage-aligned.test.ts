import { describe, expect, it } from 'vitest';
import type { SchedulerEvent } from '#src/scheduler/events.js';
import { stageAligned } from '#src/scheduler/policies/stage-aligned.js';
import type { Segment, Snapshot } from '#src/scheduler/state.js';
import { atRest, decided, made } from './policy-worlds.js';
import { added, after, jobSpec, lanesUp, wants } from './world.js';

const policy = made(stageAligned);
const LANES = [0, 1, 2, 3];

/** Jobs with the same demand, at rest, on so many lanes. */
function served(laneCount: number, jobs: Readonly<Record<string, number>>): Snapshot {
  const engineLanes = LANES.slice(0, laneCount);
  const parts = { trainerLane: null, trainerBytes: 0, engineLanes, slotsMax: 4, engineBytes: 10 };
  const events = Object.entries(jobs).flatMap(([id, runnable]) => [
    added(jobSpec(id, parts)),
    wants(id, runnable),
  ]);
  return atRest(after(lanesUp(laneCount, 100), ...events), policy);
}

function tells(job: string, stepMs: number, lane = 0): SchedulerEvent {
  return { kind: 'progress', job, lane, running: 4, version: 0, tokens: 1, stepMs };
}

const slotsOf = (snapshot: Snapshot): (string | number)[][] =>
  [...snapshot.jobs.values()].map(({ id, engines }) => [
    id,
    ...engines.flatMap(({ lane, slots }) => [lane, slots]),
  ]);

describe('lanes', () => {
  it('are shared with all slots of each engine', () => {
    expect(slotsOf(served(1, { big: 8, small: 4 }))).toEqual([
      ['big', 0, 4],
      ['small', 0, 4],
    ]);
  });

  it('go one to each job first, then two to a lane', () => {
    expect(slotsOf(served(2, { a: 8, b: 8, c: 2 }))).toEqual([
      ['a', 0, 4, 1, 4],
      ['b', 1, 4],
      ['c', 0, 2],
    ]);
    expect(slotsOf(served(2, { a: 8, b: 4 }))).toEqual([
      ['a', 0, 4, 1, 4],
      ['b', 1, 4],
    ]);
  });
});

describe('segments', () => {
  const shared = served(1, { big: 4, small: 4 });
  const segmentAfter = (
    snapshot: Snapshot,
    ...events: SchedulerEvent[]
  ): [Snapshot, Segment | null, number] => {
    const { plan, next } = decided(after(snapshot, ...events), policy);
    return [next, next.lanes[0]?.segment ?? null, plan.segments?.length ?? 0];
  };

  it('are a decode step of the fastest engine, one more in flight', () => {
    expect(shared.lanes[0]?.segment).toBeNull();
    const [first, known] = segmentAfter(shared, tells('big', 25));
    expect(known).toEqual({ sliceUs: 25_000, inFlightUs: 50_000 });
    expect(segmentAfter(first, tells('small', 2.5))[1]).toEqual({ sliceUs: 2500, inFlightUs: 5000 });
  });

  it('follow the step, not its every change', () => {
    const [aligned] = segmentAfter(shared, tells('big', 25), tells('small', 2));
    for (const stepMs of [1.7, 2.4]) expect(segmentAfter(aligned, tells('small', stepMs))[2]).toBe(0);
    expect(segmentAfter(aligned, tells('small', 2.6))[1]?.sliceUs).toBe(2600);
    expect(segmentAfter(aligned, tells('small', 0.01))[1]?.sliceUs).toBe(200);
  });

  it('end with the sharing, and with the lane', () => {
    const [aligned] = segmentAfter(shared, tells('big', 25), tells('small', 2));
    const [, segment, orders] = segmentAfter(aligned, wants('small', 0));
    expect([segment, orders]).toEqual([null, 1]);
    const lost = after(aligned, { kind: 'laneLost', lane: 0, reason: 'test' });
    expect(after(lost, { kind: 'laneReady', lane: 0, bytesCapacity: 100 }).lanes[0]?.segment).toBeNull();
  });
});
