import { assert } from '../lib/assert.js';

/** Exact quantiles of raw samples; all but `n` are null when there is no sample. */
export interface Quantiles {
  readonly n: number;
  readonly p50: number | null;
  readonly p90: number | null;
  readonly p99: number | null;
  readonly max: number | null;
}

/**
 * Quantiles by nearest rank, here and everywhere else in Offbeat: the q-quantile of n samples is the ⌈q·n⌉-th
 * smallest. It is always a value that was really measured, and with fewer than 100 samples p99 is the largest.
 */
export function quantiles(samples: Iterable<number>): Quantiles {
  const sorted = Float64Array.from(samples).sort();
  return {
    n: sorted.length,
    p50: nearestRank(sorted, 0.5),
    p90: nearestRank(sorted, 0.9),
    p99: nearestRank(sorted, 0.99),
    max: sorted.at(-1) ?? null,
  };
}

/** The ⌈q·n⌉-th smallest of ascending samples; null when there is none. */
export function nearestRank(sorted: Float64Array, q: number): number | null {
  assert(q > 0 && q <= 1, `quantile ${q} is outside (0, 1]`);
  assert(!Number.isNaN(sorted.at(-1)), 'a sample is NaN');
  // The small step back keeps a product such as 0.9 · 70 from rounding up past the whole number it is.
  return sorted[Math.ceil(q * sorted.length - 1e-9) - 1] ?? null;
}

/** The arithmetic mean; null when there is no sample. */
export function mean(samples: readonly number[]): number | null {
  return samples.length === 0 ? null : samples.reduce((sum, sample) => sum + sample, 0) / samples.length;
}
