import { Random } from '#src/lib/prng.js';
import { describe, expect, it } from 'vitest';
import { expectClose } from './compare.js';
import { numericGradient, randomVector } from './fixtures.js';
import { crossEntropyTokenLoss, grpoTokenLoss, type GrpoTarget } from './loss.js';
import { RAW_SAMPLING, distribution, logprobForced } from './sampling.js';

const HYPER = { clipLow: 0.2, clipHigh: 0.3, klBeta: 0.1 };
const SEEDS = Array.from({ length: 200 }, (_, seed) => seed);

function randomCase(seed: number) {
  const random = new Random(seed);
  const logits = randomVector(random, 37).map((value) => 2 * value);
  const sampling = {
    temperature: random.pick([0, 0.7, 1, 1.6]),
    topK: random.pick([0, 5, 20]),
    topP: random.pick([1, 0.8]),
    minP: random.pick([0, 0.05]),
  };
  const token = random.int(0, 36);
  const logprob = logprobForced(logits, sampling, token);
  // Ratios away from the clip's corners at 0.8 and 1.3, where there is no derivative to measure.
  const ratio = random.pick([0.5, 0.79, 0.81, 1, 1.29, 1.31, 2]);
  const target: GrpoTarget = {
    token,
    advantage: random.pick([-1.5, 0.8]),
    oldLogprob: logprob - Math.log(ratio),
    refLogprob: logprob + 0.5 * random.normal(),
    weight: random.pick([1, 0.125]),
  };
  return { logits, sampling, target, ratio };
}

describe('grpoTokenLoss', () => {
  it('agrees with finite differences on 200 random cases, clipped and not, token kept and not', () => {
    const seen = { clipped: 0, unclipped: 0, forced: 0 };
    for (const seed of SEEDS) {
      const { logits, sampling, target } = randomCase(seed);
      const { dLogits, metrics } = grpoTokenLoss(logits, target, sampling, HYPER);
      const numeric = numericGradient(logits, () => grpoTokenLoss(logits, target, sampling, HYPER).loss);
      expectClose(dLogits, numeric, 1e-6, `seed ${seed}`);
      seen[metrics.clipped ? 'clipped' : 'unclipped']++;
      if (distribution(logits, sampling).kept[target.token] === false) seen.forced++;
    }
    expect(Math.min(seen.clipped, seen.unclipped, seen.forced), JSON.stringify(seen)).toBeGreaterThan(20);
  });

  it.each([
    { ratio: 1, advantage: 2, policyLoss: -2, clipped: false },
    { ratio: 1.5, advantage: 2, policyLoss: -2.6, clipped: true },
    { ratio: 0.5, advantage: 2, policyLoss: -1, clipped: false },
    { ratio: 1.5, advantage: -2, policyLoss: 3, clipped: false },
    { ratio: 0.5, advantage: -2, policyLoss: 1.6, clipped: true },
    { ratio: 1.5, advantage: 0, policyLoss: 0, clipped: false },
  ])(
    'clips on the side that hurts: ratio $ratio, advantage $advantage',
    ({ ratio, advantage, policyLoss, clipped }) => {
      const logits = [1, 2, 3];
      const logprob = logprobForced(logits, RAW_SAMPLING, 1);
      const target = {
        token: 1,
        advantage,
        oldLogprob: logprob - Math.log(ratio),
        refLogprob: null,
        weight: 1,
      };
      const { loss, dLogits, metrics } = grpoTokenLoss(logits, target, RAW_SAMPLING, { ...HYPER, klBeta: 0 });
      expect(loss).toBeCloseTo(policyLoss, 12);
      expect(metrics.clipped).toBe(clipped);
      expect(metrics.ratio).toBeCloseTo(ratio, 12);
      expect(metrics.kl).toBe(0);
      const slope = clipped ? 0 : -ratio * advantage;
      const p = [1, 2, 3].map((_, i) => Math.exp(logprobForced(logits, RAW_SAMPLING, i)));
      expectClose(
        dLogits,
        p.map((value, i) => slope * ((i === 1 ? 1 : 0) - value)),
        1e-12,
        'dLogits',
      );
    },
  );

  it('adds klBeta times the k3 estimate, all times the weight', () => {
    const logits = [Math.log(1), Math.log(3)];
    // The policy gives token 1 a probability of 3/4 and the reference 3/8: k3 = 1/2 − ln(1/2) − 1.
    const target = {
      token: 1,
      advantage: 0,
      oldLogprob: Math.log(0.75),
      refLogprob: Math.log(0.375),
      weight: 4,
    };
    const { loss, metrics } = grpoTokenLoss(logits, target, RAW_SAMPLING, { ...HYPER, klBeta: 0.5 });
    expect(metrics.kl).toBeCloseTo(Math.LN2 - 0.5, 14);
    expect(loss).toBeCloseTo(4 * 0.5 * (Math.LN2 - 0.5), 14);
  });

  it('leaves filtered tokens without a gradient, and the forced target out of the entropy', () => {
    const logits = [3, 2, 1, 0];
    const sampling = { ...RAW_SAMPLING, topK: 2 };
    const target = { token: 3, advantage: 1, oldLogprob: -1, refLogprob: null, weight: 1 };
    const { dLogits, metrics } = grpoTokenLoss(logits, target, sampling, { ...HYPER, klBeta: 0 });
    expect([...dLogits].map((value) => value !== 0)).toEqual([true, true, false, true]);
    // Of the two kept tokens, e : 1.
    const p = Math.E / (Math.E + 1);
    expect(metrics.entropy).toBeCloseTo(-p * Math.log(p) - (1 - p) * Math.log(1 - p), 14);
  });

  it('refuses a KL term without a reference', () => {
    const target = { token: 0, advantage: 1, oldLogprob: 0, refLogprob: null, weight: 1 };
    expect(() => grpoTokenLoss([1, 2], target, RAW_SAMPLING, HYPER)).toThrow('KL term needs reference');
  });
});

describe('crossEntropyTokenLoss', () => {
  it('is −weight · log softmax', () => {
    const { loss, dLogits, metrics } = crossEntropyTokenLoss([Math.log(1), Math.log(3)], 0, 2);
    expect(loss).toBeCloseTo(2 * Math.log(4), 14);
    expectClose(dLogits, [-1.5, 1.5], 1e-14, 'dLogits');
    expect(metrics.logprob).toBeCloseTo(-Math.log(4), 14);
  });

  it('agrees with finite differences', () => {
    for (const seed of SEEDS.slice(0, 20)) {
      const { logits, target } = randomCase(seed);
      const { dLogits } = crossEntropyTokenLoss(logits, target.token, 0.3);
      const numeric = numericGradient(logits, () => crossEntropyTokenLoss(logits, target.token, 0.3).loss);
      expectClose(dLogits, numeric, 1e-6, `seed ${seed}`);
    }
  });
});
