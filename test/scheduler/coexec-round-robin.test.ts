import { describe, expect, it } from 'vitest';
import {
  closeCycle,
  fitTogether,
  groupsOf,
  NO_PHASES,
  observe,
  type Phases,
} from '#src/scheduler/policies/coexec-round-robin-phases.js';
import { coexecRoundRobin } from '#src/scheduler/policies/coexec-round-robin.js';
import type { Snapshot } from '#src/scheduler/state.js';
import { atRest, decided, expectSoundOverRandomWorlds, later, made } from './policy-worlds.js';
import { added, after, asks, jobSpec, lanesUp, lines, released, settled, wants } from './world.js';

const policy = made(coexecRoundRobin);

const seen = (rolloutMs: number, trainMs: number): Phases => ({
  ...NO_PHASES,
  cycle: { rolloutMs, trainMs },
});

/** Training on lane 0, generation on lane 1. */
const SPLIT = { trainerLane: 0, engineLanes: [1] };

function twoJobs(): Snapshot {
  const jobs = after(lanesUp(2), added(jobSpec('a', SPLIT)), added(jobSpec('b', SPLIT)));
  return atRest(after(jobs, wants('a', 4), wants('b', 4)), policy);
}

const slotsOf = (snapshot: Snapshot): Record<string, number> =>
  Object.fromEntries(
    [...snapshot.jobs.values()].map(({ id, engines }) => [id, engines.reduce((sum, e) => sum + e.slots, 0)]),
  );

/** The job trains for so long and publishes. */
function trained(snapshot: Snapshot, job: string, ms: number): Snapshot {
  const granted = settled(decided(after(snapshot, asks(job, 'actorTraining', [0])), policy).next);
  expect(granted.grants.map((grant) => grant.job)).toEqual([job]);
  const version = (granted.jobs.get(job)?.version ?? 0) + 1;
  return atRest(after(released(later(granted, ms)), { kind: 'versionPublished', job, version }), policy);
}

/** One solo cycle each, so that both are known: 100 ms of rollouts, then 100 ms of training. */
function acquainted(): Snapshot {
  const first = trained(later(twoJobs(), 100), 'a', 100);
  return trained(later(first, 100), 'b', 100);
}

describe('who may share a cycle', () => {
  it('is who fits: all rollouts, and all training, within slack times the longest cycle alone', () => {
    expect(fitTogether([seen(100, 100), seen(100, 100)], 1)).toBe(true);
    expect(fitTogether([seen(150, 50), seen(150, 50)], 1)).toBe(false);
    expect(fitTogether([seen(150, 50), seen(150, 50)], 1.5)).toBe(true);
    expect(fitTogether([seen(10, 120), seen(10, 120)], 1)).toBe(false);
    expect(fitTogether([seen(300, 100), seen(20, 20), seen(20, 20)], 1)).toBe(true);
  });

  it('is nobody whose cycle is unknown', () => {
    expect(fitTogether([NO_PHASES], 1)).toBe(true);
    expect(fitTogether([seen(10, 10), NO_PHASES], 100)).toBe(false);
  });

  it('is settled in order of arrival, each joining the first group it fits into', () => {
    const phases = new Map([
      ['a', seen(100, 100)],
      ['b', seen(180, 20)],
      ['c', seen(90, 90)],
      ['d', seen(20, 170)],
    ]);
    const groups = groupsOf([...phases.keys()], (id) => phases.get(id) ?? NO_PHASES, 1);
    expect(groups).toEqual([
      ['a', 'c'],
      ['b', 'd'],
    ]);
  });

  it('goes by times as if alone: time shared counts by the share', () => {
    const half = observe({ ...NO_PHASES, doing: 'generation', share: 0.5 }, 100);
    const both = observe({ ...half, doing: 'training' }, 40);
    expect(closeCycle(both).cycle).toEqual({ rolloutMs: 50, trainMs: 40 });
    const next = closeCycle(observe({ ...closeCycle(both), doing: 'training' }, 140));
    expect(next.cycle?.trainMs).toBeCloseTo(40 + 0.3 * 100);
  });
});

