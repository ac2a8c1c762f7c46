import { describe, expect, it } from 'vitest';
import { runProgram } from '#src/gpu/slice-encoder.js';
import { cut, groups, THREADS } from '#src/kernels/launch.js';
import { at } from '#src/lib/assert.js';
import { Random } from '#src/lib/prng.js';
import { expectSameBits, normals, untouched } from '../helpers/arrays.js';
import { readF32, upload, useGpu } from '../helpers/gpu.js';
import { adamwStep } from '../oracle/adamw.js';
import { expectClose } from '../oracle/compare.js';

const SEEDS = [1, 2, 3];
const LENGTHS = [1, 2, 63, 64, 65, 1000, 4097];

const device = useGpu();

type Floats = Float32Array<ArrayBuffer>;

/** Partial sums of squares of values[start … start + count), in `pieces` dispatches. */
async function partialSums(
  values: Floats,
  { start, count, stretch }: { start: number; count: number; stretch: number },
  pieces: number,
): Promise<Floats> {
  const { gpu, kernels } = device;
  const total = Math.ceil(count / stretch);
  const partials = upload(gpu, untouched(total + 2));
  const kernel = kernels.bind(
    'sum_squares',
    { overrides: {}, prelude: {} },
    { values: upload(gpu, values), partials },
  );
  const dispatches = [...cut(count, stretch * THREADS, pieces)].map(([from, length]) =>
    kernel.dispatch(
      { start: start + from, count: length, stretch, partial_start: from / stretch },
      [groups(Math.ceil(length / stretch)), 1, 1],
      length,
    ),
  );
  await runProgram(gpu, dispatches);
  const after = await readF32(gpu, partials, total + 2);
  expectSameBits(after.slice(total), untouched(2), 'past the partials');
  return after.slice(0, total);
}

/** (global norm, clip factor) */
async function clipOf(partials: Floats, normMax: number): Promise<Floats> {
  const { gpu, kernels } = device;
  const result = gpu.createStorage('result', 16);
  const kernel = kernels.bind(
    'clip_scale',
    { overrides: {}, prelude: {} },
    { partials: upload(gpu, partials), result },
  );
  const params = { count: partials.length, norm_max: normMax };
  await runProgram(gpu, [kernel.dispatch(params, [1, 1, 1], 1)]);
  return readF32(gpu, result, 2);
}

interface Hyper {
  readonly learningRate: number;
  readonly beta1: number;
  readonly beta2: number;
  readonly eps: number;
  readonly weightDecay: number;
}

interface Bucket {
  readonly weights: Floats;
  readonly moment1: Floats;
  readonly moment2: Floats;
}

/** Step number `step` over weights[start … start + count). */
async function update(
  before: Bucket,
  gradients: Floats,
  clip: Floats,
  { start, count }: { start: number; count: number },
  hyper: Hyper,
  step: number,
  pieces = 1,
): Promise<Bucket> {
  const { gpu, kernels } = device;
  const weights = upload(gpu, before.weights);
  const moment1 = upload(gpu, before.moment1);
  const moment2 = upload(gpu, before.moment2);
  const kernel = kernels.bind(
    'adamw_update',
    { overrides: {}, prelude: {} },
    { gradients: upload(gpu, gradients), clip: upload(gpu, clip), weights, moment1, moment2 },
  );
  const params = {
    learning_rate: hyper.learningRate,
    beta1: hyper.beta1,
    beta2: hyper.beta2,
    epsilon: hyper.eps,
    weight_decay: hyper.weightDecay,
    correction1: 1 - hyper.beta1 ** step,
    correction2: 1 - hyper.beta2 ** step,
    one_minus_beta1: 1 - hyper.beta1,
    one_minus_beta2: 1 - hyper.beta2,
  };
  const dispatches = [...cut(count, THREADS, pieces)].map(([from, length]) =>
    kernel.dispatch({ ...params, start: start + from, count: length }, [groups(length), 1, 1], length),
  );
  await runProgram(gpu, dispatches);
  const length = before.weights.length;
  return {
    weights: await readF32(gpu, weights, length),
    moment1: await readF32(gpu, moment1, length),
    moment2: await readF32(gpu, moment2, length),
  };
}

describe('sum_squares and clip_scale', () => {
  it.each(SEEDS)('give the norm and the factor of float64 (seed %i)', async (seed) => {
    const random = new Random(seed);
    for (const count of LENGTHS) {
      const [start, stretch] = [random.int(0, 5), random.pick([1, 7, 16])];
      const values = normals(random, start + count + 3, 10 ** random.int(-3, 3));
      const partials = await partialSums(values, { start, count, stretch }, random.int(1, 3));
      const own = Float64Array.from(values.slice(start, start + count));
      const norm = Math.sqrt(own.reduce((sum, value) => sum + value * value, 0));
      for (const normMax of [norm / 3, norm * 3]) {
        const label = `seed ${seed}: ${count} values from ${start}, stretch ${stretch}, max ${normMax}`;
        const [deviceNorm, factor] = await clipOf(partials, normMax);
        expectClose([deviceNorm ?? NaN], [norm], 2e-6, label);
        expectClose([factor ?? NaN], [Math.min(1, normMax / (norm + 1e-6))], 2e-6, `${label}: factor`);
      }
    }
  });

  it('the partial sums have the same bits in any number of pieces', async () => {
    const values = normals(new Random(4), 3000);
    const part = { start: 3, count: 2990, stretch: 7 };
    const all = await partialSums(values, part, 1);
    for (const pieces of [2, 3, 50]) {
      expectSameBits(await partialSums(values, part, pieces), all, `in ${pieces} pieces`);
    }
  });

  it('no gradient at all is not clipped', async () => {
    expect([...(await clipOf(Float32Array.of(0, 0), 1))]).toEqual([0, 1]);
  });
});

