import { Random } from '#src/lib/prng.js';
import { describe, expect, it } from 'vitest';
import { expectClose } from './compare.js';
import {
  RAW_SAMPLING,
  argmax,
  distribution,
  forcedDistribution,
  logprobForced,
  sample,
  type SamplingParams,
} from './sampling.js';

/**
 * The definition again, token by token and without a sort or a threshold: each filter asks of one token how many, or
 * how much mass, stands strictly above it.
 */
function bruteForceKept(
  logits: readonly number[],
  { temperature, topK, topP, minP }: SamplingParams,
): boolean[] {
  const z = logits.map((logit) => logit / temperature);
  const largest = Math.max(...z);
  const passed = z.map((mine) => {
    const enoughMass = Math.exp(mine - largest) >= minP || Math.abs(Math.exp(mine - largest) - minP) < 1e-15;
    const above = z.filter((other) => other > mine).length;
    return enoughMass && (topK === 0 || above < topK);
  });
  if (topP === 1) return passed;
  const mass = (keep: (value: number) => boolean) =>
    z.reduce((total, value, i) => total + (passed[i] && keep(value) ? Math.exp(value - largest) : 0), 0);
  const whole = mass(() => true);
  return z.map((mine, i) => passed[i] === true && mass((other) => other > mine) / whole < topP);
}

function randomCase(seed: number): { logits: number[]; params: SamplingParams } {
  const random = new Random(seed);
  const vocabSize = random.pick([1, 2, 7, 37]);
  // Coarse logits tie often; fine ones never do.
  const coarse = random.pick([true, false]);
  const logits = Array.from({ length: vocabSize }, () => {
    const logit = 3 * random.normal();
    return coarse ? Math.round(logit) : logit;
  });
  return {
    logits,
    params: {
      temperature: random.pick([0.25, 0.5, 1, 2]),
      topK: random.pick([0, 1, 3, 10, 100]),
      topP: random.pick([1, 0.05 + 0.95 * random.uniform()]),
      minP: random.pick([0, random.uniform() ** 3]),
    },
  };
}

const SEEDS = Array.from({ length: 500 }, (_, seed) => seed);

describe('distribution', () => {
  it('keeps what the definition keeps, on 500 random cases', () => {
    let filteredCases = 0;
    for (const seed of SEEDS) {
      const { logits, params } = randomCase(seed);
      const { kept } = distribution(logits, params);
      expect(kept, `seed ${seed}`).toEqual(bruteForceKept(logits, params));
      if (kept.includes(false)) filteredCases++;
    }
    // The cases would prove little if most of them kept everything.
    expect(filteredCases).toBeGreaterThan(200);
  });

  it('is the threshold on z, normalised over the kept, with its entropy', () => {
    for (const seed of SEEDS) {
      const { logits, params } = randomCase(seed);
      const { kept, threshold, logSumExp, logprob, rawLogprob, entropy } = distribution(logits, params);
      const label = `seed ${seed}`;
      const z = logits.map((logit) => logit / params.temperature);
      expect(kept, label).toEqual(z.map((value) => value >= threshold));
      const powers = z.map((value, i) => (kept[i] ? Math.exp(value) : 0));
      const total = powers.reduce((a, b) => a + b);
      const probabilities = powers.map((power) => power / total);
      expectClose([logSumExp], [Math.log(total)], 1e-12, `${label}: logSumExp`);
      expectClose(
        probabilities.map((_, i) => Math.exp(logprob(i))),
        probabilities,
        1e-12,
        `${label}: probabilities`,
      );
      const surprise = probabilities.map((p) => (p === 0 ? 0 : -p * Math.log(p)));
      expect(entropy, label).toBeCloseTo(
        surprise.reduce((a, b) => a + b),
        12,
      );
      const rawTotal = logits.reduce((sum, logit) => sum + Math.exp(logit), 0);
      expectClose(
        logits.map((_, i) => rawLogprob(i)),
        logits.map((logit) => Math.log(Math.exp(logit) / rawTotal)),
        1e-12,
        `${label}: raw`,
      );
    }
  });

  it('keeps all ties at a threshold', () => {
    const logits = [1, 0, 1, 0, 1, -1];
    const kept = (params: Partial<SamplingParams>) =>
      distribution(logits, { ...RAW_SAMPLING, ...params }).kept;
    const ones = [true, false, true, false, true, false];
    expect(kept({ topK: 1 })).toEqual(ones);
    expect(kept({ topK: 4 })).toEqual([true, true, true, true, true, false]);
    expect(kept({ topP: 0.01 })).toEqual(ones);
    expect(kept({ minP: 1 })).toEqual(ones);
    // Four equal tokens: two of them reach half the mass exactly, and the other two tie with them.
    expect(distribution([0, 0, 0, 0, -9], { ...RAW_SAMPLING, topK: 4, topP: 0.5 }).kept).toEqual([
      true,
      true,
      true,
      true,
      false,
    ]);
  });

  it('stops at a prefix whose mass is exactly top-p', () => {
    // Probabilities 1/2, 1/4, 1/4, all exact in binary.
    const { kept } = distribution([Math.LN2, 0, 0], { ...RAW_SAMPLING, topP: 0.5 });
    expect(kept).toEqual([true, false, false]);
  });

  it('counts top-p over what the earlier filters kept', () => {
    const logits = [4, 3, 2, 1].map(Math.log);
    const topP = (extra: Partial<SamplingParams>) =>
      distribution(logits, { ...RAW_SAMPLING, topP: 0.55, ...extra }).kept.filter(Boolean).length;
    // Of 10 parts the first has 4, short of 5.5; of the 7 parts that top-k 2 leaves, 4 are enough. Min-p likewise.
    expect(topP({})).toBe(2);
    expect(topP({ topK: 2 })).toBe(1);
    expect(topP({ minP: 0.7 })).toBe(1);
  });

  it('filters on z, so temperature moves min-p', () => {
    const logits = [0, Math.log(0.3)];
    const kept = (temperature: number) =>
      distribution(logits, { ...RAW_SAMPLING, temperature, minP: 0.2 }).kept;
    expect(kept(1)).toEqual([true, true]);
    // At temperature 1/2 the second has 0.3² = 0.09 of the first.
    expect(kept(0.5)).toEqual([true, false]);
  });

  it('takes a logit of −Infinity as impossible and stops on NaN', () => {
    const { kept, entropy, logprob } = distribution([0, -Infinity, 0], RAW_SAMPLING);
    expect(kept).toEqual([true, true, true]);
    expect(logprob(1)).toBe(-Infinity);
    expect(entropy).toBeCloseTo(Math.LN2, 15);
    expect(() => distribution([0, NaN], RAW_SAMPLING)).toThrow('logit 1 is NaN');
  });

  it('survives logits that would overflow exp', () => {
    const { logprob } = distribution([2000, 2000 - Math.log(3)], RAW_SAMPLING);
    expectClose([logprob(0), logprob(1)], [Math.log(0.75), Math.log(0.25)], 1e-12, 'large logits');
  });
});

