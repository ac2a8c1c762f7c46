import { expect, it } from 'vitest';
import { openGpu } from '#src/gpu/device.js';
import { runProgram } from '#src/gpu/slice-encoder.js';
import { Kernels } from '#src/kernels/kernels.js';
import { whole } from '#src/kernels/launch.js';
import { at } from '#src/lib/assert.js';
import { Random } from '#src/lib/prng.js';
import type { Objective } from '#src/train/loss-head.js';
import type { TrainerState } from '#src/train/state.js';
import type { Trainer } from '#src/train/trainer.js';
import { expectSameBits } from '../helpers/arrays.js';
import { useGpu, type TestGpu } from '../helpers/gpu.js';
import { awkwardModel, makeTrainer, randomRollouts, runJob } from './fixtures.js';

const device = useGpu();
const OBJECTIVE: Objective = { algorithm: 'grpo', clipLow: 0.2, clipHigh: 0.2, klCoefficient: 0 };
const OPTIONS = { objective: OBJECTIVE, learningRate: 3e-3 };

const model = awkwardModel(new Random(91), true);
const batches = Array.from({ length: 6 }, (_, step) =>
  randomRollouts(new Random(92 + step), model, [20, 31, 9, 14]),
);

async function train({ gpu }: TestGpu, trainer: Trainer, from: number, until: number): Promise<void> {
  for (const batch of batches.slice(from, until)) await runJob(gpu, trainer.step(batch, whole, OPTIONS));
}

function expectSameState(actual: TrainerState, expected: TrainerState, label: string): void {
  expect(actual.stepsTaken).toBe(expected.stepsTaken);
  const buckets = ({ weights, moments }: TrainerState) => [weights, ...moments].flat();
  expect(buckets(actual)).toHaveLength(buckets(expected).length);
  buckets(actual).forEach((bucket, i) => expectSameBits(bucket, at(buckets(expected), i), `${label} ${i}`));
}

it('a trainer on a new device goes on where another one was, bit for bit', async () => {
  const straight = await makeTrainer(device, model);
  await train(device, straight, 0, 6);
  const expected = await runJob(device.gpu, straight.exportState());
  expect(expected.stepsTaken).toBe(6);
  straight.destroy();

  const first = await makeTrainer(device, model);
  await train(device, first, 0, 3);
  const saved = structuredClone(await runJob(device.gpu, first.exportState()));
  first.destroy();
  const gpu = await openGpu();
  const other = { gpu, kernels: new Kernels(gpu) };
  const second = await makeTrainer(other, model);
  // What it did before it was given the state leaves no trace.
  await train(other, second, 4, 5);
  await runProgram(gpu, second.loadState(saved));
  expectSameState(await runJob(gpu, second.exportState()), saved, 'state as loaded');
  await train(other, second, 3, 6);
  expectSameState(await runJob(gpu, second.exportState()), expected, 'state after six steps');
  second.destroy();
  await gpu.device.queue.onSubmittedWorkDone();
  gpu.close();
});

it('the state that comes with a step is the one that could be fetched after it', async () => {
  const trainer = await makeTrainer(device, model);
  const handedOver: string[] = [];
  const step = (exports: 'state' | 'weights' | 'nothing') =>
    runJob(
      device.gpu,
      trainer.stepAndExport(at(batches, 0), whole, OPTIONS, {
        // The update is submitted by then, the export not yet.
        *handOver() {
          yield { kind: 'submitted', call: () => handedOver.push(exports) };
        },
        exports,
      }),
    );
  const { result, state, weights } = await step('state');
  if (state === null) throw new Error('no state came');
  expect(result.skipped).toBe(false);
  expect(state.stepsTaken).toBe(1);
  expect(weights).toBe(state.weights);
  expectSameState(await runJob(device.gpu, trainer.exportState()), state, 'state');
  const second = await step('weights');
  expect(second.state).toBeNull();
  expect(second.weights).toEqual(await runJob(device.gpu, trainer.exportWeights()));
  expect(await step('nothing')).toMatchObject({ state: null, weights: null });
  expect(handedOver).toEqual(['state', 'weights', 'nothing']);
  trainer.destroy();
});
