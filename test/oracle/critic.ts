import { assert, at } from '#src/lib/assert.js';
import type { ModelConfig } from '#src/model/config.js';
import { accumulate, values, type Params } from './params.js';
import { backward, forward, type ForwardCache } from './transformer.js';

/** Position t has values[t], and returns, old values and a weight to go with it; weight 0 masks it out. */
export interface ValueTarget {
  readonly tokens: readonly number[];
  readonly weights: ArrayLike<number>;
  readonly returns: ArrayLike<number>;
  readonly oldValues: ArrayLike<number>;
}

export interface CriticGradients {
  readonly loss: number;
  readonly gradients: Params;
  /** Positions with a weight, and how many of them the clip left without a gradient. */
  readonly counted: number;
  readonly clipped: number;
}

export interface ValueLoss {
  readonly loss: number;
  /** d(loss)/d(value). */
  readonly slope: number;
  readonly clipped: boolean;
}

/** PPO's clipped value loss of one position: weight · ½ max((v − R)², (clamp(v, old ± clip) − R)²). */
export function valueLoss(
  value: number,
  target: { readonly weight: number; readonly wanted: number; readonly oldValue: number },
  clip: number,
): ValueLoss {
  const { weight, wanted, oldValue } = target;
  const bounded = Math.min(Math.max(value, oldValue - clip), oldValue + clip);
  const [free, held] = [(value - wanted) ** 2, (bounded - wanted) ** 2];
  const clipped = held > free;
  return {
    loss: (weight * Math.max(free, held)) / 2,
    slope: clipped ? 0 : weight * (value - wanted),
    clipped,
  };
}

/** The value of every position of a sequence. `params` are of a critic's layout. */
export function criticValues(config: ModelConfig, params: Params, tokens: readonly number[]): Float64Array {
  return run(config, params, tokens).values;
}

/** Loss and gradients of a batch: sequences never see each other, their gradients add up. */
export function criticGradients(
  config: ModelConfig,
  params: Params,
  batch: readonly ValueTarget[],
  clip: number,
): CriticGradients {
  const gradients: Params = new Map(
    [...params].map(([name, { length }]) => [name, new Float64Array(length)]),
  );
  let [loss, counted, clipped] = [0, 0, 0];
  for (const { tokens, weights, returns, oldValues } of batch) {
    const { values: found, cache } = run(config, params, tokens);
    const slopes = found.map((value, t) => {
      const weight = at(weights, t);
      if (weight === 0) return 0;
      const target = { weight, wanted: at(returns, t), oldValue: at(oldValues, t) };
      const token = valueLoss(value, target, clip);
      loss += token.loss;
      counted++;
      if (token.clipped) clipped++;
      return token.slope;
    });
    accumulate(gradients, gradientsOf(config, params, cache, slopes));
  }
  return { loss, gradients, counted, clipped };
}

/** A value head is an output head of which one row counts: the transformer's reference serves as it is. */
function asPolicy(config: ModelConfig, params: Params): { config: ModelConfig; params: Params } {
  const { hiddenSize, vocabSize } = config;
  const head = new Float64Array(vocabSize * hiddenSize);
  head.set(values(params, 'valueHead', hiddenSize));
  return { config: { ...config, tieWordEmbeddings: false }, params: new Map(params).set('head', head) };
}

function run(
  config: ModelConfig,
  params: Params,
  tokens: readonly number[],
): { values: Float64Array; cache: ForwardCache } {
  const policy = asPolicy(config, params);
  const { logits, cache } = forward(policy.config, policy.params, tokens);
  const bias = at(values(params, 'valueBias', 1), 0);
  const found = Float64Array.from(tokens, (_, t) => at(logits, t * config.vocabSize) + bias);
  return { values: found, cache };
}

function gradientsOf(config: ModelConfig, params: Params, cache: ForwardCache, slopes: Float64Array): Params {
  const policy = asPolicy(config, params);
  const dLogits = new Float64Array(slopes.length * config.vocabSize);
  slopes.forEach((slope, t) => (dLogits[t * config.vocabSize] = slope));
  const gradients = backward(policy.config, policy.params, cache, dLogits);
  const head = gradients.get('head');
  assert(head !== undefined, 'an untied model has a head');
  gradients.delete('head');
  gradients.set('valueHead', head.slice(0, config.hiddenSize));
  return gradients.set('valueBias', Float64Array.of(slopes.reduce((sum, slope) => sum + slope, 0)));
}
