import { describe, expect, it } from 'vitest';
import { openGpu } from '#src/gpu/device.js';
import { runProgram } from '#src/gpu/slice-encoder.js';
import { Kernels } from '#src/kernels/kernels.js';
import { whole } from '#src/kernels/launch.js';
import { at } from '#src/lib/assert.js';
import { UserError } from '#src/lib/errors.js';
import { Random } from '#src/lib/prng.js';
import type { StepOptions } from '#src/train/trainer.js';
import { expectSameBits } from '../helpers/arrays.js';
import { useGpu } from '../helpers/gpu.js';
import { awkwardModel, makeTrainer, randomModel, randomRollouts, runJob } from './fixtures.js';

const device = useGpu();
const OPTIONS: StepOptions = {
  objective: { algorithm: 'grpo', clipLow: 0.2, clipHigh: 0.2, klCoefficient: 0 },
  learningRate: 1e-2,
};
const model = awkwardModel(new Random(51), false);
const batch = randomRollouts(new Random(52), model, [30, 17, 40]);

describe('jobs', () => {
  it('run one at a time', async () => {
    const trainer = await makeTrainer(device, model);
    const job = trainer.step(batch, whole, OPTIONS);
    expect(trainer.idle).toBe(false);
    expect(() => trainer.score(batch, whole, 'policy')).toThrow('one job at a time');
    expect(() => trainer.exportWeights()).toThrow('one job at a time');
    expect(() => trainer.destroy()).toThrow('while a job is running');
    await runJob(device.gpu, job);
    expect(trainer.idle).toBe(true);
    trainer.destroy();
  });

  it('reject when given up, before their first op and after any other, and leave the trainer usable', async () => {
    const trainer = await makeTrainer(device, model);
    const expected = await runJob(device.gpu, trainer.score(batch, whole, 'policy'));
    for (const taken of [0, 1, 30]) {
      const job = trainer.step(batch, whole, OPTIONS);
      const ops = Array.from({ length: taken }, () => job.program.next().value!);
      await runProgram(device.gpu, ops);
      job.program.return();
      await expect(job.result).rejects.toThrow('step was given up');
      const again = await runJob(device.gpu, trainer.score(batch, whole, 'policy'));
      again.forEach((logprobs, i) => expectSameBits(logprobs, at(expected, i), `after ${taken} ops`));
    }
    trainer.destroy();
  });

  it('given up in the middle of an update leave nothing that could be used by mistake', async () => {
    const trainer = await makeTrainer(device, model);
    const job = trainer.step(batch, whole, OPTIONS);
    for (const op of job.program) {
      await runProgram(device.gpu, [op]);
      if (op.kind === 'dispatch' && op.kernel.startsWith('adamw_update')) break;
    }
    await expect(job.result).rejects.toThrow('step was given up');
    expect(() => trainer.score(batch, whole, 'policy')).toThrow('load weights first');
    await runProgram(device.gpu, trainer.loadWeights(model.buckets));
    const fresh = await makeTrainer(device, model);
    const [actual, expected] = [
      await runJob(device.gpu, trainer.step(batch, whole, OPTIONS)),
      await runJob(device.gpu, fresh.step(batch, whole, OPTIONS)),
    ];
    expect(actual).toEqual(expected);
    trainer.destroy();
    fresh.destroy();
  });

  it('reject when the device is lost', async () => {
    const gpu = await openGpu();
    const trainer = await makeTrainer({ gpu, kernels: new Kernels(gpu) }, model);
    const job = trainer.step(batch, whole, OPTIONS);
    job.program.next();
    gpu.close();
    await expect(job.result).rejects.toThrow('device was lost');
  });
});

describe('batches that cannot be trained on', () => {
  it('name the length and the limit of a sequence that is too long', async () => {
    const trainer = await makeTrainer(device, model, { rowsMax: 32, contextTokensMax: 36 });
    const [long] = randomRollouts(new Random(53), model, [36]);
    expect(() => trainer.step([long!], whole, OPTIONS)).toThrow(UserError);
    expect(() => trainer.step([long!], whole, OPTIONS)).toThrow('36 tokens does not fit a micro-batch of 32');
    expect(() => trainer.score(batch, whole, 'policy')).toThrow('40 tokens is longer than the context of 36');
    expect(trainer.idle).toBe(true);
    trainer.destroy();
  });

  it('are bugs when nothing has a weight, a token is unknown or the reference is missing', async () => {
    const trainer = await makeTrainer(device, model);
    const [rollout] = randomRollouts(new Random(54), model, [12]);
    // Async, so that what is thrown at once and what rejects later look the same.
    const step = async (changes: Partial<typeof rollout>, options = OPTIONS) =>
      runJob(device.gpu, trainer.step([{ ...rollout!, ...changes }], whole, options));
    await expect(step({ weights: new Float32Array(12) })).rejects.toThrow(
      'no token of the batch has a weight',
    );
    await expect(step({ weights: new Float32Array(12).fill(1) })).rejects.toThrow('nothing to predict');
    await expect(step({ tokens: new Array<number>(12).fill(37) })).rejects.toThrow('token 37 of 37');
    await expect(step({ advantage: NaN })).rejects.toThrow('a loss row of');
    const objective = { algorithm: 'grpo', clipLow: 0.2, clipHigh: 0.2, klCoefficient: 0.1 } as const;
    await expect(step({ refLogprobs: null }, { objective, learningRate: 0 })).rejects.toThrow('reference');
    expect((await step({})).tokens).toBeGreaterThan(0);
    trainer.destroy();
  });
});

describe('weights', () => {
  it('come back from the device as they went there, in more than one chunk', async () => {
    const { config } = awkwardModel(new Random(55), true);
    const large = randomModel({ ...config, vocabSize: 300_007 }, new Random(56), 2 ** 26);
    expect(large.buckets.some(({ byteLength }) => byteLength > 4 * 2 ** 20)).toBe(true);
    const trainer = await makeTrainer(device, large);
    for (let time = 0; time < 2; time++) {
      const exported = await runJob(device.gpu, trainer.exportWeights());
      exported.forEach((bucket, i) =>
        expectSameBits(bucket, at(large.buckets, i), `export ${time}, bucket ${i}`),
      );
    }
    trainer.destroy();
  });

  it('and everything else is counted, and freed by destroy', async () => {
    const before = device.gpu.bytesAllocated;
    const trainer = await makeTrainer(device, model);
    await runProgram(device.gpu, trainer.keepReference());
    await runJob(device.gpu, trainer.step(batch, whole, OPTIONS));
    await runJob(device.gpu, trainer.exportWeights());
    expect(trainer.bytes).toBe(device.gpu.bytesAllocated - before);
    trainer.destroy();
    expect(device.gpu.bytesAllocated).toBe(before);
  });
});
