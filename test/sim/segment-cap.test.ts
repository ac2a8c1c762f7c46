import { beforeAll, describe, expect, it } from 'vitest';
import { at } from '#src/lib/assert.js';
import { policyNamed } from '#src/scheduler/policies/index.js';
import type { SimJobOutcome, SimOutcome } from '#src/sim/outcome.js';
import { replay } from '#src/sim/replay.js';
import { simulate } from '#src/sim/simulate.js';
import { job, plainCosts, scenario } from './scenarios.js';

const KV_TOKENS = 3000;

/** Rollouts of lognormal lengths, a whole step at once, and a cache for three of the longest of them. */
const LONG_TAIL = job('a', {
  promptTokens: 32,
  completionTokens: { kind: 'lognormal', median: 100, sigma: 1, max: 900 },
  steps: 5,
  groupsPerStep: 16,
  groupSize: 8,
  slotsMax: 128,
  kvTokens: KV_TOKENS,
});
const costs = plainCosts({ decode: { stepMs: 20, rowMs: 0.1, prefillRowMs: 0.05, batchRows: 256 } });
const SEEDS = [1, 2, 3] as const;

async function run(seed: number, name: string, options: Record<string, unknown> = {}): Promise<SimOutcome> {
  const policy = policyNamed(name, options);
  const outcome = await simulate({ ...scenario([LONG_TAIL], { costs }), seed }, policy);
  expect(outcome.firstViolation).toBeNull();
  expect(outcome.ended).toBe('done');
  expect(replay(outcome.plans, policy, 1)).toBeNull();
  return outcome;
}

const jobOf = (outcome: SimOutcome): SimJobOutcome => at(outcome.jobs, 0);

interface Compared {
  readonly reserved: SimOutcome;
  readonly none: SimOutcome;
  readonly global: SimOutcome;
  readonly segments: SimOutcome;
}

describe.each(SEEDS)('a long tail in a tight cache, seed %i', (seed) => {
  let all: Compared;

  beforeAll(async () => {
    all = {
      reserved: await run(seed, 'fifo'),
      none: await run(seed, 'segmentCap', { rule: 'none' }),
      global: await run(seed, 'segmentCap', { rule: 'global' }),
      segments: await run(seed, 'segmentCap'),
    };
  });

  it('never has more in the cache than it holds, whatever the rule', () => {
    for (const outcome of Object.values(all) as SimOutcome[]) {
      const { kvTokensPeak } = jobOf(outcome);
      expect(kvTokensPeak).toBeGreaterThan(0);
      expect(kvTokensPeak).toBeLessThanOrEqual(KV_TOKENS);
    }
  });

  it('samples the same tokens, whatever the rule', () => {
    for (const outcome of Object.values(all) as SimOutcome[]) {
      expect(jobOf(outcome).tokens).toEqual(jobOf(all.reserved).tokens);
    }
  });

  it('evicts far less than one cap on all, and that less than first come, first served', () => {
    const { none, global, segments } = all;
    expect(jobOf(segments).evictions * 5).toBeLessThan(jobOf(global).evictions);
    expect(jobOf(global).evictions * 2).toBeLessThan(jobOf(none).evictions);
    expect(jobOf(segments).tokensRecomputed * 3).toBeLessThan(jobOf(global).tokensRecomputed);
    expect(jobOf(global).tokensRecomputed * 2).toBeLessThan(jobOf(none).tokensRecomputed);
  });

  it('is done in far less time than with all the cache that each may need, which never evicts', () => {
    const { reserved, segments } = all;
    expect(jobOf(reserved)).toMatchObject({ evictions: 0, tokensRecomputed: 0 });
    expect(segments.makespanMs ?? Infinity).toBeLessThan(0.7 * (reserved.makespanMs ?? NaN));
  });
});

describe('a cache that is simulated', () => {
  it('changes nothing when it holds everything', async () => {
    const plain = job('a', { steps: 3, turns: 2, environmentWaitMs: 7, observationTokens: 2 });
    const policy = policyNamed('fifo');
    const { makespanMs } = await simulate(scenario([plain]), policy);
    const withCache = await simulate(scenario([{ ...plain, kvTokens: 1000 }]), policy);
    expect(withCache.makespanMs).toBeCloseTo(makespanMs ?? NaN, 6);
    // Two sequences of 3 + 5 + 2 + 5 tokens.
    expect(jobOf(withCache)).toMatchObject({ evictions: 0, kvTokensPeak: 30 });
  });

  it('holds back the second of two that do not fit together', async () => {
    // 3 + 5 tokens each: 10 hold one and not two, so the second begins when the first has ended.
    const { makespanMs } = await simulate(scenario([job('a', { kvTokens: 10 })]), policyNamed('fifo'));
    expect(makespanMs).toBeCloseTo(50 + 50 + 116, 6);
  });

  it.each(['fifo', 'segmentCap'])('sees rollouts of several turns to their end under %s', async (name) => {
    const turns = {
      turns: 3,
      environmentWaitMs: { kind: 'uniform', low: 0, high: 200 },
      observationTokens: 4,
    } as const;
    const completionTokens = { kind: 'uniform', low: 1, high: 30 } as const;
    const sizes = { groupsPerStep: 8, steps: 6, slotsMax: 16, kvTokens: 260 };
    const spec = job('a', { ...turns, completionTokens, ...sizes });
    const outcome = await simulate(scenario([spec]), policyNamed(name));
    expect(outcome.ended).toBe('done');
    expect(outcome.firstViolation).toBeNull();
    expect(jobOf(outcome).kvTokensPeak).toBeLessThanOrEqual(260);
  });

  it('must hold the longest sequence', async () => {
    const tight = scenario([job('a', { kvTokens: 8 })]);
    await expect(async () => simulate(tight, policyNamed('fifo'))).rejects.toThrow(
      'kvTokens is 8, must be a whole number above 8, its longest sequence',
    );
  });
});
