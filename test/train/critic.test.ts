import { describe, expect, it } from 'vitest';
import { whole } from '#src/kernels/launch.js';
import { at } from '#src/lib/assert.js';
import { Random } from '#src/lib/prng.js';
import { packMicroBatches } from '#src/train/batch.js';
import type { Critic } from '#src/train/critic.js';
import type { CriticResult } from '#src/train/critic-results.js';
import { expectSameBits, pieces, shuffled } from '../helpers/arrays.js';
import { readF32, useGpu } from '../helpers/gpu.js';
import { adamwStep, globalNorm, initialAdamwState } from '../oracle/adamw.js';
import { expectClose } from '../oracle/compare.js';
import { criticGradients, type CriticGradients } from '../oracle/critic.js';
import { awkwardConfig } from '../oracle/fixtures.js';
import { fromBuckets, values as tensorValues, type Params } from '../oracle/params.js';
import {
  awkwardCritic,
  makeCritic,
  randomCritic,
  VALUE_CLIP,
  valueRollouts,
  wantedValues,
  type ValueRollout,
} from './critic-fixtures.js';
import { ADAMW, runJob, type Model } from './fixtures.js';

const device = useGpu();
const CASES = [1, 2, 3].flatMap((seed) => [true, false].map((tied) => ({ seed, tied })));
/** Rows on both sides of a cache block's edge; one token has nothing to value. */
const LENGTHS = [1, 2, 40, 17, 16, 5, 33, 3, 18, 24, 2, 31];
const TOLERANCE = 1e-5;

const valuesOf = (critic: Critic, batch: readonly ValueRollout[]) =>
  runJob(device.gpu, critic.values(batch, whole));

function expectAllSame(
  actual: readonly Float32Array<ArrayBuffer>[],
  expected: readonly Float32Array<ArrayBuffer>[],
  label: string,
): void {
  expect(actual.length).toBe(expected.length);
  actual.forEach((values, i) => expectSameBits(values, at(expected, i), `${label}: sequence ${i}`));
}

async function expectGradients(critic: Critic, expected: Params, label: string): Promise<void> {
  const buckets = await Promise.all(critic.gradients.buckets.map((bucket) => readF32(device.gpu, bucket)));
  const actual = fromBuckets(critic.gradients.layout, buckets);
  expect([...actual.keys()].sort()).toEqual([...expected.keys()].sort());
  for (const [name, gradient] of expected) {
    expectClose(actual.get(name) ?? [], gradient, TOLERANCE, `${label}: gradient of ${name}`);
  }
}

/** The step's numbers against the reference's, and the values it reports against float64. */
function expectResult(
  result: CriticResult,
  expected: CriticGradients,
  batch: readonly ValueRollout[],
  model: Model,
  label: string,
): void {
  expect(result.tokens).toBe(expected.counted);
  expect(result.clipFraction).toBeCloseTo(expected.clipped / expected.counted, 12);
  expect(result.skipped).toBe(false);
  expectClose([result.loss], [expected.loss], TOLERANCE, `${label}: loss`);
  expectClose([result.gradNorm], [globalNorm(expected.gradients)], TOLERANCE, `${label}: gradient norm`);
  batch.forEach((sequence, i) => {
    expectClose(at(result.values, i), wantedValues(model, sequence), TOLERANCE, `${label}: values of ${i}`);
  });
  const rows = batch.flatMap((sequence) => {
    const wanted = wantedValues(model, sequence);
    return [...sequence.weights].flatMap((weight, t) =>
      weight === 0 ? [] : [{ wanted: at(sequence.returns, t), value: at(wanted, t) }],
    );
  });
  const variance = (numbers: number[]): number => {
    const mean = numbers.reduce((a, b) => a + b, 0) / numbers.length;
    return numbers.reduce((sum, number) => sum + (number - mean) ** 2, 0) / numbers.length;
  };
  const explained =
    1 - variance(rows.map(({ wanted, value }) => wanted - value)) / variance(rows.map((row) => row.wanted));
  expect(result.explainedVariance).toBeCloseTo(explained, 4);
}