describe('adamw_update', () => {
  it.each(SEEDS)('follows float64 through several steps of one bucket (seed %i)', async (seed) => {
    const random = new Random(seed);
    const hyper = {
      learningRate: random.pick([1e-3, 0.1]),
      beta1: random.pick([0, 0.9]),
      beta2: random.pick([0.95, 0.999]),
      eps: 1e-8,
      weightDecay: 0.1,
    };
    const [start, decayed, plain] = [random.int(0, 4), random.pick(LENGTHS), random.pick(LENGTHS)];
    const length = start + decayed + plain + 2;
    const tensor = (values: Floats, from: number, count: number) =>
      Float64Array.from(values.slice(from, from + count));
    const split = (values: Floats) =>
      new Map([
        ['decayed', tensor(values, start, decayed)],
        ['plain', tensor(values, start + decayed, plain)],
      ]);
    const tensors = [
      { name: 'decayed', decay: true },
      { name: 'plain', decay: false },
    ];
    let bucket: Bucket = {
      weights: normals(random, length),
      moment1: new Float32Array(length),
      moment2: new Float32Array(length),
    };
    for (let step = 1; step <= 4; step++) {
      const gradients = normals(random, length, 10 ** random.int(-4, 1));
      const maxGradNorm = random.pick([0.5, 1e9]);
      const wanted = adamwStep(
        tensors,
        split(bucket.weights),
        split(gradients),
        { step: step - 1, firstMoments: split(bucket.moment1), secondMoments: split(bucket.moment2) },
        { ...hyper, maxGradNorm },
      );
      const range = { start, count: decayed + plain, stretch: 8 };
      const clip = await clipOf(await partialSums(gradients, range, 1), maxGradNorm);
      const pieces = random.int(1, 3);
      const halfway = await update(bucket, gradients, clip, { start, count: decayed }, hyper, step, pieces);
      const rest = { start: start + decayed, count: plain };
      const after = await update(halfway, gradients, clip, rest, { ...hyper, weightDecay: 0 }, step, pieces);

      const outside = (all: Floats) => Float32Array.of(...all.slice(0, start), ...all.slice(-2));
      for (const [what, expected] of [
        ['weights', wanted.params],
        ['moment1', wanted.state.firstMoments],
        ['moment2', wanted.state.secondMoments],
      ] as const) {
        const label = `seed ${seed}, step ${step}: ${what}`;
        for (const [name, own] of split(after[what])) {
          expectClose(own, expected.get(name) ?? [], 2e-6, `${label} of ${name}`);
        }
        expectSameBits(outside(after[what]), outside(bucket[what]), `${label} around the range`);
      }
      bucket = after;
    }
  });

  it.each([NaN, Infinity, 3e38])('a gradient with %d in it skips the step', async (bad) => {
    const random = new Random(6);
    const bucket = {
      weights: normals(random, 100),
      moment1: normals(random, 100),
      moment2: normals(random, 100),
    };
    const gradients = normals(random, 100);
    gradients[50] = bad;
    const clip = await clipOf(await partialSums(gradients, { start: 0, count: 100, stretch: 10 }, 1), 1);
    // 3e38 is finite; its square is not.
    expect(Number.isFinite(at(clip, 0))).toBe(false);
    const hyper = { learningRate: 0.1, beta1: 0.9, beta2: 0.999, eps: 1e-8, weightDecay: 0.1 };
    const after = await update(bucket, gradients, clip, { start: 0, count: 100 }, hyper, 1);
    expectSameBits(after.weights, bucket.weights, 'weights');
    expectSameBits(after.moment1, bucket.moment1, 'first moments');
    expectSameBits(after.moment2, bucket.moment2, 'second moments');
  });

  it('gives the same bits in any number of pieces', async () => {
    const random = new Random(7);
    const length = 1000;
    const squares = normals(random, length).map((value) => value * value);
    const bucket = { weights: normals(random, length), moment1: normals(random, length), moment2: squares };
    const gradients = normals(random, length);
    const hyper = { learningRate: 0.01, beta1: 0.9, beta2: 0.99, eps: 1e-8, weightDecay: 0.01 };
    const range = { start: 2, count: 990 };
    const clip = Float32Array.of(3, 0.4);
    const all = await update(bucket, gradients, clip, range, hyper, 3);
    for (const pieces of [2, 7, 1000]) {
      const cutUp = await update(bucket, gradients, clip, range, hyper, 3, pieces);
      expectSameBits(cutUp.weights, all.weights, `weights in ${pieces} pieces`);
      expectSameBits(cutUp.moment1, all.moment1, `first moments in ${pieces} pieces`);
      expectSameBits(cutUp.moment2, all.moment2, `second moments in ${pieces} pieces`);
    }
  });
});
