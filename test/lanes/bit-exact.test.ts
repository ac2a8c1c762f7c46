import { beforeAll, expect, it } from 'vitest';
import type { KvOnPreempt } from '#src/engine/engine.js';
import type { SequenceRequest } from '#src/engine/sequence.js';
import { WebGpuEngine } from '#src/engine/webgpu-engine.js';
import { openGpu } from '#src/gpu/device.js';
import type { Program } from '#src/gpu/ops.js';
import { CostModel } from '#src/lanes/cost-model.js';
import { Executor } from '#src/lanes/executor.js';
import { Lane } from '#src/lanes/lane.js';
import { PreemptionLog } from '#src/lanes/preemption-log.js';
import { RemoteLane } from '#src/lanes/remote-lane.js';
import { laneSettings } from '#src/lanes/settings.js';
import type { Resident } from '#src/lanes/resident.js';
import { assert, at } from '#src/lib/assert.js';
import { nowMs } from '#src/lib/clock.js';
import { Random } from '#src/lib/prng.js';
import type { PreemptionRecord } from '#src/telemetry/records.js';
import type { TrainSequence } from '#src/train/batch.js';
import type { StepOptions, Trainer } from '#src/train/trainer.js';
import { WeightStore } from '#src/weights/store.js';
import { expectSameOutcomes, Outcomes, randomRequests, runAlone, SMALL } from '../engine/fixtures.js';
import { useGpu } from '../helpers/gpu.js';
import { ADAMW, awkwardModel, makeTrainer, randomRollouts } from '../train/fixtures.js';

const device = useGpu();
const SEED = 1200;
const COUNT = 12;
const model = awkwardModel(new Random(SEED), false);
const { config, layout } = model;
const requests = randomRequests(new Random(SEED), model, COUNT);
const batch: TrainSequence[] = randomRollouts(new Random(SEED + 1), model, [9, 5]);
const STEP: StepOptions = {
  objective: { algorithm: 'grpo', clipLow: 0.2, clipHigh: 0.2, klCoefficient: 0 },
  learningRate: 1e-3,
};
const TRAINER = { rowsMax: 64, contextTokensMax: 64, adamw: ADAMW };
/** So little that every dispatch is a slice of its own, and nothing else is in flight with it. */
const EVERY_OP = { sliceUs: 0.001, inFlightUs: 0.001 };

let alone: Outcomes;
beforeAll(async () => {
  alone = await runAlone(device, model, requests);
});

/** Takes the device for a whole optimizer step whenever it is due; two trainers take turns, so one is always free. */
class Interrupter implements Resident {
  readonly job = 'job';
  readonly kind = 'trainer';
  readonly priority = 1;
  readonly weight = 1;
  steps = 0;
  #due = false;

  constructor(
    private readonly trainers: readonly Trainer[],
    private readonly cost: CostModel,
  ) {}

  get hasWork(): boolean {
    return this.#due && this.trainers.some(({ idle }) => idle);
  }

  interrupt(): void {
    this.#due = true;
  }

