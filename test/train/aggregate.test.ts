import { describe, expect, it } from 'vitest';
import { lossWeights, type LossAggregation } from '#src/train/aggregate.js';

const LENGTHS = [4, 0, 1, 5];

describe('lossWeights', () => {
  it('weighs every token of the batch the same (token)', () => {
    expect(lossWeights(LENGTHS, 'token', 8)).toEqual([0.1, 0, 0.1, 0.1]);
  });

  it('weighs every sequence the same (sequence)', () => {
    expect(lossWeights(LENGTHS, 'sequence', 8)).toEqual([1 / 16, 0, 1 / 4, 1 / 20]);
  });

  it('divides by what a sequence might have had (constant)', () => {
    expect(lossWeights(LENGTHS, 'constant', 8)).toEqual([1 / 32, 0, 1 / 32, 1 / 32]);
    expect(() => lossWeights(LENGTHS, 'constant', 0)).toThrow('tokensMax');
  });

  it.each<LossAggregation>(['token', 'sequence', 'constant'])(
    'gives an empty batch no weights (%s)',
    (how) => {
      expect(lossWeights([], how, 8)).toEqual([]);
      expect(lossWeights([0, 0], how, 8)).toEqual([0, 0]);
    },
  );
});
