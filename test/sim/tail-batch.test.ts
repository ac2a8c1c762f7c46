import { describe, expect, it } from 'vitest';
import { policyNamed } from '#src/scheduler/policies/index.js';
import type { SimJobOutcome, SimOutcome } from '#src/sim/outcome.js';
import { replay } from '#src/sim/replay.js';
import type { SimJobSpec } from '#src/sim/scenario.js';
import { simulate } from '#src/sim/simulate.js';
import { job, lanes, plainCosts, scenario } from './scenarios.js';

const fifo = policyNamed('fifo');
const tailBatch = policyNamed('tailBatch');
/** Prompts deferred, never samples picked: over whole cycles the very same work as with plain rounds. */
const promptsOnly = policyNamed('tailBatch', { samples_spare: 0 });

/** Steps of 8 prompts by 4, on an engine with room for more; a few rollouts are very long. Four cycles of 4 + 1. */
const LONG_TAIL: Partial<SimJobSpec> = {
  steps: 20,
  groupsPerStep: 8,
  groupSize: 4,
  slotsMax: 64,
  completionTokens: { kind: 'lognormal', median: 60, sigma: 1, max: 2000 },
};

function only(outcome: SimOutcome): SimJobOutcome {
  expect(outcome.firstViolation).toBeNull();
  expect(outcome.ended).toBe('done');
  const [first] = outcome.jobs;
  if (first === undefined) throw new Error('no job');
  const { decoded, trained, served, filtered, expired, aborted, inFlight } = first.tokens;
  expect(decoded).toBe(trained + served + filtered + expired + aborted + inFlight);
  return first;
}

describe('tail batching', () => {
  it('trains over whole cycles exactly what plain rounds train, in less time', async () => {
    for (let seed = 1; seed <= 5; seed++) {
      const world = scenario([job('a', LONG_TAIL)], { seed });
      const plain = await simulate(world, fifo);
      const batched = await simulate(world, promptsOnly);
      const [before, now] = [only(plain), only(batched)];
      expect(before.rounds).toBeNull();
      expect(now.rounds).toMatchObject({ short: 16, long: 4, deferredPrompts: 0 });
      // The same 160 prompts by 4, whose lengths are theirs wherever they run: none is lost, none comes twice.
      expect(now.tokens.trained).toBe(before.tokens.trained);
      expect(now.tokens.aborted).toBeGreaterThan(0);
      expect(before.tokens.aborted).toBe(0);
      expect(batched.makespanMs ?? NaN, `seed ${seed}`).toBeLessThan(0.85 * (plain.makespanMs ?? NaN));
    }
  });

  it('reports whole cycles, which add up to the whole', async () => {
    const outcome = await simulate(scenario([job('a', LONG_TAIL)]), promptsOnly);
    const { rounds } = only(outcome);
    expect(rounds?.cycles.map(({ steps, deferredPrompts }) => [steps, deferredPrompts])).toEqual(
      Array.from({ length: 4 }, () => [5, 0]),
    );
    // Setting the trainer up takes no time in these costs.
    const ms = rounds?.cycles.reduce((sum, cycle) => sum + cycle.ms, 0) ?? NaN;
    expect(ms).toBeCloseTo(outcome.makespanMs ?? NaN, 6);
  });

  it('with spare samples as well is faster still, for what it throws away', async () => {
    const world = scenario([job('a', LONG_TAIL)]);
    const prompts = await simulate(world, promptsOnly);
    const both = await simulate(world, tailBatch);
    expect(only(both).rounds).toMatchObject({ short: 16, long: 4, deferredPrompts: 0 });
    expect(both.makespanMs ?? NaN).toBeLessThan(prompts.makespanMs ?? NaN);
    // The first of a prompt's samples to end are its shorter ones.
    expect(only(both).tokens.trained).toBeLessThan(only(prompts).tokens.trained);
  });

  it('loses where every row costs: what is thrown away was paid for', async () => {
    const costs = plainCosts({ decode: { stepMs: 0.1, rowMs: 1, prefillRowMs: 0, batchRows: 1000 } });
    const world = scenario([job('a', LONG_TAIL)], { costs });
    const plain = await simulate(world, fifo);
    const batched = await simulate(world, promptsOnly);
    expect(batched.makespanMs ?? NaN).toBeGreaterThan(plain.makespanMs ?? NaN);
  });

  it('stays on policy, and under a bound within it', async () => {
    for (const stalenessVersionsMax of [0, 1]) {
      const world = scenario([job('a', { ...LONG_TAIL, stalenessVersionsMax })]);
      const { staleness, rounds, tokens } = only(await simulate(world, promptsOnly));
      expect(staleness.length).toBeLessThanOrEqual(stalenessVersionsMax + 1);
      expect(staleness.reduce((sum, count) => sum + count, 0)).toBe(20 * 8 * 4);
      expect(tokens.expired).toBe(0);
      expect(rounds?.long).toBeGreaterThan(0);
    }
  });
});

describe('what is thrown away', () => {
  /** Rollouts wait, run, think, and wait for their reward; lanes are lost; caches are small; engines come and go. */
  const busy: Partial<SimJobSpec> = {
    ...LONG_TAIL,
    slotsMax: 6,
    engineLanes: [0, 1],
    turns: { kind: 'uniform', low: 1, high: 4 },
    environmentWaitMs: { kind: 'lognormal', median: 300, sigma: 1, max: 5000 },
    observationTokens: 7,
    rewardMs: { kind: 'uniform', low: 0, high: 400 },
    filteredShare: 0.2,
    completionTokens: { kind: 'lognormal', median: 20, sigma: 1, max: 200 },
  };

  it.each([
    ['wherever it is', {}],
    ['in a small cache', { kvTokens: 1200 }],
  ] as const)('is accounted for, %s', async (_, part) => {
    for (let seed = 1; seed <= 4; seed++) {
      const jobs = [job('a', { ...busy, ...part }), job('b', { ...busy, ...part, trainerLane: 1 })];
      const faults = { laneLoss: { perLaneDay: 2000, returnMs: 500 } };
      const outcome = await simulate(scenario(jobs, { seed, lanes: lanes(2), faults }), tailBatch);
      expect(outcome.firstViolation, `seed ${seed}`).toBeNull();
      expect(outcome.ended).toBe('done');
      for (const { rounds, tokens } of outcome.jobs) {
        expect(rounds).toMatchObject({ short: 16, long: 4, deferredPrompts: 0 });
        expect(tokens.inFlight).toBe(0);
        expect(tokens.aborted).toBeGreaterThan(0);
      }
      expect(replay(outcome.plans, tailBatch, 2)).toBeNull();
    }
  });

  it('is given up once when its job is', async () => {
    const world = scenario([job('a', { ...busy, engineLanes: [0], leavesMs: 20_000 })]);
    const [left] = (await simulate(world, tailBatch)).jobs;
    expect(left).toMatchObject({ isGivenUp: true });
    const { decoded, trained, filtered, expired, aborted } = left?.tokens ?? {
      decoded: 0,
      trained: 0,
      filtered: 0,
      expired: 0,
      aborted: 0,
    };
    expect(decoded).toBe(trained + filtered + expired + aborted);
    expect(aborted).toBeGreaterThan(0);
  });
});
