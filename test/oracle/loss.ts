import { assert } from '#src/lib/assert.js';
import {
  RAW_SAMPLING,
  distribution,
  effectiveTemperature,
  forcedDistribution,
  type SamplingParams,
} from './sampling.js';

export interface TokenMetrics {
  /** Of the target, under the distribution the loss uses. */
  readonly logprob: number;
  /** exp(logprob − oldLogprob); 1 for supervised targets. */
  readonly ratio: number;
  /** True where the clip binds, so that the policy term has no gradient. */
  readonly clipped: boolean;
  /** The k3 estimate of KL(policy ‖ reference); 0 without a reference. */
  readonly kl: number;
  /** Of the sampling distribution, in nats; the target is not forced into it. */
  readonly entropy: number;
}

export interface TokenLoss {
  /** Times the weight. */
  readonly loss: number;
  /** Gradient of `loss` with respect to the logits, [vocabulary]. */
  readonly dLogits: Float64Array;
  readonly metrics: TokenMetrics;
}

export interface GrpoTarget {
  readonly token: number;
  readonly advantage: number;
  readonly oldLogprob: number;
  /** Null where there is no reference model. */
  readonly refLogprob: number | null;
  /** Mask and normaliser in one. */
  readonly weight: number;
}

export interface GrpoHyper {
  /** The ratio is clipped to [1 − clipLow, 1 + clipHigh]. */
  readonly clipLow: number;
  readonly clipHigh: number;
  readonly klBeta: number;
}

/**
 * GRPO's loss of one token (Shao et al. 2024, with the two-sided clip range of DAPO, Yu et al. 2025):
 * weight · (−min(ratio · A, clip(ratio) · A) + klBeta · k3), where k3 = exp(ref − lp) − (ref − lp) − 1 is Schulman's
 * estimator ("Approximating KL divergence", 2020). `lp` is the token's log-probability under the sampling
 * distribution with the token forced in; the gradient takes the kept set as constant.
 */
export function grpoTokenLoss(
  logits: ArrayLike<number>,
  target: GrpoTarget,
  sampling: SamplingParams,
  hyper: GrpoHyper,
): TokenLoss {
  const { token, advantage, weight } = target;
  assert(hyper.klBeta === 0 || target.refLogprob !== null, 'a KL term needs reference log-probabilities');
  const forced = forcedDistribution(logits, sampling, token);
  const logprob = forced.logprob(token);
  const ratio = Math.exp(logprob - target.oldLogprob);
  const clippedRatio = Math.min(Math.max(ratio, 1 - hyper.clipLow), 1 + hyper.clipHigh);
  const clipped = clippedRatio * advantage < ratio * advantage;
  const policyLoss = -Math.min(ratio * advantage, clippedRatio * advantage);
  const dPolicyLoss = clipped ? 0 : -ratio * advantage;
  // Without a reference the policy stands in for it, and both terms vanish.
  const refGap = (target.refLogprob ?? logprob) - logprob;
  const kl = Math.exp(refGap) - refGap - 1;
  const dKl = 1 - Math.exp(refGap);
  const dLogprob = weight * (dPolicyLoss + hyper.klBeta * dKl);
  const dLogits = new Float64Array(logits.length);
  forced.kept.forEach((kept, index) => {
    const probability = kept ? Math.exp(forced.logprob(index)) : 0;
    dLogits[index] = (dLogprob * ((index === token ? 1 : 0) - probability)) / effectiveTemperature(sampling);
  });
  const { entropy } = distribution(logits, sampling);
  return {
    loss: weight * (policyLoss + hyper.klBeta * kl),
    dLogits,
    metrics: { logprob, ratio, clipped, kl, entropy },
  };
}

/** Supervised cross-entropy of one token: −weight · log softmax(logits)[target], temperature 1 and no filters. */
export function crossEntropyTokenLoss(logits: ArrayLike<number>, target: number, weight: number): TokenLoss {
  const { logprob, entropy } = distribution(logits, RAW_SAMPLING);
  const dLogits = Float64Array.from(
    { length: logits.length },
    (_, index) => weight * (Math.exp(logprob(index)) - (index === target ? 1 : 0)),
  );
  const metrics = { logprob: logprob(target), ratio: 1, clipped: false, kl: 0, entropy };
  return { loss: -weight * logprob(target), dLogits, metrics };
}
