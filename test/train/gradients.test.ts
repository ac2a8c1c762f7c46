import { describe, expect, it } from 'vitest';
import { whole } from '#src/kernels/launch.js';
import { at } from '#src/lib/assert.js';
import { Random } from '#src/lib/prng.js';
import { packMicroBatches } from '#src/train/batch.js';
import type { Objective } from '#src/train/loss-head.js';
import type { TrainResult } from '#src/train/results.js';
import type { Trainer } from '#src/train/trainer.js';
import { readF32, useGpu } from '../helpers/gpu.js';
import { globalNorm } from '../oracle/adamw.js';
import { expectClose } from '../oracle/compare.js';
import { fromBuckets, type Params } from '../oracle/params.js';
import { batchGradients, type BatchGradients } from '../oracle/trainer.js';
import {
  awkwardModel,
  makeTrainer,
  oracleRollout,
  oracleSupervised,
  randomModel,
  randomRollouts,
  runJob,
  supervised,
  type Rollout,
} from './fixtures.js';

const device = useGpu();
const CASES = [1, 2, 3].flatMap((seed) => [true, false].map((tied) => ({ seed, tied })));
/** Rows on both sides of a cache block's edge; one token has nothing to predict. */
const LENGTHS = [1, 2, 40, 17, 16, 5, 33, 3, 18, 24, 2, 31];
const CLIP = { clipLow: 0.2, clipHigh: 0.3 };
const TOLERANCE = 1e-5;

async function gradientsOf(trainer: Trainer): Promise<Params> {
  const buckets = await Promise.all(trainer.gradients.buckets.map((bucket) => readF32(device.gpu, bucket)));
  return fromBuckets(trainer.gradients.layout, buckets);
}

function expectGradients(actual: Params, expected: Params, label: string): void {
  expect([...actual.keys()]).toEqual([...expected.keys()]);
  for (const [name, gradient] of expected) {
    expectClose(actual.get(name) ?? [], gradient, TOLERANCE, `${label}: gradient of ${name}`);
  }
}

/** Loss and metrics, as the trainer reports them, from the reference's per-token numbers. */
function expectMetrics(
  result: TrainResult,
  expected: BatchGradients,
  batch: readonly Rollout[],
  label: string,
): void {
  const tokens = expected.metrics.flat().filter((token) => token !== null);
  const mean = (values: number[]): number => values.reduce((sum, value) => sum + value, 0) / tokens.length;
  const ratios = tokens.map(({ ratio }) => ratio);
  const close = (name: string, actual: number, wanted: number): void =>
    expectClose([actual], [wanted], TOLERANCE, `${label}: ${name}`);
  expect(result.tokens).toBe(tokens.length);
  close('loss', result.loss, expected.loss);
  close('mean ratio', result.meanRatio, mean(ratios));
  close('max ratio', result.maxRatio, Math.max(...ratios));
  close('clip fraction', result.clipFraction, mean(tokens.map(({ clipped }) => Number(clipped))));
  close('kl', result.kl, mean(tokens.map(({ kl }) => kl)));
  close('entropy', result.entropy, mean(tokens.map(({ entropy }) => entropy)));
  close('gradient norm', result.gradNorm, globalNorm(expected.gradients));
  expect(result.skipped).toBe(false);
  batch.forEach(({ weights }, sequence) => {
    const wanted = Array.from(weights, (_, position) => expected.metrics[sequence]?.[position]?.logprob ?? 0);
    expectClose(
      at(result.logprobs, sequence),
      wanted,
      TOLERANCE,
      `${label}: log-probabilities of ${sequence}`,
    );
  });
}

