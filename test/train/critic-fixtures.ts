import { runProgram } from '#src/gpu/slice-encoder.js';
import { at } from '#src/lib/assert.js';
import type { Random } from '#src/lib/prng.js';
import type { ModelConfig } from '#src/model/config.js';
import type { ValueSequence } from '#src/train/batch.js';
import { criticLayout } from '#src/train/critic-layout.js';
import { Critic } from '#src/train/critic.js';
import type { TrainerOptions } from '#src/train/trainer.js';
import type { TestGpu } from '../helpers/gpu.js';
import { criticValues } from '../oracle/critic.js';
import { awkwardConfig, randomParams, randomTokens, randomVector } from '../oracle/fixtures.js';
import { fromBuckets, toBuckets } from '../oracle/params.js';
import { ADAMW, BUCKET_BYTES, type Model } from './fixtures.js';

export const VALUE_CLIP = 0.2;

export function awkwardCritic(random: Random, tied: boolean): Model {
  return randomCritic(awkwardConfig(random, tied), random, BUCKET_BYTES);
}

/** A critic whose value head is not zero, so that every layer has a gradient. */
export function randomCritic(config: ModelConfig, random: Random, bucketBytes: number): Model {
  const layout = criticLayout(config, bucketBytes);
  const params = randomParams(config, random)
    .set(
      'valueHead',
      randomVector(random, config.hiddenSize).map((w) => w / Math.sqrt(config.hiddenSize)),
    )
    .set('valueBias', Float64Array.of(0.5 * random.normal()));
  const buckets = toBuckets(layout, params);
  return { config, layout, buckets, params: fromBuckets(layout, buckets) };
}

export async function makeCritic(
  { gpu, kernels }: TestGpu,
  { config, layout, buckets }: Model,
  options: Partial<TrainerOptions> = {},
): Promise<Critic> {
  const critic = new Critic(kernels, config, layout, {
    rowsMax: 64,
    contextTokensMax: config.contextTokensMax,
    adamw: ADAMW,
    ...options,
  });
  await runProgram(gpu, critic.loadWeights(buckets));
  return critic;
}

export type ValueRollout = ValueSequence & { readonly tokens: number[] };

/**
 * Sequences as a critic gets them. It has moved since their values were made: some values lie inside the clip range
 * and some beyond either end, but never near a corner, where float32 and float64 may fall on different sides.
 */
export function valueRollouts(
  random: Random,
  { config, params }: Pick<Model, 'config' | 'params'>,
  lengths: readonly number[],
): ValueRollout[] {
  return lengths.map((length) => {
    const tokens = randomTokens(random, length, config.vocabSize);
    const oldValues = Float32Array.from(
      criticValues(config, params, tokens),
      (value) => value + random.pick([0, -0.1, 0.1, -0.5, 0.5]),
    );
    const prompt = random.int(0, Math.floor(length / 3));
    const weights = Float32Array.from({ length }, (_, t) => {
      const masked = t < prompt || t + 1 === length || random.uniform() < 0.15;
      return masked ? 0 : 0.01 + 0.02 * random.uniform();
    });
    return { tokens, weights, oldValues, returns: oldValues.map((value) => value + random.normal()) };
  });
}

/** What the reference gives where a position has a weight, and 0 elsewhere. */
export function wantedValues({ config, params }: Model, { tokens, weights }: ValueRollout): Float64Array {
  return criticValues(config, params, tokens).map((value, t) => (at(weights, t) === 0 ? 0 : value));
}
