import { expect, it } from 'vitest';
import type { KvOnPreempt } from '#src/engine/engine.js';
import { RemoteLane } from '#src/lanes/remote-lane.js';
import { laneSettings } from '#src/lanes/settings.js';
import { nowMs } from '#src/lib/clock.js';
import { Random } from '#src/lib/prng.js';
import { quantiles } from '#src/telemetry/quantiles.js';
import type { LaneRecords, PreemptionRecord, SliceRecord } from '#src/telemetry/records.js';
import { Outcomes, randomRequests, SMALL } from '../engine/fixtures.js';
import { useGpu } from '../helpers/gpu.js';
import { seeds } from '../helpers/seeds.js';
import { ADAMW, awkwardModel, randomRollouts } from '../train/fixtures.js';
import {
  Copies,
  endedOf,
  expectOrdered,
  gap,
  intruders,
  ofGeneration,
  spansOf,
  undisturbed,
  until,
} from './fixtures.js';

const device = useGpu();
const BUDGETS = { sliceUs: 500, inFlightUs: 1000 };
const TRAINER = { rowsMax: 64, contextTokensMax: 64, adamw: ADAMW };
const ROUNDS = 40;
const BURST = 500;
const SEQUENCES = 8;
/** Requests that the lane's thread reads later than this after they were made are one in ten at most. */
const DETECTED_MS_P90 = 20;
const WAYS: readonly KvOnPreempt[] = [{ kind: 'held' }, { kind: 'spilled' }];
const cases = seeds().flatMap((seed) => WAYS.map((kv) => ({ seed, kv, kind: kv.kind })));

const title = 'host work of low priority keeps no stage waiting, caches $kind, seed $seed';
it.for(cases)(title, async ({ seed, kv, kind }, context) => {
  const label = `seed ${seed}, ${kind}`;
  const random = new Random(seed).fork(kind);
  const model = awkwardModel(random, false);
  const { config, layout, buckets: weights } = model;
  const requests = randomRequests(random, model, 16);
  const copies = new Copies(requests, await undisturbed(device, model, requests));
  const aborted = new Set<number>();
  const outcomes = new Outcomes();
  const slices: SliceRecord[] = [];
  const preemptions: PreemptionRecord[] = [];
  const detectionsMs: number[] = [];
  const take = (records: LaneRecords): void => {
    slices.push(...records.slices);
    preemptions.push(...records.preemptions);
    for (const { stage, requestedMs, detectedMs } of [...records.preemptions, ...records.undisturbed])
      if (stage === 'oldLogProbs') detectionsMs.push(detectedMs - requestedMs);
  };
  const lane = await RemoteLane.open(
    { lane: 0, adapter: null, settings: { ...laneSettings(BUDGETS), kvOnPreempt: kv } },
    { onTokens: outcomes.receive, onRecords: take, onBroken: (error) => expect.fail(error.message) },
  );
  await lane.request({
    kind: 'createTrainer',
    job: 'job',
    weight: 1,
    config,
    layout,
    options: TRAINER,
    weights,
  });
  await lane.request({
    kind: 'createEngine',
    job: 'job',
    weight: 1,
    config,
    layout,
    options: SMALL,
    store: null,
  });
  await lane.request({ kind: 'publish', job: 'job', version: 0, store: null });
  const add = (count: number): number[] => {
    const sequences = Array.from({ length: count }, () => copies.next());
    void lane.request({ kind: 'add', job: 'job', sequences });
    return sequences.map(({ id }) => id);
  };
  const sequences = randomRollouts(random, model, [20, 12]);
  const score = (): Promise<unknown> =>
    lane.request({
      kind: 'score',
      job: 'job',
      requestedMs: nowMs(),
      stage: 'oldLogProbs',
      which: 'policy',
      sequences,
    });
  await score();
  detectionsMs.length = 0;
  for (let round = 0; round < ROUNDS; round++) {
    add(Math.max(0, SEQUENCES - (copies.made - endedOf(outcomes))));
    await gap(10 * random.uniform());
    if (random.uniform() < 0.3) await lane.request({ kind: 'exportWeights', job: 'job' });
    const burst = random.uniform() < 0.5 ? add(BURST) : [];
    await score();
    for (const id of burst) aborted.add(id);
    await lane.request({ kind: 'abort', job: 'job', ids: burst });
  }
  await until(() => endedOf(outcomes) === copies.made, 'all sequences to end');
  take(await lane.request({ kind: 'flush' }));
  await lane.close();
  const detected = quantiles(detectionsMs);
  await context.annotate(`${label}: from request to detection ${JSON.stringify(detected)}`);
  copies.check(outcomes, aborted, label);
  expectOrdered(preemptions, label);
  expect(detected.n, label).toBeGreaterThanOrEqual(ROUNDS);
  expect(detected.p90, label).toBeLessThan(DETECTED_MS_P90);
  // What leaves may finish its step and move its caches first; what stays may submit nothing more.
  if (kind === 'held')
    expect(intruders(ofGeneration(slices), spansOf(preemptions, slices)), label).toEqual([]);
});
