import { describe, expect, it } from 'vitest';
import {
  dividedByWeight,
  openGuard,
  slotsAllowed,
  stepGuard,
  type Guard,
} from '#src/scheduler/policies/slo-guard-level.js';
import { sloGuard } from '#src/scheduler/policies/slo-guard.js';
import type { Snapshot } from '#src/scheduler/state.js';
import { atRest, decided, expectSoundOverRandomWorlds, later, made } from './policy-worlds.js';
import { added, after, asks, jobSpec, lanesUp, lines, settled, wants } from './world.js';

const policy = made(sloGuard);
const linesOf = (snapshot: Snapshot): string[] => lines(decided(snapshot, policy).plan);

const LIMIT_MS = 20;
const FRONT = jobSpec('front', { trainerLane: null, tokenLatencyMs: LIMIT_MS });
const BACK = jobSpec('back', { trainerLane: null, slotsMax: 8 });

/** A foreground with something to say and a background with much to do, on one lane. */
function together(): Snapshot {
  const start = after(lanesUp(1), added(BACK), added(FRONT), wants('back', 40), wants('front', 2));
  return atRest(start, policy);
}

const told = (snapshot: Snapshot, tokenLatencyMs: number, running = 2): Snapshot =>
  after(snapshot, {
    kind: 'progress',
    job: 'front',
    lane: 0,
    running,
    version: 0,
    tokens: 1,
    tokenLatencyMs,
  });

const slotsOf = (snapshot: Snapshot, job: string, lane = 0): number =>
  snapshot.jobs.get(job)?.engines.find((engine) => engine.lane === lane)?.slots ?? -1;

/** Half a second later, under this latency. */
function stepped(snapshot: Snapshot, latencyMs: number): Snapshot {
  return decided(told(later(snapshot, 500), latencyMs), policy).next;
}

describe('the level', () => {
  const OPTIONS = {
    interval_ms: 500,
    increase: 1,
    decrease: 0.5,
    headroom: 0.8,
    slots_start: 1,
    probe_ms: 10_000,
  };
  const guard: Guard = { ...openGuard(OPTIONS, 0), level: 4 };
  const at = (from: Guard, pressure: number, nowMs: number): Guard =>
    stepGuard(from, { pressure, slotsMax: 4.5, nowMs }, OPTIONS);
  const step = (pressure: number, nowMs = 500): number => at(guard, pressure, nowMs).level;

  it('grows by steps, is cut by a share, and stays in between', () => {
    expect([step(0.8), step(0.9), step(1), step(1.1)]).toEqual([4.5, 4, 4, 2]);
  });

  it('grows at most once per interval, and is cut at once', () => {
    expect([step(0, 499), step(2, 1)]).toEqual([4, 2]);
  });

  it('is cut once for every time the limit is passed', () => {
    const cut = at(guard, 2, 100);
    expect(at(cut, 2, 5_000)).toBe(cut);
    expect(at(at(cut, 1, 5_100), 2, 5_200).level).toBe(1);
  });

  it('allows whole slots, and none over the limit', () => {
    expect(slotsAllowed({ ...guard, level: 2.9 })).toBe(2);
    expect(slotsAllowed(at(guard, 1.01, 1))).toBe(0);
  });

  it('leaves alone what was too much, twice as long after every failure, and forgets it once it holds', () => {
    let state: Guard = { ...guard, level: 1 };
    const failedMs: number[] = [];
    for (let nowMs = 0; nowMs <= 80_000; nowMs += 250) {
      const isTooMuch = slotsAllowed(state) >= 3;
      if (isTooMuch) failedMs.push(nowMs);
      state = at(state, isTooMuch ? 1.2 : 0.5, nowMs);
    }
    expect(failedMs.map((ms, index) => Math.round((ms - (failedMs[index - 1] ?? 0)) / 1000))).toEqual([
      1, 10, 20, 40,
    ]);
    for (let nowMs = 80_000; nowMs <= 200_000; nowMs += 250) state = at(state, 0.5, nowMs);
    expect(state).toMatchObject({ level: 4.5, tooMany: null, failures: 0 });
  });

  it('does not take the blame for what happens without any background', () => {
    const none = { ...guard, level: 0.5 };
    expect(at(none, 3, 100)).toEqual({ ...none, isOver: true });
  });

  it('is divided by weight, and in turns where it is too small for all', () => {
    const ids = ['a', 'b', 'c'] as const;
    const specs = ids.map((id) => jobSpec(id, { weight: id === 'a' ? 2 : 1, slotsMax: 3 }));
    const snapshot = after(lanesUp(1), ...specs.map(added));
    const jobs = [...snapshot.jobs.values()];
    const divided = (slots: number, turn: number): number[] => {
      const shares = dividedByWeight(jobs, slots, turn);
      return jobs.map((job) => shares.get(job) ?? 0);
    };
    expect(divided(4, 0)).toEqual([2, 1, 1]);
    expect(divided(100, 0)).toEqual([3, 3, 3]);
    expect([divided(1, 0), divided(1, 1), divided(2, 2)]).toEqual([
      [1, 0, 0],
      [0, 1, 0],
      [1, 0, 1],
    ]);
  });
});

