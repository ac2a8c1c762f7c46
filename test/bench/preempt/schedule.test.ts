import { describe, expect, it } from 'vitest';
import { cellPlans, FULL_GRID, QUICK_GRID } from '#src/bench/preempt/grid.js';
import { roundOf, roundsFor, TimeBudget } from '#src/bench/preempt/schedule.js';
import { Random } from '#src/lib/prng.js';

describe('a round', () => {
  it('begins with both baselines, has every cell once, and low priority alone once more among them', () => {
    const plans = cellPlans(FULL_GRID);
    for (let seed = 0; seed < 20; seed++) {
      const turns = roundOf(plans, new Random(seed));
      const label = `seed ${seed}`;
      expect(
        turns.slice(0, 2).map(({ kind }) => kind),
        label,
      ).toEqual(['unchunked', 'solo']);
      const cells = turns.flatMap((turn) => (turn.kind === 'cell' ? [turn.plan] : []));
      expect(new Set(cells), label).toEqual(new Set(plans));
      expect(cells, label).toHaveLength(plans.length);
      expect(
        turns.findLastIndex(({ kind }) => kind === 'unchunked'),
        label,
      ).toBe(2 + plans.length / 2);
    }
  });

  it('comes in another order each time, the same for the same seed', () => {
    const plans = cellPlans(FULL_GRID);
    const random = new Random(1);
    const first = roundOf(plans, random);
    expect(roundOf(plans, random)).not.toEqual(first);
    expect(roundOf(plans, new Random(1))).toEqual(first);
    const inOrder = roundOf(plans, null).flatMap((turn) => (turn.kind === 'cell' ? [turn.plan] : []));
    expect(inOrder).toEqual(plans);
  });
});

it('rounds are short, and few where time is', () => {
  expect([1, 100, 101, 1000, 10_000, 1_000_000].map((n) => roundsFor(n, false))).toEqual([
    1, 1, 2, 10, 100, 100,
  ]);
  expect([1, 150, 1000].map((n) => roundsFor(n, true))).toEqual([1, 2, 2]);
});

describe('a time budget', () => {
  it('shares what is left, so that one late turn takes a little from each of the others', () => {
    const turns = roundOf(cellPlans(QUICK_GRID), new Random(1));
    const budget = new TimeBudget(12_000, turns);
    let now = 0;
    for (const [index, turn] of turns.entries()) {
      const untilMs = budget.untilMs(turn, now);
      expect(untilMs).toBeGreaterThan(now);
      // The third takes twice the time it was given.
      now = index === 2 ? 2 * untilMs - now : untilMs;
    }
    expect(now).toBeCloseTo(12_000, 6);
  });

  it('gives nothing once time is over', () => {
    const turns = roundOf(cellPlans(QUICK_GRID), new Random(1));
    const budget = new TimeBudget(1000, turns);
    for (const turn of turns) expect(budget.untilMs(turn, 5000)).toBe(5000);
  });

  it('without an end gives all the time there is', () => {
    const turns = roundOf(cellPlans(QUICK_GRID), new Random(1));
    const budget = new TimeBudget(Infinity, turns);
    for (const turn of turns) expect(budget.untilMs(turn, 5000)).toBe(Infinity);
  });
});
