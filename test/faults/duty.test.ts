import { expect, it } from 'vitest';
import type { Program } from '#src/gpu/ops.js';
import { laneSettings } from '#src/lanes/settings.js';
import { nowMs } from '#src/lib/clock.js';
import { Random } from '#src/lib/prng.js';
import type { SliceRecord, StarvationRecord } from '#src/telemetry/records.js';
import { randomRequests } from '../engine/fixtures.js';
import { useGpu } from '../helpers/gpu.js';
import { seeds } from '../helpers/seeds.js';
import { awkwardModel } from '../train/fixtures.js';
import { Copies, expectOrdered, HandFed, undisturbed, until } from './fixtures.js';
import { LoopKernel } from './loop-kernel.js';

const device = useGpu();
const SETTINGS = laneSettings({ sliceUs: 500, inFlightUs: 1000 });
const FLOOR = 0.2;
const DISPATCH_US = 500;
const SEQUENCES = 8;
/** So many that generation need not wait for its own tokens behind the slices of others. */
const STEPS_AHEAD = 12;
/** Slices are predicted to take 10 ms at most. */
const SLICE_MS_MAX = 20;

interface Duty {
  readonly starved: readonly StarvationRecord[];
  /** Of the device's time while the urgent one never rested. */
  readonly generationShare: number;
  readonly tokens: number;
}

/** The urgent one holds the device for so long without a break; then everybody comes to an end. */
async function duty(seed: number, dutyMs: number, generationFloor: number): Promise<Duty> {
  const label = `seed ${seed}, floor ${generationFloor}`;
  const random = new Random(seed).fork('duty');
  const model = awkwardModel(random, true);
  const requests = randomRequests(random, model, 16);
  const copies = new Copies(requests, await undisturbed(device, model, requests));
  const loop = await LoopKernel.calibrate(device.gpu);
  const fed = new HandFed(device, { ...SETTINGS, generationFloor });
  const engine = await fed.load(model, { stepsAheadMax: STEPS_AHEAD });
  const feed = (): void => {
    while (engine.sequenceCount < SEQUENCES) fed.add(copies.next());
  };
  // The cost model has to see the kernels first.
  const begun = (): boolean => {
    feed();
    return fed.tokens > 50;
  };
  await until(begun, 'the first tokens');
  await fed.preemptToEnd(restless(loop, 50, feed));
  fed.executor.takeRecords();
  feed();
  const tokensBefore = fed.tokens;
  const fromMs = nowMs();
  await fed.preemptToEnd(restless(loop, dutyMs, feed));
  const untilMs = nowMs();
  const tokens = fed.tokens - tokensBefore;
  await fed.finish();
  const { slices, starved } = fed.executor.takeRecords();
  const preemptions = fed.log.take(true);
  await fed.stop();
  loop.destroy();
  copies.check(fed.outcomes, new Set(), label);
  expect(preemptions.length, label).toBe(fed.asked);
  expectOrdered(preemptions, label);
  const during = slices.filter((slice) => slice.submittedMs > fromMs && slice.finishedMs < untilMs);
  const generating = timeOf(during.filter(({ resident }) => resident === 'engine'));
  return { starved, generationShare: generating / timeOf(during), tokens };
}

function* restless(loop: LoopKernel, dutyMs: number, meanwhile: () => void): Program {
  const untilMs = nowMs() + dutyMs;
  while (nowMs() < untilMs) {
    meanwhile();
    yield loop.dispatch('restless', DISPATCH_US);
  }
}

/** Time the slices took, in ms; where one took very long the machine had something else to do. */
const timeOf = (slices: readonly SliceRecord[]): number =>
  slices.reduce((sum, { startedMs, finishedMs }) => sum + Math.min(SLICE_MS_MAX, finishedMs - startedMs), 0);

it.for(seeds())(
  'without a floor generation starves under a stage that never rests, seed %i',
  async (seed) => {
    const { starved, generationShare, tokens } = await duty(seed, 1500, 0);
    const label = `seed ${seed}`;
    expect(generationShare, label).toBeLessThan(0.02);
    expect(tokens, label).toBeLessThan(SEQUENCES * STEPS_AHEAD);
    expect(starved.length, `${label}: said to starve`).toBe(1);
    for (const { fromMs, toMs } of starved) expect(toMs - fromMs, label).toBeGreaterThan(1000);
  },
);

it.for(seeds())('a floor gives generation its share of the device, seed %i', async (seed, context) => {
  const { starved, generationShare, tokens } = await duty(seed, 3000, FLOOR);
  const label = `seed ${seed}: ${JSON.stringify({ generationShare, tokens })}`;
  await context.annotate(label);
  expect(generationShare, label).toBeGreaterThan(FLOOR - 0.05);
  expect(generationShare, label).toBeLessThan(FLOOR + 0.05);
  expect(tokens, label).toBeGreaterThan(SEQUENCES);
  expect(starved, label).toEqual([]);
});
