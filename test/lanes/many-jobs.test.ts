import { afterEach, expect, it } from 'vitest';
import type { KvOnPreempt } from '#src/engine/engine.js';
import { type Gpu, openGpu } from '#src/gpu/device.js';
import { Lane } from '#src/lanes/lane.js';
import { laneSettings } from '#src/lanes/settings.js';
import { assert, at } from '#src/lib/assert.js';
import { nowMs } from '#src/lib/clock.js';
import { Random } from '#src/lib/prng.js';
import { SMALL } from '../engine/fixtures.js';
import { gap, tokensOf, until } from '../faults/fixtures.js';
import { seeds } from '../helpers/seeds.js';
import {
  expectSameResult,
  furnish,
  play,
  Post,
  type Result,
  type Script,
  scriptOf,
  train,
  weightsOf,
} from './many-jobs-fixtures.js';

const BUDGETS = { sliceUs: 300, inFlightUs: 600 };
const ROUNDS = 4;
const WAYS: readonly KvOnPreempt[] = [
  { kind: 'held' },
  { kind: 'spilled' },
  { kind: 'dropped' },
  { kind: 'pressure', blocksMax: 2 },
];

const open: Lane[] = [];
afterEach(async () => {
  for (const lane of open.splice(0)) await lane.handle({ kind: 'close' });
});

async function openLane(
  kvOnPreempt: KvOnPreempt = { kind: 'held' },
): Promise<{ lane: Lane; gpu: Gpu; post: Post }> {
  const [gpu, post] = [await openGpu(), new Post()];
  const settings = { ...laneSettings(BUDGETS), kvOnPreempt };
  const lane = new Lane(gpu, { lane: 0, settings, doorbell: null }, post.receive);
  open.push(lane);
  return { lane, gpu, post };
}

async function alone(script: Script, random: Random): Promise<Result> {
  const { lane, post } = await openLane();
  await furnish(lane, script);
  return play(lane, script, post, random);
}

/** Gives the jobs' engines other numbers of slots again and again until the work is done; none at all among them. */
async function shuffleSlots(
  lane: Lane,
  jobs: readonly string[],
  random: Random,
  work: Promise<unknown>,
): Promise<number> {
  const going = { on: true };
  const stop = (): void => void (going.on = false);
  work.then(stop, stop);
  let changes = 0;
  while (going.on) {
    const job = random.pick(jobs);
    const slots = random.pick([0, 0, random.int(1, SMALL.slots)]);
    await lane.handle({ kind: 'slots', job, slots });
    await gap(6 * random.uniform());
    await lane.handle({ kind: 'slots', job, slots: SMALL.slots });
    await gap(3 * random.uniform());
    changes++;
  }
  return changes;
}

const cases = seeds().flatMap((seed) => WAYS.map((kv) => ({ seed, kv, kind: kv.kind })));

it.for(cases)(
  'two jobs on a lane come to the bits of each alone, caches $kind, seed $seed',
  async ({ seed, kv, kind }) => {
    const random = new Random(seed).fork(`many jobs ${kind}`);
    const scripts = [scriptOf('a', 1, seed, ROUNDS), scriptOf('b', 3, seed, ROUNDS)];
    const expected = [await alone(at(scripts, 0), random), await alone(at(scripts, 1), random)];
    const { lane, post } = await openLane(kv);
    await Promise.all(scripts.map((script) => furnish(lane, script)));
    lane.takeRecords(true);
    const work = Promise.all(scripts.map((script) => play(lane, script, post, random.fork(script.job))));
    const changes = await shuffleSlots(lane, ['a', 'b'], random, work);
    const results = await work;
    const label = `seed ${seed}, ${kind}`;
    scripts.forEach((script, i) => expectSameResult(script, at(results, i), at(expected, i), label));
    const { slices, preemptions, versions } = lane.takeRecords(true);
    // They did meet: slices of both engines alternate, and one job's stage took the device from the other's engine.
    const engines = slices.filter(({ resident }) => resident === 'engine').map(({ job }) => job);
    const turns = engines.filter((job, i) => i > 0 && job !== engines[i - 1]).length;
    expect(turns, `${label}: turns`).toBeGreaterThan(10);
    expect(changes, `${label}: changes of slots`).toBeGreaterThan(3);
    expect(preemptions.length, `${label}: preemptions`).toBeGreaterThan(0);
    expect(versions.filter(({ kind: how }) => how === 'flip').length, `${label}: versions`).toBe(2 * ROUNDS);
  },
);

