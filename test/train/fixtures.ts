import type { Op, Program } from '#src/gpu/ops.js';
import type { Gpu } from '#src/gpu/device.js';
import { runProgram, SliceEncoder } from '#src/gpu/slice-encoder.js';
import { at } from '#src/lib/assert.js';
import type { Random } from '#src/lib/prng.js';
import type { ModelConfig } from '#src/model/config.js';
import { paramLayout, type Buckets, type ParamLayout } from '#src/model/layout.js';
import { supervisedSequence, type TrainSequence } from '#src/train/batch.js';
import type { Job } from '#src/train/jobs.js';
import type { AdamwOptions } from '#src/train/optimizer.js';
import { Trainer, type TrainerOptions } from '#src/train/trainer.js';
import type { TestGpu } from '../helpers/gpu.js';
import { awkwardConfig, randomParams, randomTokens } from '../oracle/fixtures.js';
import { fromBuckets, toBuckets, type Params } from '../oracle/params.js';
import { logprobForced, RAW_SAMPLING, type SamplingParams } from '../oracle/sampling.js';
import type * as oracle from '../oracle/trainer.js';
import { forward } from '../oracle/transformer.js';

/** Small enough that the parameters of the tiny models spread over several buckets. */
export const BUCKET_BYTES = 2560;

export const ADAMW: AdamwOptions = {
  beta1: 0.9,
  beta2: 0.99,
  epsilon: 1e-8,
  weightDecay: 0.1,
  gradNormMax: 1,
};

export const SAMPLINGS: readonly SamplingParams[] = [
  RAW_SAMPLING,
  { temperature: 0.7, topK: 0, topP: 1, minP: 0 },
  { temperature: 1, topK: 9, topP: 1, minP: 0 },
  { temperature: 1.3, topK: 0, topP: 0.8, minP: 0 },
  { temperature: 1, topK: 0, topP: 1, minP: 0.1 },
  { temperature: 0.8, topK: 12, topP: 0.9, minP: 0.02 },
  { temperature: 0, topK: 0, topP: 1, minP: 0 },
];

/** A model with its weights as the device holds them, and the same numbers in float64. */
export interface Model {
  readonly config: ModelConfig;
  readonly layout: ParamLayout;
  readonly buckets: Buckets;
  readonly params: Params;
}

export function awkwardModel(random: Random, tied: boolean): Model {
  return randomModel(awkwardConfig(random, tied), random, BUCKET_BYTES);
}

export function randomModel(config: ModelConfig, random: Random, bucketBytes: number): Model {
  const layout = paramLayout(config, bucketBytes);
  const buckets = toBuckets(layout, randomParams(config, random));
  return { config, layout, buckets, params: fromBuckets(layout, buckets) };
}

export async function makeTrainer(
  { gpu, kernels }: TestGpu,
  { config, layout, buckets }: Model,
  options: Partial<TrainerOptions> = {},
): Promise<Trainer> {
  const trainer = new Trainer(kernels, config, layout, {
    rowsMax: 64,
    contextTokensMax: config.contextTokensMax,
    adamw: ADAMW,
    ...options,
  });
  await runProgram(gpu, trainer.loadWeights(buckets));
  return trainer;
}

export async function runJob<T>(gpu: Gpu, job: Job<T>): Promise<T> {
  await runProgram(gpu, job.program);
  return job.result;
}

/** A submit after every op, and between any two of them one with the next op of some other work. */
export function runCutUp(gpu: Gpu, program: Program, other: () => Op): void {
  for (const op of program) {
    for (const each of [op, other()]) {
      const encoder = new SliceEncoder(gpu);
      encoder.add(each);
      encoder.submit();
    }
  }
}

/** Log-probability under the reference of predicting each next token; the last entry is 0. */
export function oracleLogprobs(
  { config, params }: Pick<Model, 'config' | 'params'>,
  tokens: readonly number[],
  sampling: SamplingParams,
): Float32Array<ArrayBuffer> {
  const { logits } = forward(config, params, tokens);
  return Float32Array.from(tokens, (_, position) => {
    if (position + 1 === tokens.length) return 0;
    const row = logits.subarray(position * config.vocabSize, (position + 1) * config.vocabSize);
    return logprobForced(row, sampling, at(tokens, position + 1));
  });
}

/** Weights of a rollout: none on a prompt of random length, and none on a masked token here and there. */
function randomWeights(random: Random, length: number): Float32Array<ArrayBuffer> {
  const prompt = random.int(0, Math.floor(length / 2));
  return Float32Array.from({ length }, (_, position) => {
    const masked = position < prompt || position + 1 === length || random.uniform() < 0.15;
    return masked ? 0 : 0.01 + 0.02 * random.uniform();
  });
}

/**
 * A rollout as the trainer gets it. The policy has moved since: ratios lie inside the clip range and beyond both of
 * its ends, but never near a corner, where float32 and float64 may fall on different sides.
 */
export function randomRollout(
  random: Random,
  model: Pick<Model, 'config' | 'params'>,
  length: number,
  sampling: SamplingParams,
): TrainSequence & { readonly tokens: number[]; readonly advantage: number } {
  const tokens = randomTokens(random, length, model.config.vocabSize);
  const logprobs = oracleLogprobs(model, tokens, sampling);
  return {
    tokens,
    weights: randomWeights(random, length),
    sampling,
    advantage: random.normal(),
    oldLogprobs: logprobs.map((logprob) => logprob + random.pick([0, -0.1, 0.1, -0.5, 0.5])),
    refLogprobs: logprobs.map((logprob) => logprob + 0.4 * random.normal()),
  };
}

export type Rollout = ReturnType<typeof randomRollout>;

/** Rollouts of these lengths, in turn under each of the sampling parameters. */
export function randomRollouts(
  random: Random,
  model: Pick<Model, 'config' | 'params'>,
  lengths: readonly number[],
): Rollout[] {
  return lengths.map((length, i) =>
    randomRollout(random, model, length, at(SAMPLINGS, i % SAMPLINGS.length)),
  );
}

/** The same tokens and weights as supervised text. */
export function supervised({ tokens, weights }: Rollout): TrainSequence {
  return supervisedSequence(tokens, weights);
}

/** A rollout as the float64 reference takes it. */
export function oracleRollout(rollout: Rollout): oracle.TrainSequence {
  const { tokens, weights, advantage, oldLogprobs, refLogprobs, sampling } = rollout;
  return {
    tokens,
    weights: weights.slice(0, -1),
    objective: { kind: 'grpo', advantage, oldLogprobs, refLogprobs, sampling },
  };
}

export function oracleSupervised({ tokens, weights }: Rollout): oracle.TrainSequence {
  return { tokens, weights: weights.slice(0, -1), objective: { kind: 'supervised' } };
}
