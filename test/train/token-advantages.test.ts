import { expect, it } from 'vitest';
import { whole } from '#src/kernels/launch.js';
import { at } from '#src/lib/assert.js';
import { Random } from '#src/lib/prng.js';
import type { TrainSequence } from '#src/train/batch.js';
import type { Trainer } from '#src/train/trainer.js';
import { expectSameBits } from '../helpers/arrays.js';
import { readF32, useGpu } from '../helpers/gpu.js';
import { expectClose } from '../oracle/compare.js';
import { fromBuckets } from '../oracle/params.js';
import { batchGradients } from '../oracle/trainer.js';
import { awkwardModel, makeTrainer, oracleRollout, randomRollouts, runJob } from './fixtures.js';

const device = useGpu();
const CLIP = { clipLow: 0.2, clipHigh: 0.2 };
const OPTIONS = { objective: { algorithm: 'grpo', ...CLIP, klCoefficient: 0 }, learningRate: 1e-2 } as const;
const model = awkwardModel(new Random(101), true);
const batch = randomRollouts(new Random(102), model, [20, 33, 5, 18]);

async function stateOf(trainer: Trainer): Promise<Float32Array<ArrayBuffer>[]> {
  const sets = [trainer.weights, trainer.gradients, ...trainer.optimizer.moments];
  return Promise.all(sets.flatMap(({ buckets }) => buckets).map((bucket) => readF32(device.gpu, bucket)));
}

async function train(sequences: readonly TrainSequence[]) {
  const trainer = await makeTrainer(device, model);
  const result = await runJob(device.gpu, trainer.step(sequences, whole, OPTIONS));
  const state = await stateOf(trainer);
  trainer.destroy();
  return { result, state };
}

it('the same advantage at every token is one advantage, bit for bit', async () => {
  const one = await train(batch);
  const each = await train(
    batch.map(({ advantage, tokens, ...rest }) => ({
      ...rest,
      tokens,
      advantage: new Float32Array(tokens.length).fill(advantage),
    })),
  );
  expect(each.result).toEqual(one.result);
  each.state.forEach((bucket, i) => expectSameBits(bucket, at(one.state, i), `bucket ${i}`));
});

it('an advantage for each token gives the gradients of float64', async () => {
  const random = new Random(103);
  const varied = batch.map((rollout) => ({
    ...rollout,
    advantage: Float32Array.from(rollout.tokens, () => random.normal()),
  }));
  const trainer = await makeTrainer(device, model);
  const result = await runJob(device.gpu, trainer.step(varied, whole, { ...OPTIONS, learningRate: 0 }));
  const buckets = await Promise.all(trainer.gradients.buckets.map((bucket) => readF32(device.gpu, bucket)));
  // The reference knows one advantage a sequence: each token that counts becomes a sequence of which only it does.
  const single = batch.flatMap((rollout, i) =>
    [...rollout.weights].flatMap((weight, t) => {
      if (weight === 0) return [];
      const weights = rollout.weights.map((own, position) => (position === t ? own : 0));
      return [oracleRollout({ ...rollout, weights, advantage: at(at(varied, i).advantage, t) })];
    }),
  );
  const expected = batchGradients(model.config, model.params, single, { ...CLIP, klBeta: 0 });
  const actual = fromBuckets(model.layout, buckets);
  for (const [name, gradient] of expected.gradients) {
    expectClose(actual.get(name) ?? [], gradient, 1e-5, `gradient of ${name}`);
  }
  expectClose([result.loss], [expected.loss], 1e-5, 'loss');
  trainer.destroy();
});

it('an advantage that is not finite, or is missing, is a bug', async () => {
  const trainer = await makeTrainer(device, model);
  const [rollout] = batch;
  const step = async (advantage: Float32Array) =>
    runJob(device.gpu, trainer.step([{ ...rollout!, advantage }], whole, OPTIONS));
  await expect(step(new Float32Array(20).fill(Infinity))).rejects.toThrow('a loss row of');
  await expect(step(new Float32Array(3))).rejects.toThrow('index');
  trainer.destroy();
});
