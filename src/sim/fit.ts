import { nearestRank } from '../telemetry/quantiles.js';
import type { LinearCost } from './cost-model.js';

/**
 * Least squares of `ms + msPerUnit · amount`, both at least 0. Pairs are formed in order; where the amounts hardly
 * differ, all is put down to the amount.
 */
export function fit(amounts: readonly number[], times: readonly number[]): LinearCost {
  const count = Math.min(amounts.length, times.length);
  const xs = amounts.slice(0, count);
  const ys = times.slice(0, count);
  const meanX = xs.reduce((sum, x) => sum + x, 0) / count;
  const meanY = ys.reduce((sum, y) => sum + y, 0) / count;
  const spread = xs.reduce((sum, x) => sum + (x - meanX) ** 2, 0);
  const slope = xs.reduce((sum, x, i) => sum + (x - meanX) * ((ys[i] ?? 0) - meanY), 0) / spread;
  const intercept = meanY - slope * meanX;
  const isUsable = spread > 1e-4 * count * meanX ** 2 && slope >= 0 && intercept >= 0;
  return isUsable ? { ms: intercept, msPerUnit: slope } : { ms: 0, msPerUnit: meanX > 0 ? meanY / meanX : 0 };
}

/** Null of none. */
export function median(samples: readonly number[]): number | null {
  return nearestRank(Float64Array.from(samples).sort(), 0.5);
}
