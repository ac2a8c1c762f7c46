import { describe, expect, it } from 'vitest';
import { runProgram } from '#src/gpu/slice-encoder.js';
import { groups } from '#src/kernels/launch.js';
import { SAMPLED_WORDS, type SamplingParams } from '#src/kernels/output-head.js';
import { at } from '#src/lib/assert.js';
import { Random } from '#src/lib/prng.js';
import { expectSameBits, normals, rowsOf, untouched } from '../helpers/arrays.js';
import { readF32, upload, useGpu } from '../helpers/gpu.js';
import { expectClose } from '../oracle/compare.js';
import { crossEntropyTokenLoss, grpoTokenLoss, type GrpoHyper, type TokenLoss } from '../oracle/loss.js';
import { forcedDistribution, RAW_SAMPLING } from '../oracle/sampling.js';
import { sampleRows } from './sample-rows.js';

const SEEDS = [1, 2, 3];
const VOCABULARIES = [1, 2, 9, 64, 65, 513];
const PARAMS: readonly SamplingParams[] = [
  RAW_SAMPLING,
  { ...RAW_SAMPLING, temperature: 0.7 },
  { ...RAW_SAMPLING, topK: 5 },
  { ...RAW_SAMPLING, topP: 0.8 },
  { temperature: 1.3, topK: 30, topP: 0.95, minP: 0.05 },
];
const METRIC_WORDS = 4;
/** Sharp logits of up to 10 leave log-probabilities good to 1e-6, and so the ratio. */
const TOLERANCE = 1e-5;

const device = useGpu();

type Floats = Float32Array<ArrayBuffer>;

interface LossRow {
  readonly logits: Floats;
  readonly params: SamplingParams;
  readonly token: number;
  readonly weight: number;
  readonly advantage: number;
  readonly oldLogprob: number;
  readonly refLogprob: number;
}

interface Switches {
  readonly crossEntropy: boolean;
  readonly hyper: GrpoHyper;
}

const ANY_KEY = [0, 0] as const;

/** Gradients of the logits and metrics, in stretches of `stretchRows` as the loss head makes logits. */
async function lossOf(
  rows: readonly LossRow[],
  { crossEntropy, hyper }: Switches,
  stretchRows = rows.length,
): Promise<{ gradients: Floats; metrics: Floats }> {
  const { gpu, kernels } = device;
  const vocabulary = at(rows, 0).logits.length;
  const requests = rows.map(({ logits, params, token }) => ({
    logits,
    params,
    key: ANY_KEY,
    position: 0,
    given: token,
  }));
  const scored = await sampleRows(device, requests);
  const part = (start: number) =>
    upload(
      gpu,
      Float32Array.from(scored.flatMap(({ words }) => [...words.slice(start, start + SAMPLED_WORDS)])),
    );
  const buffers = {
    loss_rows: upload(
      gpu,
      Float32Array.from(
        rows.flatMap(({ weight, advantage, oldLogprob, refLogprob }) => [
          weight,
          advantage,
          oldLogprob,
          refLogprob,
        ]),
      ),
    ),
    sampled: part(0),
    stats: part(SAMPLED_WORDS),
    metrics: upload(gpu, untouched((rows.length + 1) * METRIC_WORDS)),
  };
  const gradients: number[] = [];
  for (let start = 0; start < rows.length; start += stretchRows) {
    const own = rows.slice(start, start + stretchRows);
    const logits = upload(
      gpu,
      Float32Array.from([...own.flatMap((row) => [...row.logits]), ...untouched(vocabulary)]),
    );
    const kernel = kernels.bind(
      'policy_gradient',
      { overrides: { CROSS_ENTROPY: crossEntropy ? 1 : 0 }, prelude: {} },
      { ...buffers, logits },
    );
    const params = {
      vocabulary,
      row_start: start,
      logits_start: 0,
      clip_low: hyper.clipLow,
      clip_high: hyper.clipHigh,
      kl_coefficient: hyper.klBeta,
    };
    await runProgram(gpu, [kernel.dispatch(params, [groups(vocabulary), own.length, 1], 1)]);
    const after = await readF32(gpu, logits, (own.length + 1) * vocabulary);
    expectSameBits(after.slice(own.length * vocabulary), untouched(vocabulary), 'past the logits');
    gradients.push(...after.slice(0, own.length * vocabulary));
  }
  const metrics = await readF32(gpu, buffers.metrics, (rows.length + 1) * METRIC_WORDS);
  expectSameBits(metrics.slice(-METRIC_WORDS), untouched(METRIC_WORDS), 'past the metrics');
  return { gradients: Float32Array.from(gradients), metrics: metrics.slice(0, -METRIC_WORDS) };
}

/** A row whose ratio is not so near a clip bound that rounding decides on which side it lies. */
function randomRow(random: Random, vocabulary: number, params: SamplingParams, hyper: GrpoHyper): LossRow {
  for (let tries = 0; tries < 100; tries++) {
    const logits = normals(random, vocabulary, 3);
    const token = random.int(0, vocabulary - 1);
    const logprob = forcedDistribution(logits, params, token).logprob(token);
    const oldLogprob = Math.fround(logprob + 0.4 * random.normal());
    const ratio = Math.exp(logprob - oldLogprob);
    const margin = Math.min(Math.abs(ratio - 1 + hyper.clipLow), Math.abs(ratio - 1 - hyper.clipHigh));
    if (margin < 1e-3) continue;
    return {
      logits,
      params,
      token,
      weight: Math.fround(random.uniform()),
      advantage: Math.fround(random.normal()),
      oldLogprob,
      refLogprob: Math.fround(logprob + 0.4 * random.normal()),
    };
  }
  throw new Error('every ratio lies at a clip bound');
}

