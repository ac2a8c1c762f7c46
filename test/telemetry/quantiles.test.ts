import { describe, expect, test } from 'vitest';
import { Random } from '#src/lib/prng.js';
import { mean, quantiles } from '#src/telemetry/quantiles.js';

describe('quantiles', () => {
  test('of nothing are null', () => {
    expect(quantiles([])).toEqual({ n: 0, p50: null, p90: null, p99: null, max: null });
    expect(mean([])).toBeNull();
  });

  test('of one sample are that sample', () => {
    expect(quantiles([3.5])).toEqual({ n: 1, p50: 3.5, p90: 3.5, p99: 3.5, max: 3.5 });
  });

  test('of 1…100 are their ranks', () => {
    const samples = Array.from({ length: 100 }, (_, index) => 100 - index);
    expect(quantiles(samples)).toEqual({ n: 100, p50: 50, p90: 90, p99: 99, max: 100 });
    expect(mean(samples)).toBe(50.5);
  });

  test('sort by value, not by text, and leave the samples alone', () => {
    const samples = [10, 9, 100, -1];
    expect(quantiles(samples)).toEqual({ n: 4, p50: 9, p90: 100, p99: 100, max: 100 });
    expect(samples).toEqual([10, 9, 100, -1]);
  });

  test('are the smallest sample that covers its share of the samples, by the definition', () => {
    for (let seed = 0; seed < 200; seed++) {
      const random = new Random(seed);
      const samples = Array.from({ length: random.int(1, 250) }, () => random.int(-50, 50));
      const result = quantiles(samples);
      for (const [name, percent] of [
        ['p50', 50],
        ['p90', 90],
        ['p99', 99],
      ] as const) {
        const covers = (limit: number): boolean =>
          100 * samples.filter((sample) => sample <= limit).length >= percent * samples.length;
        const expected = Math.min(...samples.filter(covers));
        expect(result[name], `seed ${seed}, ${name}`).toBe(expected);
      }
      expect(result.max, `seed ${seed}`).toBe(Math.max(...samples));
    }
  });

  test('of a NaN are refused', () => {
    expect(() => quantiles([1, NaN, 2])).toThrow('NaN');
  });
});
