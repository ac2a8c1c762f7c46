import { describe, expect, it } from 'vitest';
import { runProgram } from '#src/gpu/slice-encoder.js';
import { whole } from '#src/kernels/launch.js';
import { at } from '#src/lib/assert.js';
import { UserError } from '#src/lib/errors.js';
import { Random } from '#src/lib/prng.js';
import { findTensor, tensorView } from '#src/model/layout.js';
import type { ValueSequence } from '#src/train/batch.js';
import { criticLayout, criticWeights } from '#src/train/critic-layout.js';
import type { Critic } from '#src/train/critic.js';
import type { TrainerState } from '#src/train/state.js';
import { WARM_UP_CRITIC_STEP, warmUpValues } from '#src/train/warm-up.js';
import { expectSameBits } from '../helpers/arrays.js';
import { useGpu } from '../helpers/gpu.js';
import { awkwardConfig, randomTokens } from '../oracle/fixtures.js';
import { awkwardCritic, makeCritic, VALUE_CLIP, valueRollouts } from './critic-fixtures.js';
import { ADAMW, awkwardModel, BUCKET_BYTES, randomModel, runJob } from './fixtures.js';

const device = useGpu();
const OPTIONS = { clip: VALUE_CLIP, learningRate: 3e-3 };
const model = awkwardCritic(new Random(91), true);
const batches = Array.from({ length: 5 }, (_, step) =>
  valueRollouts(new Random(92 + step), model, [20, 31, 9, 14]),
);

async function train(critic: Critic, from: number, until: number): Promise<void> {
  for (const batch of batches.slice(from, until))
    await runJob(device.gpu, critic.step(batch, whole, OPTIONS));
}

function expectSameState(actual: TrainerState, expected: TrainerState, label: string): void {
  expect(actual.stepsTaken).toBe(expected.stepsTaken);
  const buckets = ({ weights, moments }: TrainerState) => [weights, ...moments].flat();
  expect(buckets(actual)).toHaveLength(buckets(expected).length);
  buckets(actual).forEach((bucket, i) => expectSameBits(bucket, at(buckets(expected), i), `${label} ${i}`));
}

describe.each([true, false])('a critic made from a policy (tied %s)', (tied) => {
  const random = new Random(61);
  const policy = awkwardModel(random, tied);
  const layout = criticLayout(policy.config, BUCKET_BYTES);
  const buckets = criticWeights(layout, policy.layout, policy.buckets);

  it('has its layers, and a value head of zeros within the binding limit', () => {
    const names = policy.layout.tensors.map(({ name }) => name).filter((name) => name !== 'head');
    expect(layout.tensors.map(({ name }) => name)).toEqual([...names, 'valueHead', 'valueBias']);
    for (const name of names) {
      const view = tensorView(buckets, findTensor(layout, name));
      expectSameBits(view, tensorView(policy.buckets, findTensor(policy.layout, name)), name);
    }
    for (const { name, rows, columns, bucket, offset } of layout.tensors) {
      expect(offset % 64, name).toBe(0);
      expect(offset + rows * columns, name).toBeLessThanOrEqual(at(layout.bucketElements, bucket));
    }
    for (const elements of layout.bucketElements) expect(elements * 4).toBeLessThanOrEqual(BUCKET_BYTES);
    const zeros = new Float32Array(policy.config.hiddenSize);
    expectSameBits(tensorView(buckets, findTensor(layout, 'valueHead')), zeros, 'valueHead');
  });

  it('values everything at exactly 0 to begin with, and learns from there', async () => {
    const critic = await makeCritic(device, { ...policy, layout, buckets });
    const tokens = randomTokens(random, 20, policy.config.vocabSize);
    const weights = Float32Array.from(tokens, (_, t) => (t < 19 ? 0.05 : 0));
    const nothing = new Float32Array(20);
    const [values] = await runJob(device.gpu, critic.values([{ tokens, weights }], whole));
    expectSameBits(values!, nothing, 'values');
    const sequence = { tokens, weights, oldValues: nothing, returns: nothing.map(() => 1) };
    const first = await runJob(device.gpu, critic.step([sequence], whole, OPTIONS));
    expect(first).toMatchObject({ clipFraction: 0, explainedVariance: null, tokens: 19 });
    const second = await runJob(device.gpu, critic.step([sequence], whole, OPTIONS));
    expect(second.loss).toBeLessThan(first.loss);
    critic.destroy();
  });
});

