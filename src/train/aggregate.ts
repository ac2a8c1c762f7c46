import { assert } from '../lib/assert.js';

/**
 * What one token weighs in the loss of a batch.
 * - `token`: 1 / all trained tokens of the batch (Yu et al., "DAPO", 2025).
 * - `sequence`: 1 / (sequences · tokens of its own sequence), so that every rollout counts the same (Shao et al.,
 *   "DeepSeekMath", 2024).
 * - `constant`: 1 / (sequences · tokensMax), which favours neither short nor long rollouts (Liu et al., "Dr. GRPO",
 *   2025).
 */
export type LossAggregation = 'token' | 'sequence' | 'constant';

/**
 * The weight of each trained token, one number a sequence.
 *
 * @param maskLengths Trained tokens of every sequence in the batch; a sequence of 0 gets weight 0.
 * @param tokensMax Longest completion a rollout may have; only `constant` reads it.
 */
export function lossWeights(
  maskLengths: readonly number[],
  aggregation: LossAggregation,
  tokensMax: number,
): number[] {
  const sequences = maskLengths.length;
  const tokens = maskLengths.reduce((sum, length) => sum + length, 0);
  assert(aggregation !== 'constant' || tokensMax > 0, `tokensMax is ${tokensMax}`);
  return maskLengths.map((length) => {
    assert(Number.isInteger(length) && length >= 0, `a mask of ${length} tokens`);
    if (length === 0) return 0;
    switch (aggregation) {
      case 'token':
        return 1 / tokens;
      case 'sequence':
        return 1 / (sequences * length);
      case 'constant':
        return 1 / (sequences * tokensMax);
      default:
        return aggregation satisfies never;
    }
  });
}
