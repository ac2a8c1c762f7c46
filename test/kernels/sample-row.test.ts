import { describe, expect, it } from 'vitest';
import {
  FLAG_ALREADY_DONE,
  FLAG_STOPPED,
  USES_TOP_K,
  USES_TOP_P,
  type SamplingParams,
} from '#src/kernels/output-head.js';
import { at } from '#src/lib/assert.js';
import { Random, type Key } from '#src/lib/prng.js';
import { expectSameBits, normals, shuffled } from '../helpers/arrays.js';
import { useGpu } from '../helpers/gpu.js';
import { expectClose } from '../oracle/compare.js';
import {
  distribution,
  forcedDistribution,
  RAW_SAMPLING,
  sample,
  type Distribution,
} from '../oracle/sampling.js';
import { NO_TOKEN, sampleRows, uniformOf, type SampledRow, type SampleRequest } from './sample-rows.js';

const SEEDS = [1, 2, 3];
/** Fewer tokens than lanes, not divisible by them, and past 512 where a row takes 64 lanes. */
const VOCABULARIES = [1, 2, 7, 8, 9, 37, 100, 511, 512, 513, 600];
const TOLERANCE = 2e-6;

const GREEDY: SamplingParams = { ...RAW_SAMPLING, temperature: 0 };
const EVERY_FILTER: SamplingParams = { temperature: 0.8, topK: 20, topP: 0.9, minP: 0.02 };
const PARAMS: readonly SamplingParams[] = [
  RAW_SAMPLING,
  GREEDY,
  { ...RAW_SAMPLING, temperature: 0.3 },
  { ...RAW_SAMPLING, temperature: 1.7 },
  { ...RAW_SAMPLING, topK: 1 },
  { ...RAW_SAMPLING, topK: 3 },
  { ...RAW_SAMPLING, topK: 100_000 },
  { ...RAW_SAMPLING, topP: 0.1 },
  { ...RAW_SAMPLING, topP: 0.95 },
  { ...RAW_SAMPLING, minP: 0.3 },
  { ...RAW_SAMPLING, minP: 1 },
  { ...GREEDY, topK: 2, topP: 0.5, minP: 0.5 },
  EVERY_FILTER,
];

const device = useGpu();

function randomKey(random: Random): Key {
  return [random.word(), random.word()];
}

/** How far a number may move in float32 arithmetic over a few hundred terms. */
const MARGIN = 2e-5;

function tokensKept({ kept }: Distribution): number {
  return kept.filter(Boolean).length;
}

/** True when neither the kept tokens nor the draw hang on the last digits, so that float32 must agree with float64. */
function isSettled({ logits, params, key, position }: SampleRequest): boolean {
  const kept = tokensKept(distribution(logits, params));
  const uniform = uniformOf(key, position);
  const token = sample(logits, params, uniform);
  for (const sign of [-1, 1]) {
    const topP = params.topP === 1 ? 1 : Math.min(1, params.topP + sign * MARGIN);
    const minP = Math.min(1, params.minP * (1 + sign * MARGIN));
    if (tokensKept(distribution(logits, { ...params, topP, minP })) !== kept) return false;
    if (sample(logits, params, Math.min(1, Math.max(0, uniform + sign * MARGIN))) !== token) return false;
  }
  return true;
}

function settledRequest(random: Random, vocabulary: number, params: SamplingParams): SampleRequest {
  const [sharpness, shift] = [random.pick([0.5, 2, 5]), random.pick([0, 0, -20, 30])];
  for (let tries = 0; tries < 100; tries++) {
    const request = {
      logits: normals(random, vocabulary, sharpness).map((logit) => logit + shift),
      params,
      key: randomKey(random),
      position: random.int(0, 5000),
    };
    if (isSettled(request)) return request;
  }
  throw new Error(`no settled row of ${vocabulary} for ${JSON.stringify(params)}`);
}

/** Errors of a log-probability are those of the scaled logits it is the difference of. */
function toleranceOf({ logits, params }: SampleRequest): number {
  const temperature = params.temperature === 0 ? 1 : params.temperature;
  return logits.reduce((largest, logit) => Math.max(largest, Math.abs(logit) / temperature), 1) * TOLERANCE;
}