describe('gradients of every parameter, over several packed micro-batches', () => {
  it.each(CASES)(
    'GRPO with clipping, KL and filters agrees with float64 ($seed, tied $tied)',
    async ({ seed, tied }) => {
      const random = new Random(seed);
      const model = awkwardModel(random, tied);
      const batch = randomRollouts(random, model, LENGTHS);
      const trainer = await makeTrainer(device, model);
      expect(packMicroBatches(batch, 64, 8).length).toBeGreaterThan(2);
      expect(model.layout.bucketElements.length).toBeGreaterThan(1);
      const objective: Objective = { algorithm: 'grpo', ...CLIP, klCoefficient: 0.05 };
      const result = await runJob(device.gpu, trainer.step(batch, whole, { objective, learningRate: 0 }));
      const hyper = { ...CLIP, klBeta: 0.05 };
      const expected = batchGradients(model.config, model.params, batch.map(oracleRollout), hyper);
      expectGradients(await gradientsOf(trainer), expected.gradients, `seed ${seed}`);
      expectMetrics(result, expected, batch, `seed ${seed}`);
      const distance = batch.flatMap(({ weights, oldLogprobs }, sequence) =>
        [...weights].flatMap((weight, position) =>
          weight === 0
            ? []
            : [Math.abs(at(at(result.logprobs, sequence), position) - at(oldLogprobs, position))],
        ),
      );
      expect(result.mismatch).toBeCloseTo(distance.reduce((a, b) => a + b, 0) / distance.length, 10);
      trainer.destroy();
    },
  );

  it.each(CASES)('cross-entropy agrees with float64 ($seed, tied $tied)', async ({ seed, tied }) => {
    const random = new Random(seed).fork('supervised');
    const model = awkwardModel(random, tied);
    const batch = randomRollouts(random, model, LENGTHS);
    const trainer = await makeTrainer(device, model);
    const objective: Objective = { algorithm: 'crossEntropy' };
    const job = trainer.step(batch.map(supervised), whole, { objective, learningRate: 0 });
    const result = await runJob(device.gpu, job);
    const hyper = { ...CLIP, klBeta: 0 };
    const expected = batchGradients(model.config, model.params, batch.map(oracleSupervised), hyper);
    expectGradients(await gradientsOf(trainer), expected.gradients, `seed ${seed}`);
    expectMetrics(result, expected, batch, `seed ${seed}`);
    expect(result.mismatch).toBe(0);
    trainer.destroy();
  });

  it('holds for vectors longer than a workgroup shares among 8 threads', async () => {
    const random = new Random(4);
    const small = awkwardModel(random, false).config;
    const config = {
      ...small,
      layers: 1,
      hiddenSize: 520,
      intermediateSize: 70,
      vocabSize: 601,
      headDim: 34,
    };
    const model = randomModel(config, random, 2 ** 22);
    const batch = randomRollouts(random, model, [20, 9]);
    const trainer = await makeTrainer(device, model);
    const objective: Objective = { algorithm: 'grpo', ...CLIP, klCoefficient: 0.05 };
    await runJob(device.gpu, trainer.step(batch, whole, { objective, learningRate: 0 }));
    const hyper = { ...CLIP, klBeta: 0.05 };
    const { gradients } = batchGradients(config, model.params, batch.map(oracleRollout), hyper);
    expectGradients(await gradientsOf(trainer), gradients, 'seed 4');
    trainer.destroy();
  });
});

it('makes logits a stretch at a time when the vocabulary is large, to the same gradients', async () => {
  const random = new Random(5);
  const small = awkwardModel(random, true).config;
  const config = { ...small, layers: 1, hiddenSize: 5, vocabSize: 140_001, contextTokensMax: 96 };
  const model = randomModel(config, random, 2 ** 24);
  // 32 MiB of logits are 59 rows of this vocabulary.
  const tokens = Array.from({ length: 72 }, () => random.int(0, config.vocabSize - 1));
  const text = (from: number, to: number): Rollout['weights'] =>
    Float32Array.from(tokens, (_, position) => (position >= from && position < to ? 0.01 : 0));
  const objective: Objective = { algorithm: 'crossEntropy' };
  const gradients: Params[] = [];
  for (const parts of [[text(0, 70)], [text(0, 30), text(30, 70)]]) {
    const trainer = await makeTrainer(device, model, { rowsMax: 72 });
    const batch = parts.map((weights) => supervised({ tokens, weights } as Rollout));
    await runJob(device.gpu, trainer.step(batch, whole, { objective, learningRate: 0 }));
    gradients.push(await gradientsOf(trainer));
    trainer.destroy();
  }
  expectGradients(at(gradients, 0), at(gradients, 1), 'two stretches and two micro-batches');
});
