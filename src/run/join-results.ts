import type { TrainResult } from '../train/results.js';

/** Mean over all tokens of what each result has as its own mean. */
export function tokenMean<T extends { readonly tokens: number }>(
  results: readonly T[],
  of: (result: T) => number,
): number {
  const tokens = results.reduce((sum, result) => sum + result.tokens, 0);
  return results.reduce((sum, result) => sum + of(result) * result.tokens, 0) / tokens;
}

/** One result for a step of several updates: means over all tokens, the largest norm. */
export function joinResults(results: readonly TrainResult[]): TrainResult {
  const tokens = results.reduce((sum, result) => sum + result.tokens, 0);
  const mean = (of: (result: TrainResult) => number): number => tokenMean(results, of);
  return {
    tokens,
    loss: mean(({ loss }) => loss),
    meanRatio: mean(({ meanRatio }) => meanRatio),
    maxRatio: Math.max(...results.map(({ maxRatio }) => maxRatio)),
    clipFraction: mean(({ clipFraction }) => clipFraction),
    kl: mean(({ kl }) => kl),
    entropy: mean(({ entropy }) => entropy),
    mismatch: mean(({ mismatch }) => mismatch),
    gradNorm: Math.max(...results.map(({ gradNorm }) => gradNorm)),
    skipped: results.every(({ skipped }) => skipped),
    logprobs: results.flatMap(({ logprobs }) => logprobs),
  };
}