it('goes on where another critic was, bit for bit; a state that comes with a step is the one after it', async () => {
  const straight = await makeCritic(device, model);
  await train(straight, 0, 4);
  const job = straight.stepAndExport(at(batches, 4), whole, OPTIONS, {
    *handOver() {},
    exports: 'state',
  });
  const { state: expected, result } = await runJob(device.gpu, job);
  expect(result.skipped).toBe(false);
  if (expected === null) throw new Error('no state came');
  expect(expected.stepsTaken).toBe(5);
  straight.destroy();

  const first = await makeCritic(device, model);
  await train(first, 0, 2);
  const saved = structuredClone(await runJob(device.gpu, first.exportState()));
  first.destroy();
  const second = await makeCritic(device, model);
  await train(second, 3, 4);
  await runProgram(device.gpu, second.loadState(saved));
  await train(second, 2, 5);
  expectSameState(await runJob(device.gpu, second.exportState()), expected, 'state after five steps');
  second.destroy();
});

it('refuses what it cannot train on, skips what is not finite, and frees all it holds', async () => {
  const before = device.gpu.bytesAllocated;
  const critic = await makeCritic(device, model, { rowsMax: 32, contextTokensMax: 36 });
  const [sequence] = valueRollouts(new Random(71), model, [12]);
  const step = async (changes: Partial<ValueSequence>) =>
    runJob(device.gpu, critic.step([{ ...sequence!, ...changes }], whole, OPTIONS));
  const [long] = valueRollouts(new Random(72), model, [40]);
  expect(() => critic.values([long!], whole)).toThrow(UserError);
  expect(() => critic.values([long!], whole)).toThrow('40 tokens is longer than the context of 36');
  await expect(step({ returns: new Float32Array(12).fill(NaN) })).rejects.toThrow('a loss row of');
  await expect(step({ weights: new Float32Array(12) })).rejects.toThrow('no token of the batch has a weight');
  const running = critic.values([sequence!], whole);
  expect(() => critic.exportState()).toThrow('one job at a time');
  await runJob(device.gpu, running);
  const heavy = await step({ weights: sequence!.weights.map((weight) => weight * 1e38) });
  expect(heavy.skipped).toBe(true);
  expect(critic.optimizer.stepsTaken).toBe(0);
  await runJob(device.gpu, critic.step(warmUpValues(32), whole, WARM_UP_CRITIC_STEP));
  await runJob(device.gpu, critic.exportWeights());
  expect(critic.bytes).toBe(device.gpu.bytesAllocated - before);
  critic.destroy();
  expect(device.gpu.bytesAllocated).toBe(before);
});

it('learns a function of the tokens: whether this one is odd, plus twice the share of odd ones so far', async () => {
  const random = new Random(81);
  const shape = { hiddenSize: 16, intermediateSize: 32, layers: 1, heads: 2, kvHeads: 2, headDim: 8 };
  const config = { ...awkwardConfig(random, true), ...shape };
  const policy = randomModel(config, random, 2 ** 20);
  const layout = criticLayout(config, 2 ** 20);
  const buckets = criticWeights(layout, policy.layout, policy.buckets);
  const critic = await makeCritic(
    device,
    { ...policy, layout, buckets },
    { rowsMax: 512, adamw: { ...ADAMW, weightDecay: 0 } },
  );
  const batch = async (): Promise<ValueSequence[]> => {
    const bare = Array.from({ length: 16 }, () => {
      const tokens = randomTokens(random, 24, config.vocabSize);
      const weights = Float32Array.from(tokens, (_, t) => (t + 1 < tokens.length ? 1 / (16 * 23) : 0));
      let odd = 0;
      const returns = Float32Array.from(
        tokens,
        (token, t) => (token % 2) + (2 * (odd += token % 2)) / (t + 1),
      );
      return { tokens, weights, returns };
    });
    const oldValues = await runJob(device.gpu, critic.values(bare, whole));
    return bare.map((sequence, i) => ({ ...sequence, oldValues: at(oldValues, i) }));
  };
  const explained: (number | null)[] = [];
  for (let step = 0; step < 60; step++) {
    const options = { clip: VALUE_CLIP, learningRate: 2e-2 };
    const result = await runJob(device.gpu, critic.step(await batch(), whole, options));
    explained.push(result.explainedVariance);
  }
  // Every batch is new: what is explained was learnt, not remembered. This token alone explains three quarters.
  expect(explained[0]).toBe(0);
  expect(explained.at(-1), explained.join(' ')).toBeGreaterThan(0.9);
  critic.destroy();
});
