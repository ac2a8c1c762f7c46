import { describe, expect, it } from 'vitest';
import type { SamplingParams } from '#src/kernels/output-head.js';
import { Random, rolloutKey } from '#src/lib/prng.js';
import { normals } from '../helpers/arrays.js';
import { chiSquarePValue, upperGamma } from '../helpers/chi-square.js';
import { useGpu } from '../helpers/gpu.js';
import { distribution, RAW_SAMPLING } from '../oracle/sampling.js';
import { sampleRows } from './sample-rows.js';

const SEED = 20;
const P_VALUE_MIN = 1e-6;
const CASES: readonly (readonly [string, SamplingParams])[] = [
  ['plain', RAW_SAMPLING],
  ['temperature 0.5', { ...RAW_SAMPLING, temperature: 0.5 }],
  ['temperature 2', { ...RAW_SAMPLING, temperature: 2 }],
  ['top_k', { ...RAW_SAMPLING, topK: 5 }],
  ['top_p', { ...RAW_SAMPLING, topP: 0.8 }],
  ['min_p', { ...RAW_SAMPLING, minP: 0.1 }],
  ['all together', { temperature: 1.5, topK: 12, topP: 0.9, minP: 0.05 }],
];
/** Few tokens share 8 lanes a row, many 64. */
const SIZES = [
  { vocabulary: 23, draws: 20_000 },
  { vocabulary: 600, draws: 2_000 },
];

const device = useGpu();

/** How often each token came out of draws that share their logits and differ in key and position. */
async function countDraws(logits: Float32Array, params: SamplingParams, draws: number): Promise<number[]> {
  const requests = Array.from({ length: draws }, (_, index) => ({
    logits,
    params,
    key: rolloutKey(SEED, `prompt ${Math.floor(index / 100)}`, Math.floor(index / 10)),
    position: index % 10,
  }));
  const counts = new Array<number>(logits.length).fill(0);
  for (const { token } of await sampleRows(device, requests)) counts[token] = (counts[token] ?? NaN) + 1;
  return counts;
}

describe.each(SIZES)('draws among $vocabulary tokens', ({ vocabulary, draws }) => {
  it.each(CASES)('follow their distribution: %s', async (_name, params) => {
    const logits = normals(new Random(SEED).fork(vocabulary), vocabulary, 1.5);
    const { logprob } = distribution(logits, params);
    const wanted = Array.from(logits, (_, token) => Math.exp(logprob(token)));
    const counts = await countDraws(logits, params, draws);
    const pValue = chiSquarePValue(counts, wanted);
    expect(pValue, `seed ${SEED}: p-value of ${draws} draws`).toBeGreaterThan(P_VALUE_MIN);
  });
});

it('draws that follow another distribution would be noticed', async () => {
  const logits = normals(new Random(SEED), 23, 1.5);
  const { logprob } = distribution(logits, { ...RAW_SAMPLING, temperature: 1.1 });
  const wanted = Array.from(logits, (_, token) => Math.exp(logprob(token)));
  expect(chiSquarePValue(await countDraws(logits, RAW_SAMPLING, 20_000), wanted)).toBeLessThan(P_VALUE_MIN);
});

it('the p-value itself is right', () => {
  // Upper 5 % points of chi-square with 1, 10 and 100 degrees of freedom, from tables.
  for (const [freedom, point] of [
    [1, 3.841459],
    [10, 18.307038],
    [100, 124.342113],
  ] as const) {
    expect(upperGamma(freedom / 2, point / 2)).toBeCloseTo(0.05, 6);
  }
  expect(upperGamma(1, 30)).toBeCloseTo(Math.exp(-30), 20);
  expect(chiSquarePValue([50, 50], [0.5, 0.5])).toBe(1);
  expect(chiSquarePValue([50, 50, 1], [0.5, 0.5, 0])).toBe(0);
});