function checkRow(row: SampledRow, request: SampleRequest, wanted: Distribution, label: string): void {
  const { token, stats } = row;
  const compared = {
    logprob: [row.logprob, wanted.logprob(token)],
    rawLogprob: [row.rawLogprob, wanted.rawLogprob(token)],
    logsumexp: [stats.logsumexp, wanted.logSumExp],
    entropy: [stats.entropy, wanted.entropy],
  };
  for (const [what, [actual = NaN, expected = NaN]] of Object.entries(compared)) {
    const error = Math.abs(actual - expected);
    if (error > toleranceOf(request) || Number.isNaN(error)) {
      throw new Error(`${label}: ${what} is ${actual}, expected ${expected}`);
    }
  }
}

function rowLabel(seed: number, { logits, params }: SampleRequest, row: number): string {
  return `seed ${seed}: row ${row} of ${logits.length} tokens, ${JSON.stringify(params)}`;
}

describe('a draw', () => {
  it.each(SEEDS)('is the token, and has the log-probabilities, of float64 (seed %i)', async (seed) => {
    for (const vocabulary of VOCABULARIES) {
      const random = new Random(seed).fork(vocabulary);
      const requests = PARAMS.flatMap((params) => [
        settledRequest(random, vocabulary, params),
        settledRequest(random, vocabulary, params),
      ]);
      const drawn = await sampleRows(device, requests, { random, pieces: random.int(1, 3) });
      for (const [row, request] of requests.entries()) {
        const label = rowLabel(seed, request, row);
        const { logits, params, key, position } = request;
        const own = at(drawn, row);
        const wanted = distribution(logits, params);
        expect(own.token, label).toBe(sample(logits, params, uniformOf(key, position)));
        expect(own.slotToken, label).toBe(own.token);
        expect(own.flags, label).toBe(0);
        checkRow(own, request, wanted, label);
        const keptAll = wanted.kept.every(Boolean);
        if (!keptAll) expectClose([own.stats.threshold], [wanted.threshold], 1e-6, `${label}: threshold`);
        const inverse = params.temperature === 0 ? 1 : 1 / params.temperature;
        expectClose([own.stats.inverseTemperature], [inverse], 1e-6, label);
      }
    }
  });

  it.each(SEEDS)('keeps every token that ties with the last one kept (seed %i)', async (seed) => {
    const random = new Random(seed).fork('ties');
    const requests: SampleRequest[] = [];
    for (const params of [
      { ...RAW_SAMPLING, topK: 4 },
      { ...RAW_SAMPLING, topP: 0.7 },
      { ...RAW_SAMPLING, temperature: 0.5, topK: 9, topP: 0.6 },
      { ...RAW_SAMPLING, minP: 1 },
      GREEDY,
    ]) {
      for (let tries = 0; tries < 5; tries++) {
        const logits = Float32Array.from({ length: 50 }, () => random.int(-2, 2));
        const request = { logits, params, key: randomKey(random), position: tries };
        if (isSettled(request)) requests.push(request);
      }
    }
    expect(requests.length).toBeGreaterThan(15);
    const drawn = await sampleRows(device, requests, { random });
    for (const [row, request] of requests.entries()) {
      const label = rowLabel(seed, request, row);
      const { logits, params, key, position } = request;
      const own = at(drawn, row);
      expect(own.token, label).toBe(sample(logits, params, uniformOf(key, position)));
      checkRow(own, request, distribution(logits, params), label);
    }
  });

  it('marks a stop id once, and every token after it as already done', async () => {
    const random = new Random(8);
    const logits = Float32Array.of(0, 9, 0, 0);
    const base = { logits, params: GREEDY, key: randomKey(random), position: 3 };
    const rows = await sampleRows(
      device,
      [
        { ...base, serial: 5, stops: [] },
        { ...base, serial: 5, stops: [0, 2] },
        { ...base, serial: 5, stops: [0, 1] },
        { ...base, serial: 5, stops: [0], doneBefore: 5 },
        { ...base, serial: 5, stops: [1], doneBefore: 5 },
        { ...base, serial: 6, stops: [3], doneBefore: 5 },
        { ...base, serial: 6, stops: [1], doneBefore: 5 },
      ],
      { random },
    );
    expect(rows.map(({ flags }) => flags)).toEqual([
      0,
      0,
      FLAG_STOPPED,
      FLAG_ALREADY_DONE,
      FLAG_ALREADY_DONE | FLAG_STOPPED,
      0,
      FLAG_STOPPED,
    ]);
    expect(rows.map(({ slotDone }) => slotDone)).toEqual([0, 0, 5, 5, 5, 5, 6]);
  });

  it('takes some token of the vocabulary when no logit is a number, and its log-probability shows it', async () => {
    for (const vocabulary of [5, 600]) {
      const logits = new Float32Array(vocabulary).fill(NaN);
      const key: Key = [1, 2];
      const requests = [RAW_SAMPLING, GREEDY, EVERY_FILTER].map((params) => ({
        logits,
        params,
        key,
        position: 0,
      }));
      for (const { token, rawLogprob } of await sampleRows(device, requests)) {
        expect(token).toBeLessThan(vocabulary);
        expect(rawLogprob).toBeNaN();
      }
    }
  });
});

