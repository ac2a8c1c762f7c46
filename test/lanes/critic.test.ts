import { afterEach, beforeEach, expect, it } from 'vitest';
import { type Gpu, openGpu } from '#src/gpu/device.js';
import { whole } from '#src/kernels/launch.js';
import { Lane } from '#src/lanes/lane.js';
import type { LaneAnswers } from '#src/lanes/messages.js';
import { laneSettings } from '#src/lanes/settings.js';
import { assert, at } from '#src/lib/assert.js';
import { nowMs } from '#src/lib/clock.js';
import { Random } from '#src/lib/prng.js';
import type { ValueSequence } from '#src/train/batch.js';
import type { CriticResult } from '#src/train/critic-results.js';
import { expectSameOutcomes, runAlone } from '../engine/fixtures.js';
import { tokensOf, until } from '../faults/fixtures.js';
import { useGpu } from '../helpers/gpu.js';
import { makeCritic, randomCritic, VALUE_CLIP, valueRollouts } from '../train/critic-fixtures.js';
import { ADAMW, BUCKET_BYTES, runJob } from '../train/fixtures.js';
import { createCritic, furnish, Post, scriptOf, train } from './many-jobs-fixtures.js';

const SEED = 5100;
const STEPS = 3;
const OPTIONS = { clip: VALUE_CLIP, learningRate: 3e-3 };
/** Much less than a step of the critic takes. */
const BUDGETS = { sliceUs: 300, inFlightUs: 600 };

const device = useGpu();
const script = scriptOf('a', 1, SEED, 1);
const { requests, batch: actorBatch } = at(script.rounds, 0);
const random = new Random(SEED).fork('critic');
const model = randomCritic(script.model.config, random, BUCKET_BYTES);
const batches = Array.from({ length: STEPS }, () => valueRollouts(random, model, [25, 31, 9]));

let gpu: Gpu;
let lane: Lane;
let post: Post;
beforeEach(async () => {
  [gpu, post] = [await openGpu(), new Post()];
  lane = new Lane(gpu, { lane: 0, settings: laneSettings(BUDGETS), doorbell: null }, post.receive);
});
afterEach(async () => {
  await lane.handle({ kind: 'close' });
});

async function valuesOf(sequences: readonly ValueSequence[]): Promise<LaneAnswers['values']['values']> {
  const answer = await lane.handle({ kind: 'values', job: 'a', requestedMs: nowMs(), sequences });
  assert(answer !== null && 'values' in answer, 'not the answer to values');
  return answer.values;
}

async function fit(sequences: readonly ValueSequence[], commit = false): Promise<LaneAnswers['trainCritic']> {
  const request = {
    kind: 'trainCritic',
    job: 'a',
    requestedMs: nowMs(),
    sequences,
    options: OPTIONS,
  } as const;
  const answer = await lane.handle({ ...request, commit });
  assert(answer !== null && 'explainedVariance' in answer, 'not the answer to trainCritic');
  return answer;
}

/** What the steps come to on a device of their own, uncut. */
async function undisturbed(): Promise<CriticResult[]> {
  const critic = await makeCritic(device, model, { adamw: ADAMW });
  const results: CriticResult[] = [];
  for (const batch of batches) results.push(await runJob(device.gpu, critic.step(batch, whole, OPTIONS)));
  critic.destroy();
  return results;
}

it('takes the device from generation, is cut like all else, and leaves both their bits', async () => {
  const expected = await undisturbed();
  await furnish(lane, script);
  await createCritic(lane, script, model);
  lane.takeRecords(true);
  await lane.handle({ kind: 'add', job: 'a', sequences: requests });
  const outcomes = post.of('a');
  await until(() => tokensOf(outcomes) > 3, 'some tokens');
  for (const [i, batch] of batches.entries()) {
    expect(await valuesOf(batch), `values before step ${i}`).toEqual(at(expected, i).values);
    expect(await fit(batch), `step ${i}`).toEqual({ ...at(expected, i), state: null });
  }
  const isDone = (id: number): boolean => (outcomes.byId.get(id)?.reason ?? null) !== null;
  await until(() => requests.every(({ id }) => isDone(id)), 'all sequences');
  expectSameOutcomes(outcomes, await runAlone(device, script.model, requests), requests, 'beside a critic');
  const { slices, preemptions } = lane.takeRecords(true);
  const ofCritic = slices.filter(({ resident }) => resident === 'critic');
  expect(ofCritic.length).toBeGreaterThan(4 * STEPS);
  const stages = new Set(preemptions.map(({ stage }) => stage));
  expect([...stages].every((stage) => ['valueCompute', 'criticTraining'].includes(stage))).toBe(true);
  expect(preemptions.length).toBeGreaterThan(0);
});

it('that fails ends alone, and another one goes on from its last state', async () => {
  const expected = await undisturbed();
  const before = gpu.bytesAllocated;
  await furnish(lane, script);
  await createCritic(lane, script, model);
  await fit(at(batches, 0));
  const { state } = await fit(at(batches, 1), true);
  assert(state !== null, 'a state was to come back');
  const bad = at(batches, 2).map((sequence) => ({
    ...sequence,
    tokens: Array.from(sequence.tokens, () => 10_000),
  }));
  await expect(fit(bad)).rejects.toThrow('token 10000 of');
  await expect(valuesOf(at(batches, 2))).rejects.toThrow('token 10000 of');
  // The policy of the same job does not notice.
  expect((await train(lane, 'a', actorBatch)).tokens).toBeGreaterThan(0);
  await lane.handle({ kind: 'removeCritic', job: 'a' });
  await expect(valuesOf(at(batches, 2))).rejects.toThrow('job a has no critic');
  await createCritic(lane, script, model);
  await lane.handle({ kind: 'loadCriticState', job: 'a', state });
  expect(await fit(at(batches, 2))).toEqual({ ...at(expected, 2), state: null });
  for (const kind of ['removeCritic', 'removeTrainer', 'removeEngine'] as const)
    await lane.handle({ kind, job: 'a' });
  await gpu.device.queue.onSubmittedWorkDone();
  gpu.assertHealthy();
  expect(gpu.bytesAllocated, 'bytes once all are gone').toBe(before);
});

it('is refused a batch that does not fit, and goes on', async () => {
  const expected = await undisturbed();
  await furnish(lane, script);
  await createCritic(lane, script, model);
  const tokens = Array.from({ length: 65 }, () => 1);
  const weights = new Float32Array(65).fill(1, 0, 64);
  const nothing = new Float32Array(65);
  const long = { tokens, weights, returns: nothing, oldValues: nothing };
  await expect(fit([long])).rejects.toThrow('a sequence of 65 tokens is longer than the context');
  expect(await fit(at(batches, 0))).toEqual({ ...at(expected, 0), state: null });
});
