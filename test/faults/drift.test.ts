import { expect, it } from 'vitest';
import type { Program } from '#src/gpu/ops.js';
import { laneSettings } from '#src/lanes/settings.js';
import { Random } from '#src/lib/prng.js';
import type { SliceRecord } from '#src/telemetry/records.js';
import { useGpu } from '../helpers/gpu.js';
import { seeds } from '../helpers/seeds.js';
import { HandFed, median } from './fixtures.js';
import { LoopKernel } from './loop-kernel.js';

const device = useGpu();
/** Each dispatch is a slice of its own, and nothing is queued behind it: so it is known how long each of them took. */
const BUDGETS = { sliceUs: 100, inFlightUs: 0 };
const DISPATCH_US = 2000;
const CHANGES = 12;
const SLICES_TO_CONVERGE = 20;
const SLICES_LOOKED_AT = 20;
const SLICES = SLICES_TO_CONVERGE + SLICES_LOOKED_AT;
/** Of a change little is known yet when the first slices after it are submitted. */
const SLICES_SURPRISED = 2;
/** As the cost model has it, so that a thread that had to wait does not count for more than all the rest. */
const RATIO_MAX = 5;

/** How long a dispatch takes in each phase, as multiples of the first: twice or half as long as in the one before. */
function randomFactors(random: Random): number[] {
  const factors = [1];
  while (factors.length <= CHANGES) factors.push(factors.at(-1) === 1 ? random.pick([0.5, 2]) : 1);
  return factors;
}

function ratio({ startedMs, finishedMs, predictedUs }: SliceRecord): number {
  return Math.min(RATIO_MAX, ((finishedMs - startedMs) * 1000) / predictedUs);
}

const mean = (values: readonly number[]): number =>
  values.reduce((sum, value) => sum + value, 0) / values.length;

const title = 'the cost model follows slices that suddenly take twice or half as long, seed %i';
it.for(seeds())(title, async (seed, context) => {
  const factors = randomFactors(new Random(seed).fork('drift'));
  const loop = await LoopKernel.calibrate(device.gpu);
  const fed = new HandFed(device, laneSettings(BUDGETS));
  const dispatches = function* (count: number, factor: number): Program {
    for (let i = 0; i < count; i++) yield loop.dispatch('drifting', factor * DISPATCH_US);
  };
  // What a kernel takes that was never seen is not drift.
  for (let i = 0; i < 5; i++) {
    await fed.run(dispatches(1, 1));
    await fed.executor.idle(fed.yielding);
  }
  fed.executor.takeRecords();
  const program = function* (): Program {
    for (const factor of factors) yield* dispatches(SLICES, factor);
  };
  await fed.run(program());
  await fed.executor.idle(fed.yielding);
  const { slices } = fed.executor.takeRecords();
  await fed.stop();
  loop.destroy();
  expect(slices.length, `seed ${seed}`).toBe(factors.length * SLICES);

  const after = (change: number): { surprised: number; settled: number; settledMedian: number } => {
    const ratios = factors.flatMap((factor, phase) =>
      factor / (factors[phase - 1] ?? factor) === change
        ? [slices.slice(phase * SLICES, (phase + 1) * SLICES).map(ratio)]
        : [],
    );
    const surprised = median(ratios.flatMap((own) => own.slice(0, SLICES_SURPRISED)));
    const settled = ratios.flatMap((own) => own.slice(SLICES_TO_CONVERGE));
    return { surprised, settled: mean(settled), settledMedian: median(settled) };
  };
  const slower = after(2);
  const faster = after(0.5);
  const label = `seed ${seed}, real to predicted: ${JSON.stringify({ slower, faster })}`;
  await context.annotate(label);
  expect(slower.surprised, label).toBeGreaterThan(1.5 * faster.surprised);
  // The median: a slice during which the machine stood still says nothing of what the model has learnt. One that had not
  // followed would be off by the whole factor, every slice.
  for (const { settledMedian } of [slower, faster]) {
    expect(settledMedian, label).toBeGreaterThan(0.7);
    expect(settledMedian, label).toBeLessThan(1.4);
  }
});