function check(
  rows: readonly LossRow[],
  result: { gradients: Floats; metrics: Floats },
  wantedOf: (row: LossRow) => TokenLoss,
  label: string,
): void {
  rows.forEach((row, index) => {
    const wanted = wantedOf(row);
    const vocabulary = row.logits.length;
    const where = `${label}: row ${index} of ${vocabulary} tokens, ${JSON.stringify(row.params)}`;
    const own = rowsOf(result.gradients, vocabulary, index);
    // A vocabulary of one, or of one kept token, has no gradient but rounding: the weight is the scale then.
    const scale = row.weight;
    expectClose([...own, scale], [...wanted.dLogits, scale], TOLERANCE, where);
    const { ratio, clipped, kl } = wanted.metrics;
    const metrics = rowsOf(result.metrics, METRIC_WORDS, index);
    expectClose(metrics, [wanted.loss, ratio, clipped ? 1 : 0, kl], TOLERANCE, `${where}: metrics`);
  });
}

describe('policy_gradient', () => {
  it.each(SEEDS)('is the clipped loss with KL, and its gradient, of float64 (seed %i)', async (seed) => {
    let clipped = 0;
    for (const vocabulary of VOCABULARIES) {
      const random = new Random(seed).fork(vocabulary);
      const hyper = { clipLow: 0.2, clipHigh: random.pick([0.2, 0.28]), klBeta: random.pick([0, 0.04, 1]) };
      const rows = [...PARAMS, ...PARAMS].map((params) => randomRow(random, vocabulary, params, hyper));
      const result = await lossOf(rows, { crossEntropy: false, hyper });
      // Without a coefficient there is no reference, and what stands in its place is not read.
      const wantedOf = (row: LossRow) => {
        const refLogprob = hyper.klBeta === 0 ? null : row.refLogprob;
        return grpoTokenLoss(row.logits, { ...row, refLogprob }, row.params, hyper);
      };
      check(rows, result, wantedOf, `seed ${seed}`);
      clipped += rows.filter((row) => wantedOf(row).metrics.clipped).length;
    }
    expect(clipped, 'rows whose ratio is clipped').toBeGreaterThan(5);
  });

  it.each(SEEDS)('is cross entropy, and its gradient, of float64 (seed %i)', async (seed) => {
    const hyper = { clipLow: 0, clipHigh: 0, klBeta: 0 };
    for (const vocabulary of VOCABULARIES) {
      const random = new Random(seed).fork(`cross entropy ${vocabulary}`);
      const rows = [1, 2, 3, 4].map(() => randomRow(random, vocabulary, RAW_SAMPLING, hyper));
      const result = await lossOf(rows, { crossEntropy: true, hyper });
      const wantedOf = ({ logits, token, weight }: LossRow) => crossEntropyTokenLoss(logits, token, weight);
      check(rows, result, wantedOf, `seed ${seed}`);
    }
  });

  it('a row of weight 0 trains nothing, whatever its other numbers are', async () => {
    const random = new Random(4);
    const hyper = { clipLow: 0.2, clipHigh: 0.2, klBeta: 0.1 };
    const row = randomRow(random, 20, RAW_SAMPLING, hyper);
    const masked = [
      { ...row, weight: 0 },
      { ...row, weight: 0, oldLogprob: -3e38, advantage: -1 },
      { ...row, weight: 0, oldLogprob: NaN, refLogprob: NaN },
    ];
    const { gradients, metrics } = await lossOf(masked, { crossEntropy: false, hyper });
    expectSameBits(gradients, new Float32Array(60), 'gradients');
    expectSameBits(metrics, Float32Array.of(0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0), 'metrics');
  });

  it('on policy the ratio is exactly 1', async () => {
    const random = new Random(5);
    const hyper = { clipLow: 0.2, clipHigh: 0.2, klBeta: 0 };
    const rows = PARAMS.map((params) => randomRow(random, 65, params, hyper));
    const requests = rows.map(({ logits, params, token }) => ({
      logits,
      params,
      key: ANY_KEY,
      position: 0,
      given: token,
    }));
    const recorded = await sampleRows(device, requests);
    const onPolicy = rows.map((row, index) => ({ ...row, oldLogprob: at(recorded, index).logprob }));
    const { metrics } = await lossOf(onPolicy, { crossEntropy: false, hyper });
    expect(rows.map((_, index) => at(metrics, index * METRIC_WORDS + 1))).toEqual(rows.map(() => 1));
  });

  it('gives a row the same bits in any stretch of rows', async () => {
    const random = new Random(6);
    const hyper = { clipLow: 0.2, clipHigh: 0.2, klBeta: 0.1 };
    const rows = [...PARAMS, ...PARAMS].map((params) => randomRow(random, 70, params, hyper));
    const all = await lossOf(rows, { crossEntropy: false, hyper });
    for (const stretchRows of [1, 3]) {
      const cutUp = await lossOf(rows, { crossEntropy: false, hyper }, stretchRows);
      expectSameBits(cutUp.gradients, all.gradients, `gradients by ${stretchRows}`);
      expectSameBits(cutUp.metrics, all.metrics, `metrics by ${stretchRows}`);
    }
  });
});
