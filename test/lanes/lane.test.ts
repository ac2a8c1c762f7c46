import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, describe, expect, it } from 'vitest';
import { openGpu, type Gpu } from '#src/gpu/device.js';
import { Lane } from '#src/lanes/lane.js';
import { laneSettings } from '#src/lanes/settings.js';
import { nowMs } from '#src/lib/clock.js';
import { Random } from '#src/lib/prng.js';
import type { Buckets } from '#src/model/layout.js';
import type { TrainSequence } from '#src/train/batch.js';
import { WeightStore } from '#src/weights/store.js';
import { Outcomes, randomRequests, SMALL } from '../engine/fixtures.js';
import { randomParams } from '../oracle/fixtures.js';
import { toBuckets } from '../oracle/params.js';
import { ADAMW, awkwardModel, randomRollouts } from '../train/fixtures.js';

const SEED = 1400;
const model = awkwardModel(new Random(SEED), true);
const { config, layout, buckets: weights } = model;
const TRAINER = { rowsMax: 64, contextTokensMax: 64, adamw: ADAMW };
const OBJECTIVE = { algorithm: 'grpo', clipLow: 0.2, clipHigh: 0.2, klCoefficient: 0 } as const;
const batch: TrainSequence[] = randomRollouts(new Random(SEED + 1), model, [30, 21, 40, 12]);
const requests = randomRequests(new Random(SEED), model, 16).map((request) => ({
  ...request,
  promptTokenIds: request.promptTokenIds.slice(0, 30),
  tokensMax: 30,
  stopTokenIds: [],
}));

function otherWeights(seed: number): Buckets {
  return toBuckets(layout, randomParams(config, new Random(seed)));
}

interface Opened {
  readonly lane: Lane;
  readonly gpu: Gpu;
  readonly outcomes: Outcomes;
}

const open: Lane[] = [];
afterEach(async () => {
  for (const lane of open.splice(0)) await lane.handle({ kind: 'close' });
});

async function openLane(onUpdate?: () => void): Promise<Opened> {
  const outcomes = new Outcomes();
  const gpu = await openGpu();
  const budgets = { sliceUs: 300, inFlightUs: 600 };
  const lane = new Lane(
    gpu,
    { lane: 0, settings: laneSettings(budgets), doorbell: null },
    onUpdate ?? outcomes.receive,
  );
  open.push(lane);
  return { lane, gpu, outcomes };
}

const createTrainer = (lane: Lane) =>
  lane.handle({ kind: 'createTrainer', job: 'job', weight: 1, config, layout, options: TRAINER, weights });
const createEngine = (lane: Lane, store: WeightStore | null = null) =>
  lane.handle({
    kind: 'createEngine',
    job: 'job',
    weight: 1,
    config,
    layout,
    options: SMALL,
    store: store?.shared ?? null,
  });
const publish = (lane: Lane, version: number, store: WeightStore | null = null) =>
  lane.handle({ kind: 'publish', job: 'job', version, store: store?.shared ?? null });
const add = (lane: Lane) => lane.handle({ kind: 'add', job: 'job', sequences: requests });
const train = (lane: Lane) =>
  lane.handle({
    kind: 'train',
    job: 'job',
    requestedMs: nowMs(),
    sequences: batch,
    options: { objective: OBJECTIVE, learningRate: 1e-3 },
  });

function evictedIds(answer: Awaited<ReturnType<Lane['handle']>>): number[] {
  if (answer === null || !('evicted' in answer)) throw new Error('not the answer to removeEngine');
  return answer.evicted.map(({ id }) => id);
}

async function until(condition: () => boolean): Promise<void> {
  const deadlineMs = nowMs() + 30_000;
  while (!condition()) {
    if (nowMs() > deadlineMs) throw new Error('waited for 30 s');
    await sleep(1);
  }
}

const tokensOf = ({ byId }: Outcomes): number =>
  [...byId.values()].reduce((sum, { tokenIds }) => sum + tokenIds.length, 0);
const allDone = ({ byId }: Outcomes): boolean =>
  byId.size === requests.length && [...byId.values()].every(({ reason }) => reason !== null);

