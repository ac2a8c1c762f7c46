import { expect, it } from 'vitest';
import type { Op } from '#src/gpu/ops.js';
import { whole, type Splitter } from '#src/kernels/launch.js';
import { at } from '#src/lib/assert.js';
import { Random } from '#src/lib/prng.js';
import type { Objective } from '#src/train/loss-head.js';
import type { TrainResult } from '#src/train/results.js';
import type { Trainer } from '#src/train/trainer.js';
import { expectSameBits, pieces } from '../helpers/arrays.js';
import { readF32, useGpu } from '../helpers/gpu.js';
import { awkwardModel, makeTrainer, randomRollouts, runCutUp, runJob } from './fixtures.js';

const device = useGpu();
const OBJECTIVE: Objective = { algorithm: 'grpo', clipLow: 0.2, clipHigh: 0.3, klCoefficient: 0.05 };
const OPTIONS = { objective: OBJECTIVE, learningRate: 1e-2 };
const LENGTHS = [30, 17, 40, 5, 16, 22];

const model = awkwardModel(new Random(31), true);
const batch = randomRollouts(new Random(32), model, LENGTHS);

interface Outcome {
  readonly result: TrainResult;
  /** Weights, gradients and moments. */
  readonly state: readonly Float32Array<ArrayBuffer>[];
}

async function outcome(trainer: Trainer, result: TrainResult): Promise<Outcome> {
  const sets = [trainer.weights, trainer.gradients, ...trainer.optimizer.moments];
  const buckets = sets.flatMap((set) => set.buckets);
  return { result, state: await Promise.all(buckets.map((bucket) => readF32(device.gpu, bucket))) };
}

async function inOneGo(split: Splitter): Promise<Outcome> {
  const trainer = await makeTrainer(device, model);
  const done = await outcome(trainer, await runJob(device.gpu, trainer.step(batch, split, OPTIONS)));
  trainer.destroy();
  return done;
}

function expectSame(actual: Outcome, expected: Outcome, label: string): void {
  actual.state.forEach((bucket, i) => expectSameBits(bucket, at(expected.state, i), `${label}: bucket ${i}`));
  expect(actual.result).toEqual(expected.result);
}

it('a step cut at every op, with ops of another trainer in between, gives the same bits', async () => {
  const expected = await inOneGo(whole);
  const trainer = await makeTrainer(device, model);
  const stranger = awkwardModel(new Random(33), false);
  const other = await makeTrainer(device, stranger);
  const otherBatch = randomRollouts(new Random(34), stranger, [40, 33, 21]);
  const otherWork = other.step(otherBatch, pieces(20), OPTIONS);
  const rest: Op[] = [];
  const nextOp = (): Op => {
    const next = otherWork.program.next();
    if (next.done === true) throw new Error('the other work is too short to fill the gaps');
    rest.push(next.value);
    return next.value;
  };
  const job = trainer.step(batch, whole, OPTIONS);
  runCutUp(device.gpu, job.program, nextOp);
  expect(rest.length).toBeGreaterThan(100);
  expectSame(await outcome(trainer, await job.result), expected, 'cut at every op');
  await runJob(device.gpu, otherWork);
  trainer.destroy();
  other.destroy();
});

it.each([2, 3, 1000])('dispatches cut into %i pieces give the same bits', async (count) => {
  expectSame(await inOneGo(pieces(count)), await inOneGo(whole), `${count} pieces`);
});