  next(): Program | null {
    const free = this.trainers.find(({ idle }) => idle);
    if (!this.#due || free === undefined) return null;
    this.#due = false;
    this.steps++;
    return free.step(batch, this.cost, STEP).program;
  }
}

it('preempted at every slice edge by a trainer that takes a whole step', async () => {
  const outcomes = new Outcomes();
  const cost = new CostModel(1000);
  const executor = new Executor(device.gpu, 0, laneSettings(EVERY_OP), cost, new PreemptionLog(0), null);
  const engine = new WebGpuEngine(
    device.kernels,
    config,
    layout,
    { ...SMALL, batchTokensMax: 20 },
    cost,
    (update) => {
      outcomes.receive(update);
      executor.wake();
    },
  );
  const trainers = [await makeTrainer(device, model), await makeTrainer(device, model)];
  const interrupter = new Interrupter(trainers, cost);
  let loading: Program | null = engine.loadWeights(model.buckets, 0);
  const watched = function* (program: Program): Program {
    for (const op of program) {
      yield op;
      interrupter.interrupt();
    }
  };
  const resident: Resident = {
    job: 'job',
    kind: 'engine',
    priority: 6,
    weight: 1,
    get hasWork() {
      return loading !== null || engine.sequenceCount > 0;
    },
    next: () => {
      const program = loading ?? engine.nextStep();
      loading = null;
      return program === null ? null : watched(program);
    },
  };
  const some = requests
    .slice(0, 6)
    .map((request) => ({ ...request, tokensMax: Math.min(request.tokensMax, 6) }));
  const expected = await runAlone(device, model, some);
  for (const request of some) engine.add(request);
  executor.addResident(resident);
  executor.addResident(interrupter);
  const running = executor.run();
  while (engine.sequenceCount > 0) await new Promise((resolve) => setTimeout(resolve, 5));
  await executor.idle(resident);
  await engine.settled();
  executor.stop();
  await running;
  const { slices } = executor.takeRecords();
  const edges = slices.filter(({ resident: kind }, i) => kind === 'engine' && i + 1 < slices.length);
  const cut = edges.filter((slice) => at(slices, slices.indexOf(slice) + 1).resident === 'trainer');
  expect(edges.length).toBeGreaterThan(150);
  expect(cut.length / edges.length).toBeGreaterThan(0.98);
  expect(interrupter.steps).toBeGreaterThanOrEqual(cut.length);
  expectSameOutcomes(outcomes, expected, some, `seed ${SEED}, at every edge`);
  engine.destroy();
});

const KV: readonly KvOnPreempt[] = [
  { kind: 'held' },
  { kind: 'spilled' },
  { kind: 'dropped' },
  { kind: 'pressure', blocksMax: 2 },
];

it.each(KV)('on a lane that trains and scores without rest, its caches $kind', async (kvOnPreempt) => {
  const outcomes = new Outcomes();
  const gpu = await openGpu();
  const options = {
    lane: 0,
    settings: laneSettings({ sliceUs: 2000, inFlightUs: 4000 }),
    doorbell: null,
  };
  // Smaller than any dispatch, which a lane would refuse to begin with.
  const tiny = { ...laneSettings({ sliceUs: 30, inFlightUs: 60 }), kvOnPreempt };
  const lane = new Lane(gpu, options, outcomes.receive);
  await lane.handle({
    kind: 'createTrainer',
    job: 'job',
    weight: 1,
    config,
    layout,
    options: TRAINER,
    weights: model.buckets,
  });
  await lane.handle({
    kind: 'createEngine',
    job: 'job',
    weight: 1,
    config,
    layout,
    options: SMALL,
    store: null,
  });
  await lane.handle({ kind: 'configure', settings: tiny });
  await lane.handle({ kind: 'publish', job: 'job', version: 0, store: null });
  await lane.handle({ kind: 'add', job: 'job', sequences: requests });
  let turns = 0;
  while (requests.some(({ id }) => (outcomes.byId.get(id)?.reason ?? null) === null)) {
    const asked = { requestedMs: nowMs(), sequences: batch };
    if (turns++ % 2 === 0) await lane.handle({ kind: 'train', job: 'job', ...asked, options: STEP });
    else await lane.handle({ kind: 'score', job: 'job', ...asked, stage: 'oldLogProbs', which: 'policy' });
    await new Promise((resolve) => setTimeout(resolve, turns % 3));
  }
  const { preemptions, slices } = lane.takeRecords(true);
  await lane.handle({ kind: 'close' });
  await lane.running;
  expectSameOutcomes(outcomes, alone, requests, `seed ${SEED}, beside training`);
  expect(turns).toBeGreaterThan(3);
  expect(slices.filter(({ resident }) => resident === 'engine').length).toBeGreaterThan(100);
  expect(preemptions.length).toBeGreaterThan(3);
  const sum = (of: (record: PreemptionRecord) => number): number =>
    preemptions.reduce((total, record) => total + of(record), 0);
  const left = [sum(({ kv }) => kv.spilled), sum(({ kv }) => kv.dropped)];
  const recomputed = sum(({ tokensRecomputed }) => tokensRecomputed);
  if (kvOnPreempt.kind === 'held') expect([...left, recomputed]).toEqual([0, 0, 0]);
  else expect(Math.max(...left)).toBeGreaterThan(2);
  if (kvOnPreempt.kind === 'spilled') expect([left[1], recomputed]).toEqual([0, 0]);
  if (kvOnPreempt.kind === 'dropped') expect([left[0], recomputed > 20]).toEqual([0, true]);
});

async function openLane(lane: number, outcomes: Outcomes): Promise<RemoteLane> {
  return RemoteLane.open(
    { lane, adapter: null, settings: laneSettings({ sliceUs: 500, inFlightUs: 1000 }) },
    {
      onTokens: outcomes.receive,
      onRecords: () => undefined,
      onBroken: (error) => expect.fail(error.message),
    },
  );
}

async function until(condition: () => boolean): Promise<void> {
  const deadlineMs = nowMs() + 30_000;
  while (!condition()) {
    assert(nowMs() < deadlineMs, 'waited for 30 s');
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
}

function finished(outcomes: Outcomes, sequences: readonly SequenceRequest[]): boolean {
  return sequences.every(({ id }) => (outcomes.byId.get(id)?.reason ?? null) !== null);
}

it('on a second lane, with a device of its own and weights through the store', async () => {
  const outcomes = new Outcomes();
  const store = WeightStore.create(layout);
  store.publish(0, model.buckets);
  const lane = await openLane(1, outcomes);
  await lane.request({
    kind: 'createEngine',
    job: 'job',
    weight: 1,
    config,
    layout,
    options: SMALL,
    store: store.shared,
  });
  expect(await lane.request({ kind: 'pull', job: 'job' })).toEqual({ version: 0, bytes: store.bytes });
  await lane.request({ kind: 'add', job: 'job', sequences: requests });
  await until(() => finished(outcomes, requests));
  await lane.close();
  expectSameOutcomes(outcomes, alone, requests, `seed ${SEED}, second lane`);
});

it('begun on one lane, evicted half-way and continued on another', async () => {
  const [first, second] = [new Outcomes(), new Outcomes()];
  const store = WeightStore.create(layout);
  store.publish(3, model.buckets);
  const lanes = [await openLane(0, first), await openLane(1, second)];
  for (const lane of lanes) {
    await lane.request({
      kind: 'createEngine',
      job: 'job',
      weight: 1,
      config,
      layout,
      options: SMALL,
      store: store.shared,
    });
    await lane.request({ kind: 'pull', job: 'job' });
  }
  const long = requests
    .map((request) => ({ ...request, tokensMax: Math.max(request.tokensMax, 20), stopTokenIds: [] }))
    .filter(({ promptTokenIds, tokensMax }) => promptTokenIds.length + tokensMax <= 64);
  expect(long.length).toBeGreaterThan(6);
  const expected = await runAlone(device, model, long);
  await at(lanes, 0).request({ kind: 'add', job: 'job', sequences: long });
  await until(() => [...first.byId.values()].some(({ tokenIds }) => tokenIds.length >= 7));
  const { evicted } = await at(lanes, 0).request({ kind: 'removeEngine', job: 'job' });
  expect(evicted.some(({ generated }) => generated.tokenIds.length > 0)).toBe(true);
  const rest = evicted.map(({ id, generated }) => {
    // What the host heard of is all there is: nothing is lost between the two lanes.
    const heard = first.byId.get(id)?.tokenIds ?? [];
    expect(generated.tokenIds).toEqual(heard);
    const request = long.find((candidate) => candidate.id === id);
    assert(request !== undefined, `sequence ${id} was evicted and never added`);
    return { ...request, generated };
  });
  await at(lanes, 1).request({ kind: 'add', job: 'job', sequences: rest });
  await until(() => finished(second, rest));
  await Promise.all(lanes.map((lane) => lane.close()));
  const whole = new Outcomes();
  for (const { id } of long) {
    const begun = first.byId.get(id);
    const ended = second.byId.get(id);
    whole.byId.set(id, {
      tokenIds: [...(begun?.tokenIds ?? []), ...(ended?.tokenIds ?? [])],
      logprobs: [...(begun?.logprobs ?? []), ...(ended?.logprobs ?? [])],
      rawLogprobs: [...(begun?.rawLogprobs ?? []), ...(ended?.rawLogprobs ?? [])],
      versions: [...(begun?.versions ?? []), ...(ended?.versions ?? [])],
      reason: ended?.reason ?? begun?.reason ?? null,
    });
  }
  expectSameOutcomes(whole, expected, long, `seed ${SEED}, moved`);
});