describe('the SLO guard', () => {
  it('starts the background low beside a foreground, which has all its slots', () => {
    const snapshot = together();
    expect([slotsOf(snapshot, 'front'), slotsOf(snapshot, 'back')]).toEqual([4, 1]);
  });

  it('gives the background a slot more per step while there is slack, up to all it can use', () => {
    let snapshot = together();
    const seen: number[] = [];
    for (let step = 0; step < 9; step++) {
      snapshot = stepped(snapshot, LIMIT_MS / 2);
      seen.push(slotsOf(snapshot, 'back'));
    }
    expect(seen).toEqual([2, 3, 4, 5, 6, 7, 8, 8, 8]);
  });

  it('holds the background at once when the foreground is over its limit, and lets it back at half the level', () => {
    let snapshot = together();
    for (let step = 0; step < 5; step++) snapshot = stepped(snapshot, 1);
    expect(slotsOf(snapshot, 'back')).toBe(6);
    expect(linesOf(told(later(snapshot, 1), LIMIT_MS + 1))).toEqual(['resize back on 0 to 0']);
    snapshot = stepped(snapshot, LIMIT_MS + 1);
    expect(slotsOf(snapshot, 'back')).toBe(0);
    expect(linesOf(told(later(snapshot, 1), LIMIT_MS))).toEqual(['resize back on 0 to 3']);
  });

  it('stays as it is between slack and limit', () => {
    const snapshot = stepped(together(), 1);
    expect(linesOf(told(later(snapshot, 500), LIMIT_MS * 0.9))).toEqual([]);
  });

  it('asks to be called at its next step, and not where there is nothing to guard', () => {
    expect(decided(later(together(), 100), policy).plan.reviewAtMs).toBe(500);
    const alone = after(lanesUp(1), added(FRONT), wants('front', 2));
    expect(decided(alone, policy).plan.reviewAtMs).toBeUndefined();
  });

  it('takes a foreground that runs nothing as slack: its last word is about the past', () => {
    const busy = stepped(together(), LIMIT_MS * 3);
    expect(slotsOf(busy, 'back')).toBe(0);
    let snapshot = told(later(busy, 1), LIMIT_MS * 3, 0);
    for (let step = 0; step < 30; step++) snapshot = decided(later(snapshot, 500), policy).next;
    expect(slotsOf(snapshot, 'back')).toBeGreaterThan(0);
  });

  it('leaves the whole lane to the background while the foreground wants nothing, and not a moment longer', () => {
    const busy = stepped(together(), LIMIT_MS * 3);
    const quiet = decided(after(told(later(busy, 1), LIMIT_MS * 3, 0), wants('front', 0)), policy).next;
    expect(slotsOf(quiet, 'back')).toBe(8);
    expect(linesOf(after(later(quiet, 1), wants('front', 1)))).toEqual(['resize back on 0 to 0']);
  });

  it('gives a background without work no slots beside a foreground until it has some', () => {
    const home = { ...BACK, trainerLane: 0 };
    const busy = after(lanesUp(1), added(home), added(FRONT), wants('back', 40), wants('front', 2));
    const idle = decided(after(atRest(busy, policy), wants('back', 0)), policy).next;
    expect(slotsOf(idle, 'back')).toBe(0);
    expect(linesOf(after(idle, wants('back', 3)))).toEqual(['resize back on 0 to 1']);
  });

  it('leaves lanes without foreground to the background, and guards only where both are', () => {
    const back = jobSpec('back', { trainerLane: null, engineLanes: [0, 1], slotsMax: 8 });
    const start = after(lanesUp(2), added(FRONT), added(back), wants('back', 40), wants('front', 2));
    const snapshot = atRest(start, policy);
    expect([slotsOf(snapshot, 'back', 0), slotsOf(snapshot, 'back', 1)]).toEqual([1, 8]);
    const gone = settled(decided(after(snapshot, { kind: 'jobFinished', job: 'front' }), policy).next);
    expect(slotsOf(decided(gone, policy).next, 'back')).toBe(8);
  });

  it('keeps one foreground engine awake without work, and makes room for it', () => {
    const back = { ...BACK, engineBytes: 60 };
    const start = atRest(after(lanesUp(1, 100), added(back), wants('back', 40)), policy);
    const asked = after(start, added({ ...FRONT, engineBytes: 60 }));
    const moved = decided(asked, policy);
    expect(lines(moved.plan)).toEqual(['sleep back on 0']);
    expect(linesOf(settled(moved.next))).toEqual(['wake front on 0 with 4 at v0']);
  });

  it('lets an idle foreground make room for one that has sequences to run', () => {
    const part = { engineBytes: 60 };
    const start = after(
      lanesUp(1, 100),
      added({ ...FRONT, ...part }),
      added({ ...FRONT, ...part, id: 'second' }),
    );
    const snapshot = atRest(start, policy);
    expect(slotsOf(snapshot, 'front')).toBe(4);
    expect(slotsOf(atRest(after(snapshot, wants('second', 1)), policy), 'second')).toBe(4);
  });

  it('lets a background that has several engines make room for one that has none, for good', () => {
    const part = { trainerLane: null, engineBytes: 60 };
    const first = atRest(
      after(lanesUp(2, 100), added(jobSpec('a', { ...part, engineLanes: [0, 1] })), wants('a', 8)),
      policy,
    );
    const both = atRest(
      after(first, added(jobSpec('b', { ...part, engineLanes: [1] })), wants('b', 8)),
      policy,
    );
    expect([slotsOf(both, 'a', 0), slotsOf(both, 'a', 1), slotsOf(both, 'b', 1)]).toEqual([4, -1, 4]);
  });

  it("grants the foreground's stages first", () => {
    const both = after(together(), asks('back', 'init', [0]), asks('front', 'valueCompute', [0]));
    expect(linesOf(both)).toEqual(['grant 2', 'keep nothing for 1']);
  });

  it('puts engines on reserved lanes and of finished jobs to sleep', () => {
    expect(linesOf(after(together(), { kind: 'laneReserved', lane: 0 }))).toEqual([
      'sleep back on 0',
      'sleep front on 0',
    ]);
    expect(linesOf(after(together(), { kind: 'jobFinished', job: 'back' }))).toEqual(['sleep back on 0']);
  });

  it('is sound over random worlds', () => {
    expectSoundOverRandomWorlds(policy);
  });
});
