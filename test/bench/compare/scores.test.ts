import { describe, expect, test } from 'vitest';
import { jobScores, runScores } from '#src/bench/compare/scores.js';
import { job, measured } from './fixtures.js';

const SOLO = new Map([
  ['a', 5000],
  ['b', 4000],
]);
const slow = job({ id: 'b', arrivedMs: 2000, finishedMs: 18_000, tokensTrained: 450, weightBytes: 100 });
const run = measured([job(), slow]);

describe('the scores of a run', () => {
  test('by hand', () => {
    const scores = runScores(run, SOLO);
    // 900 + 450 tokens in 18 s.
    expect(scores.goodput).toBeCloseTo(75, 12);
    expect(scores.makespanS).toBe(18);
    // 10 s for 5 and 16 s for 4: √(2 · 4).
    expect(scores.slowdown).toBeCloseTo(Math.sqrt(8), 12);
    // Speeds 1/2 and 1/4: (3/4)² / (2 · 5/16).
    expect(scores.jain).toBeCloseTo(0.9, 12);
    // 8 s of work in 20 s.
    expect(scores.busy).toBeCloseTo(0.4, 12);
    expect(scores.wasted).toBeCloseTo(0.1, 12);
    expect(scores.weightBytes).toBe(600);
  });

  test('tokens that were computed again count as computed and as wasted', () => {
    const tokensWasted = { aborted: 0, expired: 0, filtered: 0, recomputed: 250 };
    expect(runScores(measured([job({ tokensWasted })]), SOLO).wasted).toBeCloseTo(0.2, 12);
  });

  test('without an end there is no makespan and no slowdown, and goodput is over the time there was', () => {
    const scores = runScores(measured([job(), { ...slow, finishedMs: null }]), SOLO);
    expect(scores).toMatchObject({ makespanS: null, slowdown: null, jain: null });
    expect(scores.goodput).toBeCloseTo(1350 / 20, 12);
  });

  test('what nobody measured is not known', () => {
    const idle = job({
      tokensDecoded: 0,
      tokensWasted: { aborted: 0, expired: 0, filtered: 0, recomputed: 0 },
    });
    expect(runScores(measured([idle], { busy: null }), SOLO)).toMatchObject({ busy: null, wasted: null });
    expect(runScores(run, new Map([['a', 5000]])).slowdown).toBeNull();
    expect(runScores(measured([job({ arrivedMs: null, finishedMs: null })]), SOLO).goodput).toBeNull();
  });
});

test('the scores of a job are over its own time, and its fairness is that of its run', () => {
  const scores = jobScores(run, slow, SOLO);
  expect(scores.goodput).toBeCloseTo(450 / 16, 12);
  expect(scores).toMatchObject({ makespanS: 16, slowdown: 4, weightBytes: 100 });
  expect(scores.jain).toBeCloseTo(0.9, 12);
  expect(scores.busy).toBeCloseTo(0.2, 12);
});
