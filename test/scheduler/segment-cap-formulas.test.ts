import { describe, expect, it } from 'vitest';
import { Random } from '#src/lib/prng.js';
import {
  boundaryDecay,
  isNestedStable,
  nestedBufferTokens,
  nestedKvTokens,
  survivalShares,
  waitKvTokens,
  waitThresholds,
} from '#src/scheduler/policies/segment-cap-formulas.js';

const COST = { ms: 20, msPerToken: 0.002 };
/** 10 a second; 70 % of 64 tokens, 30 % of 256, after prompts of 64. */
const TYPES = [
  { arrivalsPerMs: 0.007, promptTokens: 64, outputTokens: 64 },
  { arrivalsPerMs: 0.003, promptTokens: 64, outputTokens: 256 },
];

describe('WAIT', () => {
  it('has the equilibrium of one type', () => {
    // A = 0.001 · 65 · (64 + 32) = 6.24 tokens a ms; ΔT = 20 / (1 − 0.01248).
    const one = waitThresholds([{ arrivalsPerMs: 0.001, promptTokens: 64, outputTokens: 64 }], COST);
    expect(one?.iterationMs).toBeCloseTo(20 / 0.98752, 9);
    expect(one?.sequences[0]).toBeCloseTo(0.02 / 0.98752, 9);
    expect(one?.kvTokens).toBeCloseTo((20 * 6.24) / 0.98752, 9);
  });

  it('has the equilibrium of two', () => {
    // A = 0.007 · 65 · 96 + 0.003 · 257 · 192 = 43.68 + 148.032 = 191.712; d1·A = 0.383424.
    const both = waitThresholds(TYPES, COST);
    expect(both?.iterationMs).toBeCloseTo(20 / 0.616576, 9);
    expect(both?.sequences[0]).toBeCloseTo(0.14 / 0.616576, 9);
    expect(both?.sequences[1]).toBeCloseTo(0.06 / 0.616576, 9);
    expect(both?.kvTokens).toBeCloseTo((20 * 191.712) / 0.616576, 6);
  });

  it('keeps its condition with slack: ΔT = d0 + d1·M ≤ n_j / λ_j, with room of exactly the slack', () => {
    for (const slack of [0, 0.1, 0.5]) {
      const thresholds = waitThresholds(TYPES, COST, slack);
      const { iterationMs = NaN, sequences = [], kvTokens = NaN } = thresholds ?? {};
      expect(COST.ms + COST.msPerToken * kvTokens).toBeCloseTo(iterationMs, 9);
      TYPES.forEach(({ arrivalsPerMs }, j) => {
        expect((sequences[j] ?? NaN) / arrivalsPerMs).toBeCloseTo((1 + slack) * iterationMs, 9);
      });
    }
  });

  it('has none when more arrives than the device can read', () => {
    expect(waitThresholds(TYPES, { ms: 20, msPerToken: 1 / 191 })).toBeNull();
    expect(waitThresholds(TYPES, { ms: 20, msPerToken: 1 / 192 })).not.toBeNull();
    expect(waitThresholds(TYPES, { ms: 20, msPerToken: 1 / 192 }, 0.1)).toBeNull();
  });

  it('bounds the cache by whole populations', () => {
    // 2 · 65 · 96 + 1 · 257 · 192
    expect(waitKvTokens(TYPES, [2, 1])).toBe(12_480 + 49_344);
  });
});

describe('Nested WAIT', () => {
  const nesting = { promptTokens: 64, boundaries: [64, 256], sequences: [10, 5] };

  it('adds up its segments', () => {
    // 10 · (64 + 32) · 65 + 5 · (64 + 160.5) · 192
    expect(nestedKvTokens(nesting)).toBe(62_400 + 215_520);
  });

  it('knows which shares live on, and which thresholds keep up', () => {
    const shares = survivalShares([...TYPES].reverse());
    expect(shares[0]).toBe(1);
    expect(shares[1]).toBeCloseTo(0.3, 12);
    expect(isNestedStable([10, 5], shares, 9.9)).toBe(true);
    expect(isNestedStable([10, 5], shares, 10)).toBe(false);
    expect(isNestedStable([10, 3], [1, 0.3], 1)).toBe(false);
    expect(isNestedStable([10, 10], [1, 0.3], 1)).toBe(false);
  });

  it('finds the root for n = (10, 5) and p = 0.3', () => {
    const theta = boundaryDecay(0.5, 0.3);
    // At a ratio of 1/2 the equation is a quadratic in e^(θ/2): 0.3·x² − x + 0.7 = 0, so x = 7/3.
    expect(theta).toBeCloseTo(2 * Math.log(7 / 3), 9);
    expect(theta).toBeCloseTo(1.695, 3);
    expect(theta).toBeGreaterThanOrEqual((8 * (5 - 3)) / 10);
  });

  it('has a root that solves its equation and keeps the paper’s lower bound', () => {
    const random = new Random(2504);
    for (let draw = 0; draw < 500; draw++) {
      const share = 0.02 + 0.9 * random.uniform();
      const ratio = share + (0.999 - share) * (0.02 + 0.95 * random.uniform());
      const theta = boundaryDecay(ratio, share);
      const where = `seed 2504, draw ${draw}: ratio ${ratio}, share ${share}`;
      expect(Math.exp(-theta * ratio) * (1 - share + share * Math.exp(theta)), where).toBeCloseTo(1, 9);
      expect(theta, where).toBeGreaterThanOrEqual(8 * (ratio - share) - 1e-9);
    }
    expect(() => boundaryDecay(0.3, 0.3)).toThrow('no decay');
  });

  it('buffers what may pile up at the boundary', () => {
    // (64 + 64) · (5 + ln(2 · 1001 / 0.05) / (2 ln 7/3))
    const buffer = nestedBufferTokens(nesting, [1, 0.3], { steps: 1000, chance: 0.05 });
    expect(buffer).toBeCloseTo(128 * (5 + Math.log(40_040) / (2 * Math.log(7 / 3))), 6);
    expect(buffer).toBeGreaterThan(1440);
    expect(buffer).toBeLessThan(1441);
  });
});