describe('greedy', () => {
  const greedy = { temperature: 0, topK: 1, topP: 0.1, minP: 0.9 };

  it('takes the largest logit, the lowest index among equals', () => {
    expect(sample([1, 5, 3, 5], greedy, 0.999)).toBe(1);
    expect(argmax([-Infinity, -2, -2])).toBe(1);
  });

  it('has the log-probabilities of temperature 1 without filters', () => {
    const { logprob, rawLogprob, kept } = distribution([1, 5, 3, 5], greedy);
    expect(kept).toEqual([true, true, true, true]);
    for (let token = 0; token < 4; token++) expect(logprob(token)).toBe(rawLogprob(token));
  });
});

describe('sample', () => {
  it('inverts the cumulative distribution in index order', () => {
    // Probabilities 0.2, 0, 0.3, 0.5 after top-k drops token 1.
    const logits = [0.2, 0.01, 0.3, 0.5].map(Math.log);
    const draw = (uniform: number) => sample(logits, { ...RAW_SAMPLING, topK: 3 }, uniform);
    expect([0, 0.1999, 0.2001, 0.4999, 0.5001, 0.999999].map(draw)).toEqual([0, 0, 2, 2, 3, 3]);
  });

  it('gives a boundary to the token above it', () => {
    expect(sample([0, 0], RAW_SAMPLING, 0.5)).toBe(1);
    expect(sample([-Infinity, 0], RAW_SAMPLING, 0)).toBe(1);
  });

  it('never leaves the kept tokens, even at the last uniform below 1', () => {
    for (const seed of SEEDS) {
      const { logits, params } = randomCase(seed);
      const { kept } = distribution(logits, params);
      for (const uniform of [0, 0.5, 1 - 2 ** -53]) {
        expect(kept[sample(logits, params, uniform)], `seed ${seed}, uniform ${uniform}`).toBe(true);
      }
    }
  });

  it('draws each token as often as its probability says', () => {
    const { logits, params } = {
      logits: [1, 0, 2, -1, 1.5],
      params: { ...RAW_SAMPLING, temperature: 0.7, topK: 4 },
    };
    const { logprob } = distribution(logits, params);
    const draws = 10_000;
    const counts = new Array<number>(5).fill(0);
    // A uniform grid instead of a generator: then each count is exact to one draw.
    for (let i = 0; i < draws; i++) {
      const token = sample(logits, params, (i + 0.5) / draws);
      counts[token] = (counts[token] ?? 0) + 1;
    }
    counts.forEach((count, token) => {
      expect(Math.abs(count - draws * Math.exp(logprob(token)))).toBeLessThanOrEqual(1);
    });
  });
});

describe('logprobForced', () => {
  it('is the plain log-probability of a kept token', () => {
    for (const seed of SEEDS) {
      const { logits, params } = randomCase(seed);
      const { kept, logprob } = distribution(logits, params);
      kept.forEach((isKept, token) => {
        if (isKept) expect(logprobForced(logits, params, token), `seed ${seed}`).toBe(logprob(token));
      });
    }
  });

  it('adds a filtered token to the kept ones', () => {
    const logits = [6, 3, 1].map(Math.log);
    const params = { ...RAW_SAMPLING, topK: 1 };
    expect(distribution(logits, params).logprob(2)).toBe(-Infinity);
    // Kept are 6 and the forced 1: a share of 1/7.
    expectClose([logprobForced(logits, params, 2)], [Math.log(1 / 7)], 1e-14, 'forced');
    expect(forcedDistribution(logits, params, 2).kept).toEqual([true, false, true]);
  });
});