describe('co-execution round robin', () => {
  it('runs the first cycle of each job alone', () => {
    const start = twoJobs();
    expect(slotsOf(start)).toEqual({ a: 4, b: 0 });
    expect(slotsOf(trained(start, 'a', 100))).toEqual({ a: 0, b: 4 });
  });

  it('then lets jobs whose phases fit generate together: who trains next first, the other in what that leaves', () => {
    expect(slotsOf(acquainted())).toEqual({ a: 4, b: 0 });
    expect(slotsOf(atRest(after(acquainted(), wants('a', 1)), policy))).toEqual({ a: 1, b: 3 });
  });

  it('lets the others generate while one trains, whose own engines are held', () => {
    const training = decided(after(later(acquainted(), 100), asks('a', 'actorTraining', [0])), policy);
    expect(lines(training.plan)).toEqual(['resize a on 1 to 0', 'resize b on 1 to 4', 'grant 3']);
    const idle = after(training.next, wants('b', 0));
    expect(lines(decided(idle, policy).plan)).toEqual(['resize a on 1 to 4']);
  });

  it('is strict: who asks out of turn waits', () => {
    const early = decided(after(later(acquainted(), 100), asks('b', 'actorTraining', [0])), policy);
    expect(lines(early.plan)).toEqual(['keep nothing for 3']);
    const proper = decided(after(early.next, asks('a', 'actorTraining', [0])), policy);
    expect(lines(proper.plan)).toEqual([
      'resize a on 1 to 0',
      'resize b on 1 to 4',
      'grant 4',
      'keep nothing for 3',
    ]);
    const over = after(released(proper.next), { kind: 'versionPublished', job: 'a', version: 2 });
    expect(lines(decided(over, policy).plan)).toEqual([
      'resize a on 1 to 4',
      'resize b on 1 to 0',
      'grant 3',
    ]);
  });

  it('keeps the turn over all stages of a step, and ends it when the job asks for no more', () => {
    const first = decided(after(acquainted(), asks('a', 'oldLogProbs', [0])), policy);
    const gap = decided(released(after(first.next, asks('b', 'actorTraining', [0]))), policy);
    expect(lines(gap.plan)).toEqual(['keep nothing for 4']);
    expect(gap.plan.reviewAtMs).toBe(gap.next.timeMs + 50);
    const second = decided(after(later(gap.next, 49), asks('a', 'actorTraining', [0])), policy);
    expect(lines(second.plan)).toContain('grant 5');
    expect(lines(decided(later(gap.next, 50), policy).plan)).toContain('grant 4');
  });

  it('does not wait for a stranger who has the turn and does not ask', () => {
    const early = decided(after(twoJobs(), asks('b', 'actorTraining', [0])), policy);
    expect(lines(early.plan)).toEqual(['resize a on 1 to 0', 'grant 1', 'wake b on 1 with 4 at v0']);
  });

  it('does not hold a group for one who asks and is held up by another stage', () => {
    const other = after(twoJobs(), added(jobSpec('c', { trainerLane: 1, engineLanes: [] })));
    const busy = decided(after(other, asks('c', 'init', [1])), policy).next;
    const early = decided(after(busy, asks('b', 'actorTraining', [0, 1])), policy);
    expect(lines(early.plan)).toEqual(['keep nothing for 2']);
  });

  it('does not wait for ever for one who has the turn and does not ask', () => {
    const hasty = made(coexecRoundRobin, { turn_wait_ms_max: 500 });
    const start = later(acquainted(), 1);
    const early = decided(after(start, asks('b', 'actorTraining', [0])), hasty);
    const turnSinceMs = start.timeMs - 1;
    expect(early.plan.reviewAtMs).toBe(turnSinceMs + 500);
    expect(lines(decided(later(early.next, 499), hasty).plan)).toContain('grant 3');
  });

  it('passes over one that has nothing to do', () => {
    const idle = after(acquainted(), wants('a', 0), asks('b', 'actorTraining', [0]));
    expect(lines(decided(idle, policy).plan)).toContain('grant 3');
  });

  it('lets init and jobs that never train stand outside the ring', () => {
    const server = jobSpec('c', { trainerLane: null, engineLanes: [1], stepRollouts: 0 });
    const start = after(twoJobs(), added(server), wants('c', 2), asks('b', 'init', [0]));
    expect(lines(decided(start, policy).plan)).toEqual(['grant 1', 'wake c on 1 with 2 at v0']);
  });

  it('keeps all resident while memory lasts, and then swaps with who is held', () => {
    const part = { ...SPLIT, engineBytes: 60 };
    const jobs = after(lanesUp(2, 100), added(jobSpec('a', part)), added(jobSpec('b', part)));
    const start = atRest(after(jobs, wants('a', 4), wants('b', 4)), policy);
    expect(slotsOf(start)).toEqual({ a: 4, b: 0 });
    const asked = decided(after(start, asks('a', 'actorTraining', [0])), policy).next;
    const over = after(released(later(asked, 10)), { kind: 'versionPublished', job: 'a', version: 1 });
    const swap = decided(over, policy);
    expect(lines(swap.plan)).toEqual(['sleep a on 1']);
    expect(lines(decided(settled(swap.next), policy).plan)).toEqual(['wake b on 1 with 4 at v0']);
  });

  it('is sound over random worlds', () => {
    expectSoundOverRandomWorlds(made(coexecRoundRobin, { turn_wait_ms_max: 500 }));
  });
});