describe('weights on a lane', () => {
  it('go from the trainer to the engine beside it, and to the store for others', async () => {
    const { lane, outcomes } = await openLane();
    const store = WeightStore.create(layout);
    await createTrainer(lane);
    await createEngine(lane, store);
    expect(await publish(lane, 0, store)).toEqual({ storeBytes: store.bytes });
    expect(store.pull()).toEqual({ version: 0, buckets: weights });
    await add(lane);
    await until(() => tokensOf(outcomes) > 20);
    await train(lane);
    expect(await publish(lane, 1)).toEqual({ storeBytes: 0 });
    await until(() => allDone(outcomes));
    const versions = new Set([...outcomes.byId.values()].flatMap((outcome) => outcome.versions));
    expect(versions).toEqual(new Set([0, 1]));
    expect(store.newestVersion).toBe(0);
    const { versions: records } = lane.takeRecords(true);
    expect(records.map(({ kind, version, bytes }) => [kind, version, bytes])).toEqual([
      ['flip', 0, 0],
      ['publish', 0, store.bytes],
      ['flip', 1, 0],
    ]);
  });

  it('are pulled once however often they are asked for, and never an older version', async () => {
    const { lane } = await openLane();
    const store = WeightStore.create(layout);
    store.publish(2, weights);
    await createEngine(lane, store);
    const pulls = [0, 1, 2].map(() => lane.handle({ kind: 'pull', job: 'job' }));
    expect(await Promise.all(pulls)).toEqual([
      { version: 2, bytes: store.bytes },
      { version: 2, bytes: 0 },
      { version: 2, bytes: 0 },
    ]);
    store.publish(3, otherWeights(1));
    store.publish(7, otherWeights(2));
    expect(await lane.handle({ kind: 'pull', job: 'job' })).toEqual({ version: 7, bytes: store.bytes });
  });

  it('that come from both sides at once arrive one after the other, the newest last', async () => {
    const { lane, outcomes } = await openLane();
    const store = WeightStore.create(layout);
    store.publish(1, otherWeights(3));
    await createTrainer(lane);
    await createEngine(lane, store);
    await Promise.all([
      lane.handle({ kind: 'pull', job: 'job' }),
      publish(lane, 5),
      lane.handle({ kind: 'pull', job: 'job' }),
      publish(lane, 4),
    ]);
    await add(lane);
    await until(() => allDone(outcomes));
    const versions = new Set([...outcomes.byId.values()].flatMap((outcome) => outcome.versions));
    expect(versions).toEqual(new Set([5]));
  });
});

describe('an engine that is removed', () => {
  it('gives its sequences back with what they had, and leaves no buffer behind', async () => {
    const { lane, gpu, outcomes } = await openLane();
    const store = WeightStore.create(layout);
    store.publish(0, weights);
    const before = gpu.bytesAllocated;
    for (let round = 0; round < 3; round++) {
      await createEngine(lane, store);
      await lane.handle({ kind: 'pull', job: 'job' });
      outcomes.byId.clear();
      await add(lane);
      await until(() => tokensOf(outcomes) > 30);
      const evicted = evictedIds(await lane.handle({ kind: 'removeEngine', job: 'job' }));
      const ended = [...outcomes.byId].filter(([, { reason }]) => reason !== null).map(([id]) => id);
      const all = [...evicted, ...ended].toSorted((a, b) => a - b);
      expect(all).toEqual(requests.map(({ id }) => id));
      expect(gpu.bytesAllocated).toBe(before);
    }
  });

  it('leaves no pull waiting for ever, whenever it comes', async () => {
    const { lane } = await openLane();
    const store = WeightStore.create(layout);
    for (let version = 0; version < 5; version++) {
      store.publish(2 * version, weights);
      await createEngine(lane, store);
      await lane.handle({ kind: 'pull', job: 'job' });
      store.publish(2 * version + 1, weights);
      await add(lane);
      const pulls: Promise<unknown>[] = [];
      const going = { on: true };
      const removed = lane.handle({ kind: 'removeEngine', job: 'job' }).then(() => (going.on = false));
      while (going.on) {
        pulls.push(lane.handle({ kind: 'pull', job: 'job' }));
        pulls.at(-1)?.catch(() => undefined);
        await sleep(0);
      }
      await removed;
      for (const outcome of await Promise.allSettled(pulls)) {
        if (outcome.status === 'rejected') expect(String(outcome.reason)).toMatch(/removed|no engine/);
      }
    }
  });

  it('does not take weights that are on their way with it into the void, however late they come', async () => {
    const { lane, gpu, outcomes } = await openLane();
    await createTrainer(lane);
    let version = 0;
    for (let round = 0; round < 6; round++) {
      await createEngine(lane);
      await publish(lane, version++);
      outcomes.byId.clear();
      await add(lane);
      await until(() => tokensOf(outcomes) > 5);
      const work = [publish(lane, version++)];
      const going = { on: true };
      const removed = lane.handle({ kind: 'removeEngine', job: 'job' }).then(() => (going.on = false));
      while (going.on) {
        work.push(publish(lane, version++));
        await (round % 2 === 0 ? sleep(0) : new Promise((resolve) => setImmediate(resolve)));
      }
      await Promise.all([removed, ...work]);
    }
    await train(lane);
    await gpu.device.queue.onSubmittedWorkDone();
    gpu.assertHealthy();
  });
});

