import { expect, it } from 'vitest';
import type { EngineUpdate, KvOnPreempt } from '#src/engine/engine.js';
import { openGpu } from '#src/gpu/device.js';
import { Lane } from '#src/lanes/lane.js';
import { laneSettings } from '#src/lanes/settings.js';
import { assert } from '#src/lib/assert.js';
import { nowMs } from '#src/lib/clock.js';
import { Random } from '#src/lib/prng.js';
import type { Buckets } from '#src/model/layout.js';
import type { PreemptionRecord } from '#src/telemetry/records.js';
import { Outcomes, randomRequests, SMALL } from '../engine/fixtures.js';
import { useGpu } from '../helpers/gpu.js';
import { seeds } from '../helpers/seeds.js';
import { ADAMW, awkwardModel, type Model, randomRollouts } from '../train/fixtures.js';
import { Copies, endedOf, expectOrdered, gap, tokensOf, undisturbed, until } from './fixtures.js';

const device = useGpu();
const SETTINGS = laneSettings({ sliceUs: 300, inFlightUs: 600 });
const TRAINER = { rowsMax: 64, contextTokensMax: 64, adamw: ADAMW };
const OBJECTIVE = { algorithm: 'grpo', clipLow: 0.2, clipHigh: 0.2, klCoefficient: 0 } as const;
const ROUNDS = 24;
/** At the end, so that sequences come to theirs under one version. */
const ROUNDS_IN_PEACE = 8;
const SEQUENCES = 8;
/** Of the steps so many are published. */
const PUBLISHED_SHARE = 0.5;

/** Pressure of all degrees in every other round; between them everything is moved, or everything recomputed. */
function kvOf(round: number, random: Random): KvOnPreempt {
  if (round % 2 === 0) return { kind: 'pressure', blocksMax: random.int(0, 12) };
  return { kind: round % 4 === 1 ? 'spilled' : 'dropped' };
}

/** Which weights each sequence can have met: those published by its begin, and those by its end. */
class Versions {
  /** Begun to be published. */
  newest = 0;
  /** In the engine. */
  settled = 0;
  readonly #from = new Map<number, number>();
  /** The version under which all of a sequence ran, from its first row on, for those that met no other. */
  readonly whole = new Map<number, number>();

  begins(id: number): void {
    if (this.newest === this.settled) this.#from.set(id, this.newest);
  }

  readonly receive = ({ finished }: EngineUpdate): void => {
    for (const { id } of finished) {
      const from = this.#from.get(id);
      if (from !== undefined && from === this.newest) this.whole.set(id, from);
    }
  };
}

interface Run {
  readonly outcomes: Outcomes;
  readonly versions: Versions;
  /** Of each version. */
  readonly weights: ReadonlyMap<number, Buckets>;
  readonly preemptions: readonly PreemptionRecord[];
}

/** A lane that trains and publishes again and again while its engine has to give up memory and gets more to do. */
async function run(random: Random, model: Model, copies: Copies, learningRate: number): Promise<Run> {
  const { config, layout, buckets } = model;
  const outcomes = new Outcomes();
  const versions = new Versions();
  const weights = new Map([[0, buckets]]);
  const gpu = await openGpu();
  const lane = new Lane(gpu, { lane: 0, settings: SETTINGS, doorbell: null }, (update) => {
    outcomes.receive(update);
    versions.receive(update);
  });
  const batch = randomRollouts(random, model, [20, 30]);
  const train = (rate: number): Promise<unknown> => {
    const options = { objective: OBJECTIVE, learningRate: rate };
    return lane.handle({ kind: 'train', job: 'job', requestedMs: nowMs(), sequences: batch, options });
  };
  const publish = async (version: number): Promise<void> => {
    versions.newest = version;
    await lane.handle({ kind: 'publish', job: 'job', version, store: null });
    versions.settled = version;
  };
  const keep = async (version: number): Promise<void> => {
    const answer = await lane.handle({ kind: 'exportWeights', job: 'job' });
    if (answer !== null && 'weights' in answer) weights.set(version, answer.weights);
  };
  const add = async (count: number): Promise<void> => {
    const sequences = Array.from({ length: count }, () => copies.next());
    for (const { id } of sequences) versions.begins(id);
    await lane.handle({ kind: 'add', job: 'job', sequences });
  };
  const left = (): number => copies.made - endedOf(outcomes);

  await lane.handle({
    kind: 'createTrainer',
    job: 'job',
    weight: 1,
    config,
    layout,
    options: TRAINER,
    weights: buckets,
  });
  // What a step and an export need is taken once and kept.
  await train(0);
  await keep(0);
  const bytesBefore = gpu.bytesAllocated;
  await lane.handle({
    kind: 'createEngine',
    job: 'job',
    weight: 1,
    config,
    layout,
    options: SMALL,
    store: null,
  });
  const bytesWithEngine = gpu.bytesAllocated;
  await publish(0);
  for (let round = 0; round < ROUNDS; round++) {
    await lane.handle({ kind: 'configure', settings: { ...SETTINGS, kvOnPreempt: kvOf(round, random) } });
    await add(Math.max(0, SEQUENCES - left()));
    const tokens = tokensOf(outcomes);
    await until(() => tokensOf(outcomes) > tokens, 'a token');
    await gap(5 * random.uniform());
    const publishes = round < ROUNDS - ROUNDS_IN_PEACE && random.uniform() < PUBLISHED_SHARE;
    const training = train(learningRate);
    // The engine is still yielding.
    const publishing = publishes ? publish(versions.newest + 1) : Promise.resolve();
    await add(random.int(0, 2));
    await gap(random.uniform());
    await add(random.int(0, 2));
    await Promise.all([training, publishing]);
    if (publishes) await keep(versions.newest);
  }
  await until(() => left() === 0, 'all sequences to end');
  await gap(10);
  expect(gpu.bytesAllocated, 'bytes once every cache is back').toBe(bytesWithEngine);
  await lane.handle({ kind: 'removeEngine', job: 'job' });
  expect(gpu.bytesAllocated, 'bytes without the engine').toBe(bytesBefore);
  const { preemptions } = lane.takeRecords(true);
  await lane.handle({ kind: 'close' });
  await lane.running;
  return { outcomes, versions, weights, preemptions };
}

