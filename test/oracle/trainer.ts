import { assert, at } from '#src/lib/assert.js';
import type { ModelConfig } from '#src/model/config.js';
import { paramLayout } from '#src/model/layout.js';
import { adamwStep, type AdamwHyper, type AdamwState } from './adamw.js';
import {
  crossEntropyTokenLoss,
  grpoTokenLoss,
  type GrpoHyper,
  type TokenLoss,
  type TokenMetrics,
} from './loss.js';
import { accumulate, zeroParams, type Params } from './params.js';
import type { SamplingParams } from './sampling.js';
import { backward, forward, type ForwardCache } from './transformer.js';

export interface SupervisedObjective {
  readonly kind: 'supervised';
}

export interface GrpoObjective {
  readonly kind: 'grpo';
  readonly advantage: number;
  /** Indexed as the weights are; entries of weight 0 are not read. */
  readonly oldLogprobs: ArrayLike<number>;
  readonly refLogprobs: ArrayLike<number> | null;
  readonly sampling: SamplingParams;
}

/** Position t predicts tokens[t + 1] with weights[t]; every per-position list is one shorter than `tokens`. */
export interface TrainSequence {
  readonly tokens: readonly number[];
  /** 0 masks the position out. */
  readonly weights: ArrayLike<number>;
  readonly objective: SupervisedObjective | GrpoObjective;
}

export interface TrainHyper {
  readonly grpo: GrpoHyper;
  readonly adamw: AdamwHyper;
}

export interface BatchGradients {
  /** Summed over all tokens; the weights hold any normaliser. */
  readonly loss: number;
  readonly gradients: Params;
  /** For each sequence and position; null where the weight is 0. */
  readonly metrics: readonly (TokenMetrics | null)[][];
}

export interface TrainResult extends BatchGradients {
  readonly params: Params;
  readonly state: AdamwState;
  /** Before clipping. */
  readonly gradNorm: number;
}

/** What a rollout records, with one entry for each token from `targetStart` on. */
export interface RolloutRecord {
  readonly tokens: readonly number[];
  /** Index of the first sampled token; at least 1, since the first token has nothing to predict it. */
  readonly targetStart: number;
  readonly weights: readonly number[];
  readonly advantage: number;
  readonly oldLogprobs: readonly number[];
  readonly refLogprobs: readonly number[] | null;
  readonly sampling: SamplingParams;
}

/** Lays a rollout's records out by position: the target at index i is predicted at position i − 1. */
export function rolloutSequence(rollout: RolloutRecord): TrainSequence {
  const { tokens, targetStart, advantage, sampling } = rollout;
  const byPosition = (records: readonly number[]): number[] => {
    const prompt = new Array<number>(targetStart - 1).fill(0);
    assert(
      records.length === tokens.length - targetStart,
      `${records.length} records for ${tokens.length} tokens`,
    );
    return [...prompt, ...records];
  };
  return {
    tokens,
    weights: byPosition(rollout.weights),
    objective: {
      kind: 'grpo',
      advantage,
      oldLogprobs: byPosition(rollout.oldLogprobs),
      refLogprobs: rollout.refLogprobs === null ? null : byPosition(rollout.refLogprobs),
      sampling,
    },
  };
}

/** Loss and gradients of a batch. Packing is a loop: sequences never see each other, their gradients add up. */
export function batchGradients(
  config: ModelConfig,
  params: Params,
  batch: readonly TrainSequence[],
  hyper: GrpoHyper,
): BatchGradients {
  const gradients = zeroParams(wholeLayout(config));
  let loss = 0;
  const metrics = batch.map((sequence) => {
    const result = sequenceLoss(config, params, sequence, hyper);
    loss += result.loss;
    accumulate(gradients, backward(config, params, result.cache, result.dLogits));
    return result.metrics;
  });
  return { loss, gradients, metrics };
}

/** One sequence's loss, and its gradient with respect to the logits [tokens, vocabulary]. */
export function sequenceLoss(
  config: ModelConfig,
  params: Params,
  sequence: TrainSequence,
  hyper: GrpoHyper,
): { loss: number; dLogits: Float64Array; cache: ForwardCache; metrics: (TokenMetrics | null)[] } {
  assert(sequence.weights.length === sequence.tokens.length - 1, 'a sequence needs one weight a position');
  const { logits, cache } = forward(config, params, sequence.tokens);
  const dLogits = new Float64Array(logits.length);
  let loss = 0;
  const metrics = Array.from(sequence.weights, (weight, position) => {
    if (weight === 0) return null;
    const start = position * config.vocabSize;
    const row = logits.subarray(start, start + config.vocabSize);
    const token = positionLoss(row, sequence, position, hyper);
    loss += token.loss;
    dLogits.set(token.dLogits, start);
    return token.metrics;
  });
  return { loss, dLogits, cache, metrics };
}

function positionLoss(
  logits: Float64Array,
  { tokens, weights, objective }: TrainSequence,
  position: number,
  hyper: GrpoHyper,
): TokenLoss {
  const token = at(tokens, position + 1);
  const weight = at(weights, position);
  if (objective.kind === 'supervised') return crossEntropyTokenLoss(logits, token, weight);
  const { advantage, oldLogprobs, refLogprobs, sampling } = objective;
  const refLogprob = refLogprobs === null ? null : at(refLogprobs, position);
  const target = { token, advantage, oldLogprob: at(oldLogprobs, position), refLogprob, weight };
  return grpoTokenLoss(logits, target, sampling, hyper);
}

/** One optimizer step over a batch; the given parameters and state are left as they are. */
export function trainStep(
  config: ModelConfig,
  params: Params,
  state: AdamwState,
  batch: readonly TrainSequence[],
  hyper: TrainHyper,
): TrainResult {
  const computed = batchGradients(config, params, batch, hyper.grpo);
  const { tensors } = wholeLayout(config);
  return { ...computed, ...adamwStep(tensors, params, computed.gradients, state, hyper.adamw) };
}

/** The layout in one bucket: here only names, shapes and decay matter. */
function wholeLayout(config: ModelConfig) {
  return paramLayout(config, Infinity);
}