describe('an idle engine that is removed', () => {
  it('stays until the weights that wait behind a training step have arrived', async () => {
    const { lane, gpu } = await openLane();
    await createTrainer(lane);
    await createEngine(lane);
    await publish(lane, 0);
    const work = [train(lane), publish(lane, 1), lane.handle({ kind: 'removeEngine', job: 'job' })];
    await Promise.all(work);
    await gpu.device.queue.onSubmittedWorkDone();
    gpu.assertHealthy();
  });
});

describe('preemptions on a lane', () => {
  it('are counted for all that outranks a busy engine, and for nothing else', async () => {
    const { lane, outcomes } = await openLane();
    await createTrainer(lane);
    await createEngine(lane);
    await publish(lane, 0);
    await train(lane);
    expect(lane.takeRecords(true).preemptions, 'before there is anything to generate').toEqual([]);
    await add(lane);
    await until(() => tokensOf(outcomes) > 5);
    await train(lane);
    await sleep(20);
    await lane.handle({
      kind: 'score',
      job: 'job',
      requestedMs: nowMs(),
      stage: 'oldLogProbs',
      which: 'policy',
      sequences: batch,
    });
    await until(() => allDone(outcomes));
    const { preemptions } = lane.takeRecords(true);
    expect(preemptions.map(({ stage }) => stage)).toEqual(['actorTraining', 'oldLogProbs']);
    for (const { requestedMs, yieldedMs, releasedMs, resumedMs } of preemptions) {
      const moments = [requestedMs, yieldedMs, releasedMs ?? NaN, resumedMs ?? NaN];
      expect(moments).toEqual(moments.toSorted((a, b) => a - b));
    }
    await train(lane);
    expect(lane.takeRecords(true).preemptions, 'after everything is generated').toEqual([]);
  });

  it('are none while sequences wait for their first weights: nothing can run that would yield', async () => {
    const { lane } = await openLane();
    await createTrainer(lane);
    await createEngine(lane);
    await add(lane);
    await sleep(20);
    await train(lane);
    expect(lane.takeRecords(true).preemptions).toEqual([]);
  });
});

describe('closing a lane', () => {
  it('rejects what is under way and frees the device, however busy it is', async () => {
    const { lane, gpu, outcomes } = await openLane();
    await createTrainer(lane);
    await createEngine(lane);
    await publish(lane, 0);
    await add(lane);
    await until(() => tokensOf(outcomes) > 5);
    const under = Promise.allSettled([train(lane), publish(lane, 1)]);
    await Promise.all([lane.handle({ kind: 'close' }), lane.handle({ kind: 'close' })]);
    await lane.running;
    for (const outcome of await under) {
      expect(outcome.status).toBe('rejected');
      if (outcome.status === 'rejected') expect(String(outcome.reason)).toContain('closed');
    }
    await expect(gpu.lost).resolves.toContain('destroyed');
    await expect(lane.handle({ kind: 'exportWeights', job: 'job' })).rejects.toThrow();
  });

  it('ends cleanly after a failure too: `running` tells what it was', async () => {
    const deaf = (): void => {
      throw new Error('nobody listens');
    };
    const { lane, gpu } = await openLane(deaf);
    const failed = expect(lane.running).rejects.toThrow('nobody listens');
    await createTrainer(lane);
    await createEngine(lane);
    await publish(lane, 0);
    await add(lane);
    await failed;
    const settled = Promise.allSettled([train(lane)]);
    await lane.handle({ kind: 'close' });
    expect((await settled).map(({ status }) => status)).toEqual(['rejected']);
    await expect(gpu.lost).resolves.toContain('destroyed');
  });

  it('is told when the device refuses a command', async () => {
    const { lane, gpu } = await openLane();
    const failed = expect(lane.running).rejects.toThrow('the device refused a command');
    await createTrainer(lane);
    // A copy out of bounds, as a bug would make it.
    const small = gpu.createStorage('small', 16);
    const encoder = gpu.device.createCommandEncoder();
    encoder.copyBufferToBuffer(small, 0, small, 0, 1024);
    gpu.device.queue.submit([encoder.finish()]);
    await gpu.device.queue.onSubmittedWorkDone();
    const training = expect(train(lane)).rejects.toThrow('closed');
    await failed;
    await lane.handle({ kind: 'close' });
    await training;
  });
});
