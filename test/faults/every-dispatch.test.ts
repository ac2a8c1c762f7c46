import { expect, it } from 'vitest';
import { noTokens, type SequenceRequest } from '#src/engine/sequence.js';
import type { Program } from '#src/gpu/ops.js';
import { whole } from '#src/kernels/launch.js';
import { laneSettings } from '#src/lanes/settings.js';
import { at } from '#src/lib/assert.js';
import { Random, rolloutKey } from '#src/lib/prng.js';
import type { TrainResult } from '#src/train/results.js';
import type { Trainer } from '#src/train/trainer.js';
import { expectSameOutcomes, SAMPLINGS } from '../engine/fixtures.js';
import { expectSameBits } from '../helpers/arrays.js';
import { readF32, useGpu } from '../helpers/gpu.js';
import { seeds } from '../helpers/seeds.js';
import { awkwardConfig, randomTokens } from '../oracle/fixtures.js';
import { awkwardModel, makeTrainer, randomModel, randomRollouts, runJob } from '../train/fixtures.js';
import { expectOrdered, HandFed, intruders, twoTrainers, undisturbed } from './fixtures.js';

const device = useGpu();
/** So little that every op is a slice of its own, and nothing else is in flight with it. */
const EVERY_OP = laneSettings({ sliceUs: 0.001, inFlightUs: 0.001 });
const STEP = {
  objective: { algorithm: 'grpo', clipLow: 0.2, clipHigh: 0.3, klCoefficient: 0.05 },
  learningRate: 1e-2,
} as const;
const FORWARD = ['embed_rows', 'rmsnorm_row', 'matmul_nn', 'rope_kv_write', 'attention_paged', 'silu_gate'];
/** The logits' matmul reads the embedding as it lies. */
const HEAD = ['matmul_nt', 'sample_row'];
const BACKWARD = ['policy_gradient', 'matmul_tn', 'attention_grad_kv', 'rmsnorm_row_grad', 'embed_rows_grad'];
const UPDATE = ['sum_squares', 'clip_scale', 'adamw_update'];

/** Watches a program op by op. */
class Watched {
  readonly kernels = new Set<string>();
  ops = 0;

  constructor(private readonly preempt: () => void) {}

  /** The program, preempted once each of its ops is on the device. */
  *watch(program: Program): Program {
    for (const op of program) {
      yield op;
      if (op.kind === 'submitted') continue;
      if (op.kind === 'dispatch') this.kernels.add(op.kernel.replace(/\(.*/, ''));
      this.ops++;
      // As in a lane's thread, no request is read while a slice is filled.
      queueMicrotask(this.preempt);
    }
  }
}

interface Stranger {
  /** One dispatch. */
  readonly next: () => Program;
  readonly destroy: () => void;
}

/** The step of another trainer, a dispatch at a time and over and over: as good a work as any to clobber ours. */
async function makeStranger(random: Random): Promise<Stranger> {
  const model = awkwardModel(random, false);
  const trainer = await makeTrainer(device, model);
  const { program } = trainer.step(randomRollouts(random, model, [40, 33, 21]), whole, STEP);
  const ops = [...program].filter(({ kind }) => kind === 'dispatch');
  let taken = 0;
  const next = function* (): Program {
    yield at(ops, taken++ % ops.length);
  };
  const destroy = (): void => {
    program.return();
    trainer.destroy();
  };
  return { next, destroy };
}

/** Every op was preempted once, and nothing ran before the urgent one had had the device. */
async function expectPreempted(fed: HandFed, { ops, kernels }: Watched, label: string): Promise<string[]> {
  await fed.executor.idle(fed.urgent);
  await device.gpu.device.queue.onSubmittedWorkDone();
  const preemptions = fed.log.take(true);
  const yielding = fed.executor.takeRecords().slices.filter(({ job }) => job === 'job');
  expect(preemptions.length, `${label}: preemptions`).toBe(ops);
  expectOrdered(preemptions, label);
  expect(intruders(yielding, fed.spans), label).toEqual([]);
  expect(yielding.length, `${label}: slices`).toBeGreaterThanOrEqual(ops);
  return [...kernels];
}

it.each(seeds())('a long prompt is preempted at every dispatch, seed %i', async (seed) => {
  const label = `seed ${seed}`;
  const random = new Random(seed).fork('prefill');
  const shape = { ...awkwardConfig(random, false), contextTokensMax: 256, ropeTheta: 10_000 };
  const model = randomModel(shape, random, 2560);
  const options = { contextTokensMax: 256, kvBlocks: 64 };
  const request: SequenceRequest = {
    id: 1,
    promptTokenIds: randomTokens(random, random.int(190, 230), model.config.vocabSize),
    generated: noTokens(),
    tokensMax: 3,
    sampling: at(SAMPLINGS, seed % SAMPLINGS.length),
    key: rolloutKey(seed, 'long', 0),
    stopTokenIds: [],
  };
  const expected = await undisturbed(device, model, [request], options);
  const stranger = await makeStranger(random);
  const fed = new HandFed(device, EVERY_OP);
  await fed.load(model, options);
  const watched = new Watched(() => void fed.preempt(stranger.next()));
  fed.watch = (program) => watched.watch(program);
  fed.add(request);
  await fed.finish();
  const kernels = await expectPreempted(fed, watched, label);
  expect(watched.ops, label).toBeGreaterThan(200);
  expect(kernels, label).toEqual(expect.arrayContaining([...FORWARD, ...HEAD]));
  fed.watch = (program) => program;
  await fed.stop();
  stranger.destroy();
  expectSameOutcomes(fed.outcomes, expected, [request], label);
});

interface Trained {
  readonly result: TrainResult;
  /** Weights, gradients and moments. */
  readonly state: readonly Float32Array<ArrayBuffer>[];
}

async function trained(trainer: Trainer, result: TrainResult): Promise<Trained> {
  const sets = [trainer.weights, trainer.gradients, ...trainer.optimizer.moments];
  const buckets = sets.flatMap((set) => set.buckets);
  return { result, state: await Promise.all(buckets.map((bucket) => readF32(device.gpu, bucket))) };
}

it.each(seeds())('a training step is preempted at every dispatch, seed %i', async (seed) => {
  const label = `seed ${seed}`;
  const random = new Random(seed).fork('step');
  const model = awkwardModel(random, seed % 2 === 0);
  const batch = randomRollouts(random, model, [30, 17, 40, 5, 22]);
  const alone = await makeTrainer(device, model);
  const expected = await trained(alone, await runJob(device.gpu, alone.step(batch, whole, STEP)));
  alone.destroy();
  const trainer = await makeTrainer(device, model);
  const stranger = await makeStranger(random);
  const fed = new HandFed(device, EVERY_OP, twoTrainers());
  const watched = new Watched(() => void fed.preempt(stranger.next()));
  const job = trainer.step(batch, fed.cost, STEP);
  await fed.run(watched.watch(job.program));
  const result = await job.result;
  const kernels = await expectPreempted(fed, watched, label);
  expect(kernels, label).toEqual(expect.arrayContaining([...FORWARD, ...HEAD, ...BACKWARD, ...UPDATE]));
  await fed.stop();
  const actual = await trained(trainer, result);
  expect(actual.result, label).toEqual(expected.result);
  actual.state.forEach((bucket, i) => expectSameBits(bucket, at(expected.state, i), `${label}: bucket ${i}`));
  trainer.destroy();
  stranger.destroy();
});
