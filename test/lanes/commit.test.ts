import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, describe, expect, it } from 'vitest';
import { openGpu } from '#src/gpu/device.js';
import { Lane } from '#src/lanes/lane.js';
import type { LaneAnswers, LaneRequest } from '#src/lanes/messages.js';
import { laneSettings } from '#src/lanes/settings.js';
import { at } from '#src/lib/assert.js';
import { nowMs } from '#src/lib/clock.js';
import { Random } from '#src/lib/prng.js';
import type { TrainerState } from '#src/train/state.js';
import { WeightStore } from '#src/weights/store.js';
import { Outcomes, randomRequests, SMALL } from '../engine/fixtures.js';
import { ADAMW, awkwardModel, randomRollouts } from '../train/fixtures.js';

const SEED = 1450;
const model = awkwardModel(new Random(SEED), true);
const { config, layout, buckets: weights } = model;
const batch = randomRollouts(new Random(SEED + 1), model, [30, 21, 40, 12]);
const objective = { algorithm: 'grpo', clipLow: 0.2, clipHigh: 0.2, klCoefficient: 0 } as const;
const requests = randomRequests(new Random(SEED), model, 16).map((request) => ({
  ...request,
  promptTokenIds: request.promptTokenIds.slice(0, 30),
  tokensMax: 30,
  stopTokenIds: [],
}));

type Train = Extract<LaneRequest, { kind: 'train' }>;

const open: Lane[] = [];
afterEach(async () => {
  for (const lane of open.splice(0)) await lane.handle({ kind: 'close' });
});

async function openLane(epoch = 0): Promise<{ lane: Lane; outcomes: Outcomes }> {
  const outcomes = new Outcomes();
  const settings = laneSettings({ sliceUs: 300, inFlightUs: 600 });
  const options = { lane: 0, settings, doorbell: null, epoch };
  const lane = new Lane(await openGpu(), options, outcomes.receive);
  open.push(lane);
  const trainer = { rowsMax: 64, contextTokensMax: 64, adamw: ADAMW };
  await lane.handle({
    kind: 'createTrainer',
    job: 'job',
    weight: 1,
    config,
    layout,
    options: trainer,
    weights,
  });
  return { lane, outcomes };
}

async function train(lane: Lane, more: Pick<Train, 'publish' | 'commit'>): Promise<LaneAnswers['train']> {
  const options = { objective, learningRate: 1e-3 };
  const requestedMs = nowMs();
  const answer = await lane.handle({
    kind: 'train',
    job: 'job',
    requestedMs,
    sequences: batch,
    options,
    ...more,
  });
  if (answer === null || !('meanRatio' in answer)) throw new Error('not the answer to train');
  return answer;
}

function stateOf({ state }: LaneAnswers['train']): TrainerState {
  if (state === null) throw new Error('no state came');
  return state;
}

async function until(condition: () => boolean): Promise<void> {
  const deadlineMs = nowMs() + 30_000;
  while (!condition()) {
    if (nowMs() > deadlineMs) throw new Error('waited for 30 s');
    await sleep(1);
  }
}

describe('a step that is committed and published', () => {
  it('preempts generation once, and leaves its weights in the engine, in the store and on the host', async () => {
    const { lane, outcomes } = await openLane();
    const store = WeightStore.create(layout);
    await lane.handle({
      kind: 'createEngine',
      job: 'job',
      weight: 1,
      config,
      layout,
      options: SMALL,
      store: store.shared,
    });
    await lane.handle({ kind: 'publish', job: 'job', version: 0, store: store.shared });
    await lane.handle({ kind: 'add', job: 'job', sequences: requests });
    await until(() => outcomes.byId.size > 0);
    lane.takeRecords(true);
    const answer = await train(lane, { publish: { version: 1, store: store.shared }, commit: true });
    const { preemptions, versions } = lane.takeRecords(true);
    expect(preemptions.map(({ stage }) => stage)).toEqual(['actorTraining']);
    expect(versions.map(({ kind, version }) => `${kind} v${version}`)).toEqual(['flip v1', 'publish v1']);
    const state = stateOf(answer);
    expect(state.stepsTaken).toBe(1);
    expect(answer.publishMs).toBeGreaterThan(0);
    expect(store.pull()).toEqual({ version: 1, buckets: state.weights });
    expect(await lane.handle({ kind: 'exportWeights', job: 'job' })).toEqual({ weights: state.weights });
    await until(() => [...outcomes.byId.values()].some(({ versions }) => versions.includes(1)));
  });

  it('says nothing that was not asked for', async () => {
    const { lane } = await openLane();
    expect(await train(lane, {})).toMatchObject({ state: null, publishMs: 0 });
    const store = WeightStore.create(layout);
    expect(await train(lane, { publish: { version: 4, store: store.shared } })).toMatchObject({
      state: null,
    });
    expect(await lane.handle({ kind: 'exportWeights', job: 'job' })).toEqual({
      weights: store.pull().buckets,
    });
  });

  it('gives another lane all it takes to come to the same bits', async () => {
    const { lane } = await openLane();
    const store = WeightStore.create(layout);
    const first = stateOf(await train(lane, { commit: true }));
    const second = stateOf(await train(lane, { publish: { version: 2, store: store.shared }, commit: true }));
    // The second step is not heard of: the next lane takes it again.
    store.claim(1);
    const { lane: next } = await openLane(1);
    await next.handle({ kind: 'loadState', job: 'job', state: first });
    const again = stateOf(await train(next, { publish: { version: 2, store: store.shared }, commit: true }));
    expect(again).toEqual(second);
    expect(store.pull()).toEqual({ version: 2, buckets: second.weights });
    const late = train(lane, { publish: { version: 3, store: store.shared } });
    await expect(late).rejects.toThrow('epoch 0 has been replaced');
    expect(at(store.pull().buckets, 0)).toEqual(at(second.weights, 0));
  });
});