describe('values', () => {
  it.each([true, false])('agree with float64 where a position has a weight (tied %s)', async (tied) => {
    const random = new Random(41);
    const model = awkwardCritic(random, tied);
    const batch = valueRollouts(random, model, LENGTHS);
    const critic = await makeCritic(device, model);
    (await valuesOf(critic, batch)).forEach((values, i) =>
      expectClose(values, wantedValues(model, at(batch, i)), TOLERANCE, `sequence ${i}`),
    );
    critic.destroy();
  });

  it('are the same bits however the sequences are packed and the work is cut', async () => {
    const random = new Random(42);
    const model = awkwardCritic(random, true);
    const batch = valueRollouts(random, model, LENGTHS);
    const first = await makeCritic(device, model);
    const expected = await valuesOf(first, batch);
    first.destroy();
    for (const rowsMax of [40, 55, 300]) {
      const critic = await makeCritic(device, model, { rowsMax });
      expectAllSame(await valuesOf(critic, batch), expected, `micro-batches of ${rowsMax}`);
      const order = shuffled(random, batch.length);
      const mixed = await valuesOf(
        critic,
        order.map((i) => at(batch, i)),
      );
      const wanted = order.map((i) => at(expected, i));
      expectAllSame(mixed, wanted, `shuffled in micro-batches of ${rowsMax}`);
      const cutUp = await runJob(device.gpu, critic.values(batch, pieces(3)));
      expectAllSame(cutUp, expected, `in 3 pieces and micro-batches of ${rowsMax}`);
      for (const [i, sequence] of batch.entries()) {
        if (sequence.weights.every((weight) => weight === 0)) continue;
        expectAllSame(await valuesOf(critic, [sequence]), [at(expected, i)], `sequence ${i} alone`);
      }
      const options = { clip: VALUE_CLIP, learningRate: 1e-2 };
      const { values } = await runJob(device.gpu, critic.step(batch, whole, options));
      expectAllSame(values, expected, `of a step in micro-batches of ${rowsMax}`);
      critic.destroy();
    }
  });
});

describe('gradients of every parameter, over several packed micro-batches', () => {
  it.each(CASES)('agree with float64, clipped and not ($seed, tied $tied)', async ({ seed, tied }) => {
    const random = new Random(seed);
    const model = awkwardCritic(random, tied);
    const batch = valueRollouts(random, model, LENGTHS);
    expect(packMicroBatches(batch, 64, 8).length).toBeGreaterThan(2);
    expect(model.layout.bucketElements.length).toBeGreaterThan(1);
    const critic = await makeCritic(device, model);
    for (const clip of [VALUE_CLIP, Infinity]) {
      const label = `seed ${seed}, clip ${clip}`;
      const result = await runJob(device.gpu, critic.step(batch, whole, { clip, learningRate: 0 }));
      const expected = criticGradients(model.config, model.params, batch, clip);
      if (clip === VALUE_CLIP) expect(expected.clipped).toBeGreaterThan(3);
      else expect(expected.clipped).toBe(0);
      await expectGradients(critic, expected.gradients, label);
      expectResult(result, expected, batch, model, label);
    }
    critic.destroy();
  });

  it('hold for vectors longer than a workgroup shares among 8 threads', async () => {
    const random = new Random(4);
    const shape = { layers: 1, hiddenSize: 520, intermediateSize: 70, headDim: 34 };
    const model = randomCritic({ ...awkwardConfig(random, false), ...shape }, random, 2 ** 22);
    const batch = valueRollouts(random, model, [20, 9]);
    const critic = await makeCritic(device, model);
    const options = { clip: VALUE_CLIP, learningRate: 0 };
    const result = await runJob(device.gpu, critic.step(batch, whole, options));
    const expected = criticGradients(model.config, model.params, batch, VALUE_CLIP);
    await expectGradients(critic, expected.gradients, 'seed 4');
    expectResult(result, expected, batch, model, 'seed 4');
    critic.destroy();
  });
});

it.each([11, 12])('ten optimizer steps agree with float64 (seed %i)', async (seed) => {
  const random = new Random(seed);
  const model = awkwardCritic(random, seed % 2 === 0);
  const { config, layout } = model;
  const critic = await makeCritic(device, model);
  const { beta1, beta2, epsilon, weightDecay, gradNormMax } = ADAMW;
  const hyper = { learningRate: 3e-3, beta1, beta2, eps: epsilon, weightDecay, maxGradNorm: gradNormMax };
  let expected = { params: model.params, state: initialAdamwState(model.params) };
  for (let step = 0; step < 10; step++) {
    const batch = valueRollouts(random, { config, params: expected.params }, [12, 30, 7, 2, 21]);
    const options = { clip: VALUE_CLIP, learningRate: hyper.learningRate };
    await runJob(device.gpu, critic.step(batch, whole, options));
    const { gradients } = criticGradients(config, expected.params, batch, VALUE_CLIP);
    expected = adamwStep(layout.tensors, expected.params, gradients, expected.state, hyper);
  }
  const actual = fromBuckets(layout, await runJob(device.gpu, critic.exportWeights()));
  for (const [name, wanted] of expected.params) {
    const label = `seed ${seed}: ${name} after ten steps`;
    expectClose(tensorValues(actual, name, wanted.length), wanted, TOLERANCE, label);
  }
  critic.destroy();
});