function expectVersions({ outcomes, versions }: Run, label: string): void {
  for (const [id, outcome] of outcomes.byId) {
    const named = `${label}: versions of copy ${id}`;
    expect(outcome.versions.length, named).toBe(outcome.tokenIds.length);
    expect(outcome.versions, named).toEqual(outcome.versions.toSorted((a, b) => a - b));
    expect(outcome.versions.at(-1) ?? 0, named).toBeLessThanOrEqual(versions.newest);
    const whole = versions.whole.get(id);
    if (whole !== undefined) expect(new Set([...outcome.versions, whole]), named).toEqual(new Set([whole]));
  }
}

function expectTravelled({ preemptions, versions }: Run, label: string): Record<string, number> {
  const sum = (of: (record: PreemptionRecord) => number): number =>
    preemptions.reduce((total, record) => total + of(record), 0);
  const told = {
    preemptions: preemptions.length,
    spilled: sum(({ kv }) => kv.spilled),
    dropped: sum(({ kv }) => kv.dropped),
    tokensRecomputed: sum(({ tokensRecomputed }) => tokensRecomputed),
    versions: versions.newest + 1,
    whole: versions.whole.size,
  };
  for (const [what, count] of Object.entries(told)) expect(count, `${label}: ${what}`).toBeGreaterThan(2);
  expectOrdered(preemptions, label);
  return told;
}

it.for(seeds())('memory pressure changes no bit, whatever is published, seed %i', async (seed, context) => {
  const random = new Random(seed).fork('pressure');
  const model = awkwardModel(random, false);
  const requests = randomRequests(random, model, 16);
  const copies = new Copies(requests, await undisturbed(device, model, requests));
  // Every version is the same weights.
  const done = await run(random, model, copies, 0);
  const label = `seed ${seed}`;
  copies.check(done.outcomes, new Set(), label);
  expectVersions(done, label);
  await context.annotate(`${label}: ${JSON.stringify(expectTravelled(done, label))}`);
});

it.for(seeds())('a sequence that meets one version has its bits, seed %i', async (seed, context) => {
  const random = new Random(seed).fork('published');
  const model = awkwardModel(random, true);
  const requests = randomRequests(random, model, 16);
  const copies = new Copies(requests, new Outcomes());
  const done = await run(random, model, copies, 1e-2);
  const label = `seed ${seed}`;
  expectVersions(done, label);
  for (const version of new Set(done.versions.whole.values())) {
    const buckets = done.weights.get(version);
    assert(buckets !== undefined, `${label}: no weights of version ${version}`);
    const expected = new Copies(requests, await undisturbed(device, { ...model, buckets }, requests));
    for (const [id, outcome] of done.outcomes.byId)
      if (done.versions.whole.get(id) === version)
        expected.checkOne(id, outcome, new Set(), `${label}: copy ${id} under version ${version}`);
  }
  await context.annotate(`${label}: ${JSON.stringify(expectTravelled(done, label))}`);
});
