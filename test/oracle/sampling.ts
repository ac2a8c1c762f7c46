import { assert, at } from '#src/lib/assert.js';

/** Names and meanings follow vLLM's SamplingParams. */
export interface SamplingParams {
  /** 0 is greedy: the largest logit, the lowest index among equals. */
  readonly temperature: number;
  /** 0 is off. */
  readonly topK: number;
  /** In (0, 1]; 1 is off. */
  readonly topP: number;
  /** In [0, 1]; 0 is off. */
  readonly minP: number;
}

/** Temperature 1 and no filters: the model's own distribution. */
export const RAW_SAMPLING: SamplingParams = { temperature: 1, topK: 0, topP: 1, minP: 0 };

export interface Distribution {
  /** On logits / temperature: tokens at or above it are kept. −Infinity where nothing filters. */
  readonly threshold: number;
  readonly kept: readonly boolean[];
  /** log Σ exp(logit / temperature) over the kept tokens. */
  readonly logSumExp: number;
  /** In nats. */
  readonly entropy: number;
  /** −Infinity for a token that is not kept. */
  readonly logprob: (token: number) => number;
  /** At temperature 1 and without filters. */
  readonly rawLogprob: (token: number) => number;
}

/**
 * The distribution a token is drawn from, which is also the one the loss sees. The filters are thresholds on
 * z = logits / temperature, applied in this order, and each keeps every token that ties with the last it keeps:
 * min-p keeps z ≥ max z + ln(minP); top-k keeps z ≥ the k-th largest z of all tokens; top-p (nucleus, Holtzman et al.
 * 2020) keeps the shortest prefix, in descending order, whose share of the mass kept so far is at least topP.
 *
 * A greedy choice has no distribution of its own: at temperature 0 the log-probabilities and the entropy are those
 * of temperature 1 without filters.
 */
export function distribution(logits: ArrayLike<number>, params: SamplingParams): Distribution {
  const { z, threshold } = filtered(logits, params);
  return describe(
    logits,
    z,
    threshold,
    Array.from(z, (value) => value >= threshold),
  );
}

/**
 * The same distribution with `token` counted among the kept. A token sampled under older weights or other rounding
 * may now fall below the threshold; this keeps its log-probability finite.
 */
export function forcedDistribution(
  logits: ArrayLike<number>,
  params: SamplingParams,
  token: number,
): Distribution {
  const { z, threshold } = filtered(logits, params);
  return describe(
    logits,
    z,
    threshold,
    Array.from(z, (value, index) => value >= threshold || index === token),
  );
}

export function logprobForced(logits: ArrayLike<number>, params: SamplingParams, token: number): number {
  return forcedDistribution(logits, params, token).logprob(token);
}

/** Inverse-CDF sampling in index order over the kept tokens, with `uniform` in [0, 1). Ignores it when greedy. */
export function sample(logits: ArrayLike<number>, params: SamplingParams, uniform: number): number {
  if (params.temperature === 0) return argmax(logits);
  const { kept, logprob } = distribution(logits, params);
  let cumulative = 0;
  let last = -1;
  for (let token = 0; token < kept.length; token++) {
    const probability = Math.exp(logprob(token));
    if (probability === 0) continue;
    cumulative += probability;
    last = token;
    if (uniform < cumulative) return token;
  }
  // Rounding can leave the sum a hair under 1.
  return last;
}

/** The largest value's index, the lowest among equals. */
export function argmax(logits: ArrayLike<number>): number {
  let best = 0;
  for (let token = 1; token < logits.length; token++) if (at(logits, token) > at(logits, best)) best = token;
  return best;
}

/** What divides the logits: greedy counts as 1. */
export function effectiveTemperature({ temperature }: SamplingParams): number {
  return temperature === 0 ? 1 : temperature;
}

function filtered(logits: ArrayLike<number>, params: SamplingParams): { z: Float64Array; threshold: number } {
  checkParams(params);
  for (let token = 0; token < logits.length; token++) {
    const logit = at(logits, token);
    assert(!Number.isNaN(logit) && logit !== Infinity, `logit ${token} is ${logit}`);
  }
  const z = Float64Array.from(logits).map((logit) => logit / effectiveTemperature(params));
  return { z, threshold: filterThreshold(z, params.temperature === 0 ? RAW_SAMPLING : params) };
}

function filterThreshold(z: Float64Array, { topK, topP, minP }: SamplingParams): number {
  const descending = z.toSorted().reverse();
  // ln(0) is −Infinity, which keeps everything.
  let threshold = at(descending, 0) + Math.log(minP);
  if (topK > 0 && topK <= z.length) threshold = Math.max(threshold, at(descending, topK - 1));
  if (topP === 1) return threshold;
  const survivors = descending.filter((value) => value >= threshold);
  return Math.max(threshold, nucleusThreshold(survivors, topP));
}

function nucleusThreshold(descending: Float64Array, topP: number): number {
  const total = logSumExp(descending);
  let mass = 0;
  for (const value of descending) {
    mass += Math.exp(value - total);
    if (mass >= topP) return value;
  }
  return at(descending, descending.length - 1);
}

function describe(
  logits: ArrayLike<number>,
  z: Float64Array,
  threshold: number,
  kept: readonly boolean[],
): Distribution {
  const total = logSumExp(z.filter((_, token) => kept[token]));
  const rawTotal = logSumExp(Float64Array.from(logits));
  const logprob = (token: number) => (at(kept, token) ? at(z, token) - total : -Infinity);
  let entropy = 0;
  for (let token = 0; token < z.length; token++) {
    const probability = Math.exp(logprob(token));
    if (probability > 0) entropy -= probability * logprob(token);
  }
  return {
    threshold,
    kept,
    logSumExp: total,
    entropy,
    logprob,
    rawLogprob: (token) => at(logits, token) - rawTotal,
  };
}

/** log Σ exp(values), shifted by the largest. */
export function logSumExp(values: Float64Array): number {
  const largest = values.reduce((a, b) => Math.max(a, b), -Infinity);
  return largest + Math.log(values.reduce((total, value) => total + Math.exp(value - largest), 0));
}

function checkParams({ temperature, topK, topP, minP }: SamplingParams): void {
  assert(temperature >= 0, `temperature ${temperature}`);
  assert(Number.isInteger(topK) && topK >= 0, `topK ${topK}`);
  assert(topP > 0 && topP <= 1, `topP ${topP}`);
  assert(minP >= 0 && minP <= 1, `minP ${minP}`);
}
