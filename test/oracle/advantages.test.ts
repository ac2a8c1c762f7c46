import { describe, expect, it } from 'vitest';
import { groupAdvantages } from './advantages.js';
import { expectClose } from './compare.js';

describe('groupAdvantages', () => {
  it('divides by the sample standard deviation', () => {
    // Mean 2, squares 4 + 0 + 4 over n − 1 = 2: a deviation of 2.
    expectClose(groupAdvantages([0, 2, 4], 'std'), [-2 / 2.0001, 0, 2 / 2.0001], 1e-15, 'std');
  });

  it('only centres in the mean mode', () => {
    expect(groupAdvantages([0, 2, 7], 'mean')).toEqual([-3, -1, 4]);
  });

  it.each(['std', 'mean'] as const)('gives exact zeros to equal rewards (%s)', (mode) => {
    // The mean of three times 0.1 is not 0.1 in floating point.
    expect(groupAdvantages([0.1, 0.1, 0.1], mode)).toEqual([0, 0, 0]);
    expect(groupAdvantages([3], mode)).toEqual([0]);
    expect(groupAdvantages([], mode)).toEqual([]);
  });
});
