import { describe, expect, it } from 'vitest';
import { partialOverlap } from '#src/scheduler/policies/partial-overlap.js';
import type { Snapshot } from '#src/scheduler/state.js';
import { atRest, decided, expectSoundOverRandomWorlds, made } from './policy-worlds.js';
import { added, after, asks, awake, jobSpec, lanesUp, lines, released, settled, wants } from './world.js';

const policy = made(partialOverlap);
const planOf = (snapshot: Snapshot): string[] => lines(decided(snapshot, policy).plan);

/** A job on three lanes that trains on the first, at work. */
function atWork(rollouts = 12): Snapshot {
  const job = jobSpec('a', { trainerLane: 0, engineLanes: [0, 1, 2] });
  return atRest(after(lanesUp(3), added(job), wants('a', rollouts)), policy);
}

function running(snapshot: Snapshot, lane: number, count: number): Snapshot {
  return after(snapshot, { kind: 'progress', job: 'a', lane, running: count, version: 0, tokens: 0 });
}

const lanesAwake = (snapshot: Snapshot, job = 'a'): number[] =>
  (snapshot.jobs.get(job)?.engines ?? []).filter(({ status }) => status === 'awake').map(({ lane }) => lane);

describe('partial overlap', () => {
  it('generates on all lanes while no stage takes any', () => {
    expect(lanesAwake(atWork())).toEqual([0, 1, 2]);
  });

  it('gives the stage its lane at once, and takes only that lane from generation', () => {
    expect(planOf(after(atWork(), asks('a', 'actorTraining', [0])))).toEqual(['sleep a on 0', 'grant 1']);
  });

  it('moves the sequences to the engine with most room, if that is enough for all of them', () => {
    const busy = running(running(running(atWork(), 0, 2), 1, 1), 2, 3);
    const { plan } = decided(after(busy, asks('a', 'actorTraining', [0])), policy);
    expect(plan.sleep).toMatchObject([{ lane: 0, moveTo: 1 }]);
  });

  it('moves them to the queue if no engine has room for all, and promises no room twice', () => {
    const full = running(running(running(atWork(), 0, 4), 1, 2), 2, 3);
    const { plan } = decided(after(full, asks('a', 'actorTraining', [0])), policy);
    expect(plan.sleep).toMatchObject([{ lane: 0, moveTo: 'queue' }]);
    const two = running(running(running(atWork(), 0, 3), 1, 3), 2, 1);
    const both = decided(after(two, asks('a', 'actorTraining', [0, 1])), policy);
    expect(both.plan.sleep).toMatchObject([
      { lane: 0, moveTo: 2 },
      { lane: 1, moveTo: 'queue' },
    ]);
  });

  it('wakes the lane again when the stage is over', () => {
    const training = settled(decided(after(atWork(), asks('a', 'actorTraining', [0])), policy).next);
    expect(lanesAwake(training)).toEqual([1, 2]);
    expect(planOf(training)).toEqual([]);
    expect(planOf(released(training))).toEqual(['wake a on 0 with 4 at v0']);
  });

  it('gives way already while the stage waits for its lane', () => {
    const others = after(atWork(), added(jobSpec('b')), asks('b', 'init', [0]));
    const held = decided(others, policy).next;
    expect(planOf(after(held, asks('a', 'actorTraining', [0])))).toEqual([
      'sleep a on 0',
      'keep nothing for 2',
    ]);
  });

  it('does not leave a lane idle for a stage that another holds up on a second lane', () => {
    const others = after(atWork(), added(jobSpec('b')), asks('b', 'init', [0]));
    const held = decided(others, policy).next;
    expect(planOf(after(held, asks('a', 'actorTraining', [0, 1])))).toEqual(['sleep a on 0', 'keep 1 for 2']);
  });

  it('has its own engine leave for a stage that needs room, not one of a job that may stay', () => {
    const part = { trainerLane: 0, engineLanes: [0, 1], engineBytes: 40 };
    const jobs = after(lanesUp(2, 100), added(jobSpec('a', part)), added(jobSpec('b', part)));
    let both = after(jobs, wants('a', 8), wants('b', 8));
    for (const job of ['a', 'b']) both = awake(awake(both, job, 0, 2, 2), job, 1, 2, 2);
    const quiet = after(both, { kind: 'progress', job: 'b', lane: 0, running: 0, version: 0, tokens: 0 });
    const { plan } = decided(after(quiet, asks('a', 'actorTraining', [0], 50)), policy);
    expect(plan.sleep.filter(({ lane }) => lane === 0).map(({ job }) => job)).toEqual(['a']);
  });

  it('does not give way for a stage that could not run anyway', () => {
    const asked = after(atWork(), { kind: 'laneReserved', lane: 1 }, asks('a', 'actorTraining', [0, 1]));
    expect(planOf(asked)).toEqual(['sleep a on 1', 'keep nothing for 1']);
  });

  it("does not give way for another job's stage", () => {
    const others = after(atWork(), added(jobSpec('b')));
    expect(planOf(after(others, asks('b', 'actorTraining', [0])))).toEqual(['grant 1']);
  });

  it('holds instead of sleeping when asked to, and lets go afterwards', () => {
    const hold = made(partialOverlap, { give_way: 'hold' });
    const taken = decided(after(atWork(), asks('a', 'actorTraining', [0])), hold);
    expect(lines(taken.plan)).toEqual(['resize a on 0 to 0', 'grant 1']);
    expect(lines(decided(released(taken.next), hold).plan)).toEqual(['resize a on 0 to 4']);
  });

  it('shares time with its stage on a single lane: no slots while that lasts', () => {
    const job = jobSpec('a', { engineLanes: [0] });
    const alone = atRest(after(lanesUp(1), added(job), wants('a', 4)), policy);
    const taken = decided(after(alone, asks('a', 'actorTraining', [0])), policy);
    expect(lines(taken.plan)).toEqual(['resize a on 0 to 0', 'grant 1']);
    expect(lines(decided(released(taken.next), policy).plan)).toEqual(['resize a on 0 to 4']);
  });

  it('keeps one engine when a stage takes all of several lanes, and none if there is no work left', () => {
    const busy = running(atWork(), 1, 3);
    const asked = after(busy, asks('a', 'actorTraining', [0, 1, 2]));
    expect(planOf(asked)).toEqual(['sleep a on 0', 'sleep a on 2', 'grant 1']);
    expect(planOf(after(asked, wants('a', 0)))).toEqual([
      'sleep a on 0',
      'sleep a on 1',
      'sleep a on 2',
      'grant 1',
    ]);
  });

  it('wakes an engine elsewhere before the last one gives way', () => {
    const job = jobSpec('a', { engineLanes: [0, 1] });
    const one = atRest(after(lanesUp(2), added(job), wants('a', 3)), policy);
    expect(lanesAwake(one)).toEqual([0]);
    const first = decided(after(one, asks('a', 'actorTraining', [0])), policy);
    expect(lines(first.plan)).toEqual(['grant 1', 'wake a on 1 with 4 at v0']);
    expect(planOf(settled(first.next))).toEqual(['sleep a on 0']);
  });

  it('wakes with the newest version', () => {
    const training = settled(decided(after(atWork(), asks('a', 'actorTraining', [0])), policy).next);
    const published = after(training, { kind: 'versionPublished', job: 'a', version: 3 });
    expect(planOf(released(published))).toEqual(['wake a on 0 with 4 at v3']);
  });

  it('puts engines of finished jobs to sleep, and does without lost lanes', () => {
    expect(planOf(after(atWork(), { kind: 'jobFinished', job: 'a' }))).toEqual([
      'sleep a on 0',
      'sleep a on 1',
      'sleep a on 2',
    ]);
    const lost = after(atWork(), { kind: 'laneLost', lane: 2, reason: 'test' });
    expect(planOf(lost)).toEqual([]);
    expect(planOf(after(lost, { kind: 'laneReady', lane: 2, bytesCapacity: 100 }))).toEqual([
      'wake a on 2 with 4 at v0',
    ]);
  });

  it('makes room for a job that has no engine by one of a job that has several', () => {
    const part = { trainerLane: null, engineBytes: 60 };
    const a = jobSpec('a', { ...part, engineLanes: [0, 1] });
    const first = atRest(after(lanesUp(2, 100), added(a), wants('a', 8)), policy);
    const second = after(first, added(jobSpec('b', { ...part, engineLanes: [1] })), wants('b', 8));
    const moved = decided(second, policy);
    expect(lines(moved.plan)).toEqual(['sleep a on 1']);
    expect(planOf(settled(moved.next))).toEqual(['wake b on 1 with 4 at v0']);
  });

  it.each(['sleep', 'hold'])('is sound over random worlds: give_way = %s', (give_way) => {
    expectSoundOverRandomWorlds(made(partialOverlap, { give_way }));
  });
});