it.for(seeds())(
  'a job whose residents come, go and fail leaves the other its bits, seed %i',
  async (seed) => {
    const random = new Random(seed).fork('neighbour');
    const [script, other] = [scriptOf('a', 1, seed, ROUNDS), scriptOf('b', 2, seed, 1)];
    const expected = await alone(script, random);
    const { lane, gpu, post } = await openLane({ kind: 'spilled' });
    const before = gpu.bytesAllocated;
    await furnish(lane, script);
    const { requests, batch } = at(other.rounds, 0);
    const work = play(lane, script, post, random);
    const going = { on: true };
    const stop = (): void => void (going.on = false);
    work.then(stop, stop);
    const bad = batch.map((sequence) => ({ ...sequence, tokens: Array.from(sequence.tokens, () => 10_000) }));
    let rounds = 0;
    while (going.on || rounds === 0) {
      await furnish(lane, other);
      const ids = requests.map(({ id }) => id + 1000 * rounds);
      await lane.handle({
        kind: 'add',
        job: 'b',
        sequences: requests.map((each, i) => ({ ...each, id: at(ids, i) })),
      });
      await gap(5 * random.uniform());
      const training = train(lane, 'b', bad);
      const keeping = lane.handle({ kind: 'keepReference', job: 'b' });
      const refused = await Promise.allSettled([training, keeping]);
      expect(refused.map(({ status }) => status)).toEqual(['rejected', 'rejected']);
      await expect(train(lane, 'b', batch)).rejects.toThrow('token 10000 of');
      await lane.handle({ kind: 'removeEngine', job: 'b' });
      await lane.handle({ kind: 'removeTrainer', job: 'b' });
      rounds++;
    }
    expectSameResult(script, await work, expected, `seed ${seed}, ${rounds} rounds of the other`);
    for (const kind of ['removeEngine', 'removeTrainer'] as const) await lane.handle({ kind, job: 'a' });
    await gpu.device.queue.onSubmittedWorkDone();
    gpu.assertHealthy();
    expect(gpu.bytesAllocated, 'bytes once both are gone').toBe(before);
    await expect(lane.handle({ kind: 'pull', job: 'b' })).rejects.toThrow('job b has no engine');
  },
);

it('without slots every sequence stays where it is and nobody is preempted; with them back all have their bits', async () => {
  const script = scriptOf('a', 1, 7, 1);
  const expected = await alone(script, new Random(7));
  const { lane, gpu, post } = await openLane();
  await furnish(lane, script);
  const { requests, batch } = at(script.rounds, 0);
  const outcomes = post.of('a');
  await lane.handle({ kind: 'add', job: 'a', sequences: requests });
  await until(() => tokensOf(outcomes) > 5, 'some tokens');
  await lane.handle({ kind: 'slots', job: 'a', slots: 0 });
  await gap(100);
  lane.takeRecords(true);
  const [tokens, bytes] = [tokensOf(outcomes), gpu.bytesAllocated];
  await weightsOf(lane, 'a');
  await gap(30);
  const { slices, preemptions } = lane.takeRecords(true);
  expect(slices.filter(({ resident }) => resident === 'engine')).toEqual([]);
  expect(preemptions).toEqual([]);
  expect(tokensOf(outcomes)).toBe(tokens);
  expect(gpu.bytesAllocated).toBeGreaterThanOrEqual(bytes);
  for (const slots of [1, SMALL.slots]) {
    await lane.handle({ kind: 'slots', job: 'a', slots });
    const before = tokensOf(outcomes);
    await until(() => tokensOf(outcomes) > before, `tokens with ${slots} slots`);
  }
  await until(
    () => [...outcomes.byId.values()].filter(({ reason }) => reason !== null).length === requests.length,
    'all',
  );
  const steps = [await train(lane, 'a', batch)];
  expectSameResult(script, { outcomes, steps, weights: await weightsOf(lane, 'a') }, expected, 'slots 0');
});