describe('a given token', () => {
  it.each(SEEDS)('is scored, below the threshold too, and changes no slot (seed %i)', async (seed) => {
    for (const vocabulary of VOCABULARIES) {
      const random = new Random(seed).fork(`given ${vocabulary}`);
      const requests = PARAMS.map((params) => ({
        ...settledRequest(random, vocabulary, params),
        given: random.int(0, vocabulary - 1),
        stops: Array.from({ length: vocabulary }, (_, token) => token).slice(0, 16),
      }));
      const scored = await sampleRows(device, requests, { random });
      for (const [row, request] of requests.entries()) {
        const label = rowLabel(seed, request, row);
        const { logits, params, given } = request;
        const own = at(scored, row);
        expect(own.token, label).toBe(given);
        const forced = forcedDistribution(logits, params, given);
        const { entropy } = distribution(logits, params);
        checkRow(own, request, { ...forced, entropy }, label);
        expect([own.flags, own.slotToken, own.slotDone], label).toEqual([0, NO_TOKEN, 0]);
      }
    }
  });

  it('that was drawn has the bits it was drawn with: the first importance ratio is 1', async () => {
    for (const vocabulary of [37, 600]) {
      const random = new Random(vocabulary);
      const requests = PARAMS.map((params) => ({
        logits: normals(random, vocabulary, 3),
        params,
        key: randomKey(random),
        position: random.int(0, 99),
      }));
      const drawn = await sampleRows(device, requests);
      const given = requests.map((request, row) => ({ ...request, given: at(drawn, row).token }));
      const scored = await sampleRows(device, given, { random, pieces: 3 });
      for (const [row, own] of scored.entries()) {
        expectSameBits(own.words, at(drawn, row).words, `row ${row} of ${vocabulary} tokens`);
      }
    }
  });
});

describe('bits', () => {
  it.each(VOCABULARIES)(
    'of a row of %i do not depend on its company, place or pieces',
    async (vocabulary) => {
      const random = new Random(vocabulary).fork('bits');
      const requests = [...PARAMS, ...PARAMS, ...PARAMS].map((params, row) => ({
        logits: normals(random, vocabulary, 2),
        params,
        key: randomKey(random),
        position: row,
      }));
      const all = await sampleRows(device, requests);
      const order = shuffled(random, requests.length);
      const moved = order.map((row) => at(requests, row));
      for (const pieces of [1, 2, requests.length, 5 * requests.length, Infinity]) {
        const mixed = await sampleRows(device, moved, { random, pieces });
        for (const [place, row] of order.entries()) {
          const label = `row ${row} in place ${place}, ${pieces} pieces`;
          expectSameBits(at(mixed, place).words, at(all, row).words, label);
        }
      }
      for (const row of [0, 1, 12, 38]) {
        const alone = await sampleRows(device, [at(requests, row)]);
        expectSameBits(at(alone, 0).words, at(all, row).words, `row ${row} alone`);
      }
    },
  );

  it.each([37, 600])('of a row of %i do not depend on filters other rows need', async (vocabulary) => {
    const random = new Random(vocabulary).fork('filters');
    const plain = PARAMS.filter(({ topK, topP }) => topK === 0 && topP === 1);
    expect(plain.length).toBeGreaterThan(4);
    const requests = plain.map((params, row) => ({
      logits: normals(random, vocabulary, 2),
      params,
      key: randomKey(random),
      position: row,
    }));
    const without = await sampleRows(device, requests, { filters: 0 });
    for (const filters of [USES_TOP_K, USES_TOP_P, USES_TOP_K | USES_TOP_P]) {
      const rows = await sampleRows(device, requests, { filters });
      for (const [row, own] of rows.entries()) {
        expectSameBits(own.words, at(without, row).words, `row ${row}, filters ${filters}`);
      }
    }
  });
});
