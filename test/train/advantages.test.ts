import { describe, expect, it } from 'vitest';
import { Random } from '#src/lib/prng.js';
import { groupAdvantages } from '#src/train/advantages.js';

describe('groupAdvantages', () => {
  it('divides by the sample standard deviation (std)', () => {
    // Mean 2, squared distances 1 + 0 + 1 over n − 1 = 2: a deviation of 1.
    const [low, middle, high] = groupAdvantages([1, 2, 3], 'std');
    expect(low).toBeCloseTo(-1 / 1.0001, 12);
    expect(middle).toBe(0);
    expect(high).toBeCloseTo(1 / 1.0001, 12);
  });

  it('only subtracts the mean (mean)', () => {
    expect(groupAdvantages([1, 2, 6], 'mean')).toEqual([-2, -1, 3]);
  });

  it.each(['std', 'mean'] as const)('is exactly 0 where all rewards are equal (%s)', (scale) => {
    expect(groupAdvantages([0.1, 0.1, 0.1], scale)).toEqual([0, 0, 0]);
    expect(groupAdvantages([0.7], scale)).toEqual([0]);
    expect(groupAdvantages([], scale)).toEqual([]);
  });

  it.each([1, 2, 3])('sums to 0, keeps the order and has deviation 1 (seed %i)', (seed) => {
    const random = new Random(seed);
    const rewards = Array.from({ length: random.int(2, 16) }, () => 100 * random.normal());
    const advantages = groupAdvantages(rewards, 'std');
    const label = `seed ${seed}`;
    const squares = advantages.reduce((sum, advantage) => sum + advantage ** 2, 0);
    expect(
      advantages.reduce((sum, advantage) => sum + advantage, 0),
      label,
    ).toBeCloseTo(0, 10);
    expect(Math.sqrt(squares / (rewards.length - 1)), label).toBeCloseTo(1, 4);
    const order = (values: number[]): number[] =>
      values.map((_, i) => i).sort((a, b) => values[a]! - values[b]!);
    expect(order(advantages), label).toEqual(order(rewards));
  });
});
