import { assert, at } from '../../lib/assert.js';

/**
 * The formulas of "Optimizing LLM Inference: Fluid-Guided Online Scheduling with Memory Constraints" (Ao, Luo,
 * Simchi-Levi and Wang, arXiv 2504.11320). A sequence of l prompt and l' output tokens is in the cache for l' + 1
 * iterations; an iteration over K cached tokens takes d0 + d1·K.
 */
export interface LengthType {
  /** Sequences a ms. */
  readonly arrivalsPerMs: number;
  readonly promptTokens: number;
  readonly outputTokens: number;
}

export interface IterationCost {
  /** d0: of every iteration, in ms. */
  readonly ms: number;
  /** d1: on top for each token in the cache, in ms. */
  readonly msPerToken: number;
}

export interface Thresholds {
  /** ΔT: one iteration at the equilibrium, in ms. */
  readonly iterationMs: number;
  /** n_j: sequences of each type at each of its stages. */
  readonly sequences: readonly number[];
  /** M: tokens in the cache. */
  readonly kvTokens: number;
}

/** Iterations a sequence is in the cache times its mean tokens there. */
function kvTokenIterations({ promptTokens, outputTokens }: Omit<LengthType, 'arrivalsPerMs'>): number {
  return (outputTokens + 1) * (promptTokens + outputTokens / 2);
}

/**
 * Thresholds of WAIT for known lengths: ΔT = d0 / (1 − (1+ε)·d1·A), n_j = (1+ε)·λ_j·ΔT, with A the token iterations
 * that arrive in a ms. With slack 0 it is the fluid equilibrium, the least that keeps up with the arrivals.
 *
 * @param slack ε, from 0
 * @returns null where no policy can keep up
 */
export function waitThresholds(
  types: readonly LengthType[],
  cost: IterationCost,
  slack = 0,
): Thresholds | null {
  const arriving = types.reduce((sum, type) => sum + type.arrivalsPerMs * kvTokenIterations(type), 0);
  const left = 1 - (1 + slack) * cost.msPerToken * arriving;
  if (left <= 0) return null;
  const iterationMs = cost.ms / left;
  const sequences = types.map(({ arrivalsPerMs }) => (1 + slack) * arrivalsPerMs * iterationMs);
  return { iterationMs, sequences, kvTokens: waitKvTokens(types, sequences) };
}

/** M^π of WAIT: at most so many tokens are in the cache while no type has more than n_j sequences at any stage. */
export function waitKvTokens(
  types: readonly Omit<LengthType, 'arrivalsPerMs'>[],
  sequences: readonly number[],
): number {
  return types.reduce((sum, type, j) => sum + at(sequences, j) * kvTokenIterations(type), 0);
}

/** Segments of Nested WAIT: segment k ends at its boundary l'_k, with n_k sequences at each of its stages. */
export interface Nesting {
  readonly promptTokens: number;
  /** l'_1 < … < l'_m */
  readonly boundaries: readonly number[];
  /** n_1, …, n_m */
  readonly sequences: readonly number[];
}

/** Stages of segment k, its boundary's own included for the first, and the mean of the tokens sampled there. */
export function segmentStages(
  boundaries: readonly number[],
  k: number,
): { stages: number; meanTokens: number } {
  const end = at(boundaries, k);
  if (k === 0) return { stages: end + 1, meanTokens: end / 2 };
  const start = at(boundaries, k - 1);
  return { stages: end - start, meanTokens: (start + 1 + end) / 2 };
}

/** M^π of Nested WAIT without its safety buffer: Σ n_k · (l + s̄_k) · δ_k. */
export function nestedKvTokens({ promptTokens, boundaries, sequences }: Nesting): number {
  return sequences.reduce((sum, n, k) => {
    const { stages, meanTokens } = segmentStages(boundaries, k);
    return sum + n * (promptTokens + meanTokens) * stages;
  }, 0);
}

/** p_k = λ_{≥k} / λ_{≥k−1}: of those that enter segment k − 1, the share that lives to enter segment k; p_1 is 1. */
export function survivalShares(types: readonly LengthType[]): number[] {
  const ascending = types.toSorted((a, b) => a.outputTokens - b.outputTokens);
  const atLeast = ascending.map((_, k) =>
    ascending.slice(k).reduce((sum, { arrivalsPerMs }) => sum + arrivalsPerMs, 0),
  );
  return atLeast.map((rate, k) => (k === 0 ? 1 : rate / at(atLeast, k - 1)));
}

/** The conditions on the n_k: p_k < n_k / n_{k−1} < 1, and the first segment takes more than arrives in an iteration. */
export function isNestedStable(
  sequences: readonly number[],
  shares: readonly number[],
  arrivalsPerIteration: number,
): boolean {
  return sequences.every((n, k) => {
    if (k === 0) return n > arrivalsPerIteration;
    const ratio = n / at(sequences, k - 1);
    return at(shares, k) < ratio && ratio < 1;
  });
}

/**
 * θ_k > 0, the root of e^(−θ·n_k) · (1 − p + p·e^θ)^n_{k−1} = 1: how fast it becomes unlikely that survivors pile up
 * at a boundary. It is at least 8·(n_k − n_{k−1}·p) / n_{k−1}.
 *
 * @param ratio n_k / n_{k−1}, above `share` and below 1
 * @param share p_k, above 0
 */
export function boundaryDecay(ratio: number, share: number): number {
  assert(share > 0 && ratio > share && ratio < 1, `no decay for a ratio of ${ratio} and a share of ${share}`);
  // Negative from 0 to the root and positive beyond it; ln(1 − p + p·e^θ) grows like θ + ln p.
  const log = (theta: number): number => Math.log1p(share * Math.expm1(theta)) - theta * ratio;
  let low = 0;
  let high = 1;
  while (log(high) < 0) high *= 2;
  for (let halvings = 0; halvings < 60; halvings++) {
    const middle = (low + high) / 2;
    if (log(middle) < 0) low = middle;
    else high = middle;
  }
  return high;
}

/**
 * The safety buffer of Nested WAIT, in tokens: Σ_{k≥2} (l + l'_{k−1}) · (n_k + ln(m·(1 + steps) / δ) / θ_k). With
 * M^π + buffer of cache, nothing overflows in so many iterations with probability 1 − δ.
 *
 * @param steps iterations of the horizon: ζT / d0
 * @param chance δ, of an overflow
 */
export function nestedBufferTokens(
  { promptTokens, boundaries, sequences }: Nesting,
  shares: readonly number[],
  { steps, chance }: { readonly steps: number; readonly chance: number },
): number {
  const log = Math.log((sequences.length * (1 + steps)) / chance);
  return sequences.reduce((sum, n, k) => {
    if (k === 0) return 0;
    const theta = boundaryDecay(n / at(sequences, k - 1), at(shares, k));
    return sum + (promptTokens + at(boundaries, k - 1)) * (n + log / theta);
  }, 0);
}
