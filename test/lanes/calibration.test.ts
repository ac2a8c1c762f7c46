import { expect, it } from 'vitest';
import type { DispatchOp, Program } from '#src/gpu/ops.js';
import { calibrate } from '#src/lanes/calibration.js';
import { CostModel } from '#src/lanes/cost-model.js';
import { UserError } from '#src/lib/errors.js';
import { Random } from '#src/lib/prng.js';

/** A device whose kernels take a fixed time and one for each unit of work, in µs; the first run of each also compiles. */
class Device {
  readonly runs: string[][] = [];
  readonly #seen = new Set<string>();

  constructor(
    private readonly cost: CostModel,
    private readonly fixedUs: number,
    private readonly noiseUs: () => number = () => 0,
  ) {}

  readonly run = (program: Program): Promise<void> => {
    const kernels: string[] = [];
    for (const op of program) {
      if (op.kind !== 'dispatch') continue;
      const compilesUs = this.#seen.has(op.kernel) ? 0 : 40_000;
      this.#seen.add(op.kernel);
      this.cost.observe(op, compilesUs + this.noiseUs() + this.fixedUs + op.work);
      kernels.push(op.kernel);
    }
    this.runs.push(kernels);
    return Promise.resolve();
  };
}

/** Two kernels; the second may be cut into as many as eight pieces. */
function* work(cost: CostModel): Program {
  yield { kind: 'dispatch', kernel: 'norm', work: 10 } as DispatchOp;
  const pieces = Math.min(8, cost.pieces('matmul', 800));
  for (let i = 0; i < pieces; i++) {
    yield { kind: 'dispatch', kernel: 'matmul', work: 800 / pieces } as DispatchOp;
  }
}

it('runs until each kernel is known, and leaves a model that predicts it', async () => {
  const cost = new CostModel(5000);
  const device = new Device(cost, 20);
  await calibrate({ make: () => work(cost), run: device.run, cost, sliceUs: 5000 });
  expect(device.runs.length).toBeGreaterThanOrEqual(2);
  expect(device.runs.length).toBeLessThanOrEqual(4);
  const op = { kind: 'dispatch', kernel: 'matmul', work: 800 } as DispatchOp;
  expect(cost.isNew(op)).toBe(false);
  expect(cost.predictUs(op)).toBeCloseTo(820);
  // What is known already costs one round.
  const before = device.runs.length;
  await calibrate({ make: () => work(cost), run: device.run, cost, sliceUs: 5000 });
  expect(device.runs.length).toBe(before + 1);
});

it('accepts a budget that cutting can keep, however long the whole takes', async () => {
  const cost = new CostModel(300);
  const device = new Device(cost, 20);
  await calibrate({ make: () => work(cost), run: device.run, cost, sliceUs: 300 });
  expect(device.runs.at(-1)?.length).toBeGreaterThan(4);
});

it('refuses one that it cannot, with the reason and the remedy', async () => {
  const cost = new CostModel(100);
  const device = new Device(cost, 20);
  const refused = calibrate({ make: () => work(cost), run: device.run, cost, sliceUs: 100 });
  await expect(refused).rejects.toThrow(UserError);
  await expect(refused).rejects.toThrow(
    'lanes.slice_budget_us = 100: the smallest dispatch of matmul takes 120 µs on this adapter and cannot be cut further: set it to at least 180',
  );
});

it('goes by the fastest of many timings: a busy host is no reason to refuse', async () => {
  for (let seed = 880; seed < 900; seed++) {
    const random = new Random(seed);
    const cost = new CostModel(300);
    // Four timings in five are far too long.
    const device = new Device(cost, 20, () => (random.uniform() < 0.8 ? random.int(500, 9000) : 0));
    await calibrate({ make: () => work(cost), run: device.run, cost, sliceUs: 300 });
  }
});
