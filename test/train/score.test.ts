import { describe, expect, it } from 'vitest';
import { runProgram } from '#src/gpu/slice-encoder.js';
import { whole } from '#src/kernels/launch.js';
import { at } from '#src/lib/assert.js';
import { Random } from '#src/lib/prng.js';
import type { TrainSequence } from '#src/train/batch.js';
import type { Objective } from '#src/train/loss-head.js';
import type { Trainer } from '#src/train/trainer.js';
import { expectSameBits, pieces, shuffled } from '../helpers/arrays.js';
import { useGpu } from '../helpers/gpu.js';
import { expectClose } from '../oracle/compare.js';
import { awkwardModel, makeTrainer, oracleLogprobs, randomRollouts, runJob } from './fixtures.js';

const device = useGpu();
const LENGTHS = [40, 2, 17, 16, 33, 7, 18, 25, 3, 12, 31, 15, 4];
const OBJECTIVE: Objective = { algorithm: 'grpo', clipLow: 0.2, clipHigh: 0.2, klCoefficient: 0 };

const score = (trainer: Trainer, batch: readonly TrainSequence[], which: 'policy' | 'reference' = 'policy') =>
  runJob(device.gpu, trainer.score(batch, whole, which));

function expectAllSame(
  actual: readonly Float32Array<ArrayBuffer>[],
  expected: readonly Float32Array<ArrayBuffer>[],
  label: string,
): void {
  expect(actual.length).toBe(expected.length);
  actual.forEach((logprobs, i) => expectSameBits(logprobs, at(expected, i), `${label}: sequence ${i}`));
}

describe('scores', () => {
  it.each([true, false])('agree with float64 where a token has a weight (tied %s)', async (tied) => {
    const random = new Random(41);
    const model = awkwardModel(random, tied);
    const batch = randomRollouts(random, model, LENGTHS);
    const trainer = await makeTrainer(device, model);
    (await score(trainer, batch)).forEach((logprobs, i) => {
      const { tokens, weights, sampling } = at(batch, i);
      const wanted = oracleLogprobs(model, tokens, sampling).map((logprob, t) =>
        weights[t] === 0 ? 0 : logprob,
      );
      expectClose(logprobs, wanted, 1e-5, `sequence ${i}`);
    });
    trainer.destroy();
  });

  it('are the same bits however the sequences are packed and the work is cut', async () => {
    const random = new Random(42);
    const model = awkwardModel(random, true);
    const batch = randomRollouts(random, model, LENGTHS);
    const first = await makeTrainer(device, model);
    const expected = await score(first, batch);
    first.destroy();
    for (const rowsMax of [40, 55, 300]) {
      const trainer = await makeTrainer(device, model, { rowsMax });
      expectAllSame(await score(trainer, batch), expected, `micro-batches of ${rowsMax}`);
      const order = shuffled(random, batch.length);
      const mixed = await score(
        trainer,
        order.map((i) => at(batch, i)),
      );
      expectAllSame(
        mixed,
        order.map((i) => at(expected, i)),
        `shuffled in micro-batches of ${rowsMax}`,
      );
      const cutUp = await runJob(device.gpu, trainer.score(batch, pieces(3), 'policy'));
      expectAllSame(cutUp, expected, `in 3 pieces and micro-batches of ${rowsMax}`);
      for (const [i, sequence] of batch.entries()) {
        const needed = sequence.weights.some((weight) => weight !== 0);
        if (needed) expectAllSame(await score(trainer, [sequence]), [at(expected, i)], `sequence ${i} alone`);
      }
      trainer.destroy();
    }
  });

  it('make the first step exactly on-policy: every ratio is 1', async () => {
    const random = new Random(43);
    const model = awkwardModel(random, false);
    const batch = randomRollouts(random, model, LENGTHS);
    const scorer = await makeTrainer(device, model, { rowsMax: 41 });
    const oldLogprobs = await score(scorer, batch);
    const trainer = await makeTrainer(device, model);
    const onPolicy = batch.map((sequence, i) => ({ ...sequence, oldLogprobs: at(oldLogprobs, i) }));
    const result = await runJob(
      device.gpu,
      trainer.step(onPolicy, whole, { objective: OBJECTIVE, learningRate: 1e-2 }),
    );
    expect(result).toMatchObject({ meanRatio: 1, maxRatio: 1, clipFraction: 0, mismatch: 0 });
    expectAllSame(result.logprobs, oldLogprobs, 'log-probabilities of the step');
    scorer.destroy();
    trainer.destroy();
  });

  it('by the reference stay what they were when it was kept', async () => {
    const random = new Random(44);
    const model = awkwardModel(random, true);
    const batch = randomRollouts(random, model, LENGTHS);
    const trainer = await makeTrainer(device, model);
    expect(() => trainer.score(batch, whole, 'reference')).toThrow('no reference');
    const bytesBefore = trainer.bytes;
    await runProgram(device.gpu, trainer.keepReference());
    expect(trainer.bytes - bytesBefore).toBe(trainer.weights.bytes);
    const expected = await score(trainer, batch);
    await runJob(device.gpu, trainer.step(batch, whole, { objective: OBJECTIVE, learningRate: 1e-2 }));
    expectAllSame(await score(trainer, batch, 'reference'), expected, 'reference');
    const [policy, reference] = [await score(trainer, batch), expected];
    expect(policy.some((logprobs, i) => logprobs.some((value, t) => value !== reference[i]?.[t]))).toBe(true);
    await runProgram(device.gpu, trainer.keepReference());
    expectAllSame(await score(trainer, batch, 'reference'), policy, 'reference kept anew');
    trainer.destroy();
  });
});
