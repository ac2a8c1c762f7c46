import { describe, expect, test } from 'vitest';
import { estimate, geometricMean, jainIndex, pairedDifference } from '#src/bench/compare/statistics.js';
import { tCritical, tWithin } from '#src/bench/compare/student-t.js';
import { Random, seedKey } from '#src/lib/prng.js';

describe("Student's t", () => {
  // Two-sided 95 % and 99 % points as every printed table has them.
  test.each([
    [0.95, 1, 12.706],
    [0.95, 2, 4.303],
    [0.95, 3, 3.182],
    [0.95, 4, 2.776],
    [0.95, 5, 2.571],
    [0.95, 9, 2.262],
    [0.95, 10, 2.228],
    [0.95, 30, 2.042],
    [0.95, 49, 2.01],
    [0.95, 120, 1.98],
    [0.99, 2, 9.925],
    [0.99, 7, 3.499],
  ])('%d of it lies within, at %d degrees of freedom, ±%d', (share, freedom, expected) => {
    expect(tCritical(share, freedom)).toBeCloseTo(expected, 3);
  });

  test('in closed form for one and two degrees of freedom', () => {
    expect(tWithin(1, 1)).toBeCloseTo(0.5, 14);
    expect(tWithin(2, 2)).toBeCloseTo(2 / Math.sqrt(6), 14);
    expect(tWithin(0, 5)).toBe(0);
  });
});

describe('an estimate', () => {
  test('by hand: 1, 2, 3 has the mean 2 and reaches 4.3027 / √3 to both sides', () => {
    const { mean, ci95 } = estimate([1, 2, 3]) ?? {};
    expect(mean).toBe(2);
    expect(ci95?.[0]).toBeCloseTo(2 - 2.48414, 4);
    expect(ci95?.[1]).toBeCloseTo(2 + 2.48414, 4);
  });

  test('has no interval for one repeat, and is none without samples or with one missing', () => {
    expect(estimate([7])).toEqual({ mean: 7, ci95: null });
    expect(estimate([])).toBeNull();
    expect(estimate([1, null, 3])).toBeNull();
  });

  test('does not take the rounding of doubles for noise', () => {
    const [low = 0, high = 1] = estimate([0.1 + 0.2, 0.3, 0.3])?.ci95 ?? [];
    expect(high - low).toBe(0);
  });

  test('holds the true mean of normal draws about 95 times in 100', () => {
    const random = new Random(seedKey(11));
    const trials = 2000;
    let held = 0;
    for (let trial = 0; trial < trials; trial++) {
      const samples = Array.from({ length: 4 }, () => 10 + 3 * random.normal());
      const [low, high] = estimate(samples)?.ci95 ?? [0, 0];
      if (low <= 10 && high >= 10) held++;
    }
    // Five standard deviations of a binomial count.
    const reach = 5 * Math.sqrt(trials * 0.95 * 0.05);
    expect(Math.abs(held - 0.95 * trials), 'seed 11').toBeLessThan(reach);
  });
});

describe('a paired difference', () => {
  test('sees through what makes one repeat harder than the other', () => {
    // Unpaired, 10, 20, 30 against 9, 19, 28.5 would be noise; paired they differ by 1, 1 and 1.5.
    const { difference, relative, verdict } = pairedDifference([10, 20, 30], [9, 19, 28.5]);
    expect(difference?.mean).toBeCloseTo(3.5 / 3, 12);
    // The standard deviation is √(1/12), so ± 4.3027 · √(1/12) / √3.
    expect(difference?.ci95?.[0]).toBeCloseTo(3.5 / 3 - 0.71711, 4);
    expect(relative).toBeCloseTo(3.5 / 3 / (56.5 / 3), 12);
    expect(verdict).toBe('higher');
  });

  test.each([
    ['noise', [1, 3, 2], [2, 2, 2]],
    ['lower', [1, 1.1, 1.05], [2, 2.1, 2]],
    ['higher', [5, 5, 5], [4, 4, 4]],
    ['same', [5, 0.1 + 0.2], [5, 0.3]],
    ['unsure', [5], [4]],
    ['same', [5], [5]],
    ['unknown', [5, null], [4, 4]],
    ['unknown', [5, 5], [null, 4]],
  ] as const)('%s: %j against %j', (verdict, ours, theirs) => {
    expect(pairedDifference(ours, theirs).verdict).toBe(verdict);
  });

  test('has no ratio to nothing', () => {
    expect(pairedDifference([1, 2], [0, 0]).relative).toBeNull();
  });
});

describe("Jain's index", () => {
  test.each([
    [[1, 1, 1, 1], 1],
    [[1, 0, 0, 0], 0.25],
    // The paper's own kind of example: (1 + 2 + 3)² / (3 · 14).
    [[1, 2, 3], 36 / 42],
    [[0.5, 0.25], 0.5625 / 0.625],
  ])('of %j is %d', (shares, expected) => {
    expect(jainIndex(shares)).toBeCloseTo(expected, 14);
  });

  test('does not depend on the unit, and is none without shares', () => {
    expect(jainIndex([3, 6, 9])).toBeCloseTo(36 / 42, 14);
    expect(jainIndex([])).toBeNull();
    expect(jainIndex([0, 0])).toBeNull();
  });
});

test('the geometric mean of twice and half is 1, and of a missing ratio none', () => {
  expect(geometricMean([2, 0.5])).toBeCloseTo(1, 14);
  expect(geometricMean([1, 8])).toBeCloseTo(Math.sqrt(8), 14);
  expect(geometricMean([2, null])).toBeNull();
  expect(geometricMean([])).toBeNull();
});