it('one request takes the device from the engines of all jobs, and its record names them', async () => {
  const scripts = [scriptOf('a', 1, 11, 1), scriptOf('b', 1, 11, 1), scriptOf('c', 1, 11, 1)];
  const { lane, post } = await openLane();
  for (const script of scripts) await furnish(lane, script);
  for (const { job, rounds } of scripts.slice(0, 2))
    await lane.handle({
      kind: 'add',
      job,
      sequences: at(rounds, 0).requests.map((each) => ({ ...each, stopTokenIds: [], tokensMax: 20 })),
    });
  await until(() => ['a', 'b'].every((job) => tokensOf(post.of(job)) > 0), 'tokens of both');
  lane.takeRecords(true);
  const fromMs = nowMs();
  await train(lane, 'c', at(at(scripts, 2).rounds, 0).batch);
  await until(() => ['a', 'b'].every((job) => tokensOf(post.of(job)) > 10), 'more of both');
  const { preemptions, slices } = lane.takeRecords(true);
  expect(preemptions).toHaveLength(1);
  const [record] = preemptions;
  expect([record?.job, ...(record?.alsoYielded ?? [])].toSorted()).toEqual(['a', 'b']);
  const { yieldedMs = NaN, releasedMs = NaN, resumedMs = NaN } = record ?? {};
  const moments = [fromMs, yieldedMs, releasedMs, resumedMs];
  expect(moments).toEqual(moments.toSorted((x, y) => Number(x) - Number(y)));
  const trainer = slices.filter(({ resident }) => resident === 'trainer');
  const between = slices.filter(
    ({ resident, submittedMs }) =>
      resident === 'engine' &&
      submittedMs > at(trainer, 0).submittedMs &&
      submittedMs < at(trainer, -1 + trainer.length).submittedMs,
  );
  expect(between).toEqual([]);
});

it('busy engines share the device by weight, within a slice of each', async (context) => {
  const scripts = [1, 3].map((weight, i) => ({ ...scriptOf('a', weight, 3, 1), job: `job ${i}` }));
  const { lane, post } = await openLane();
  for (const script of scripts) await furnish(lane, script);
  const [pattern] = at(at(scripts, 0).rounds, 0).requests;
  assert(pattern !== undefined, 'no request');
  const long = { ...pattern, promptTokenIds: [1, 2], tokensMax: 40, stopTokenIds: [] };
  const sequences = Array.from({ length: 20 }, (_, id) => ({ ...long, id }));
  lane.takeRecords(true);
  for (const { job } of scripts) await lane.handle({ kind: 'add', job, sequences });
  const heavy = post.of('job 1').byId;
  await until(() => heavy.size === sequences.length, 'the heavier to have begun its last sequence');
  const { slices } = lane.takeRecords(true);
  const both = slices.slice(slices.findIndex(({ job }) => job === 'job 1'));
  const us = scripts.map(({ job }) =>
    both.filter((slice) => slice.job === job).reduce((sum, { predictedUs }) => sum + predictedUs, 0),
  );
  const longestUs = Math.max(...both.map(({ predictedUs }) => predictedUs));
  const ratio = at(us, 1) / at(us, 0);
  await context.annotate(`device time ${us.join(' and ')} µs, longest slice ${longestUs} µs, ratio ${ratio}`);
  // The bound of fair queueing (see Turns) between two that always have work: a slice of each.
  const apartUs = Math.abs(at(us, 0) - at(us, 1) / 3);
  expect(both.length).toBeGreaterThan(100);
  expect(apartUs, `${us.join(' and ')} µs, longest ${longestUs} µs`).toBeLessThan(longestUs + longestUs / 3);
});
