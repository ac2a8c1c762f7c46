import { describe, expect, it } from 'vitest';
import { policyNamed } from '#src/scheduler/policies/index.js';
import type { SimOutcome } from '#src/sim/outcome.js';
import { profileNamed } from '#src/sim/profiles.js';
import { simulate } from '#src/sim/simulate.js';
import { job, plainCosts, scenario } from './scenarios.js';

/** Serves only: no trainer, rollouts are delivered. */
const served = { stages: [], trainerLane: null, trainerBytes: 0, stalenessVersionsMax: 0 } as const;

interface Figures {
  readonly p50: number;
  readonly p99: number;
  readonly tokensPerSecond: number;
}

function figures({ jobs, makespanMs, violations, ended }: SimOutcome, id: string): Figures {
  expect({ violations, ended }).toEqual({ violations: 0, ended: 'done' });
  const { p50, p99 } = jobs.find((each) => each.id === id)?.tokenLatencyMs ?? { p50: null, p99: null };
  const tokens = jobs.reduce((sum, { tokens: { served: count } }) => sum + count, 0);
  return { p50: p50 ?? NaN, p99: p99 ?? NaN, tokensPerSecond: tokens / ((makespanMs ?? NaN) / 1000) };
}

describe('a lane in segments', () => {
  // Decode steps of 1 and 10 ms alone, no prompt worth mentioning, slices of 8 ms as the lane has them.
  const costs = plainCosts({ sliceMs: 8 });
  const tokens = { completionTokens: 400, groupSize: 2, ...served };
  const world = scenario(
    [job('small', { computeScale: 0.1, ...tokens }), job('big', { ...tokens, completionTokens: 40 })],
    { costs },
  );

  it('makes a small step wait for one segment of the big one', async () => {
    const aligned = figures(await simulate(world, policyNamed('stageAligned')), 'small');
    // 1 ms of its own and 1 ms of the big one's, each time; binned, at most 5 % too large.
    expect(aligned.p50).toBeGreaterThanOrEqual(2);
    expect(aligned.p99).toBeLessThan(2 * 1.05);
  });

  it('else lets some steps wait for a whole slice', async () => {
    // By weight, in slices of at most 8 ms: of the big one's step those are two of 5 ms each.
    const shared = figures(await simulate(world, policyNamed('fifo')), 'small');
    expect(shared.p50).toBeLessThan(1.05);
    expect(shared.p99).toBeGreaterThanOrEqual(6);
    expect(shared.p99).toBeLessThan(6 * 1.05);
  });
});

describe('a small model beside the long prompts of a big one', () => {
  /** On the measured software adapter: a tenth of its shipped model's work, and four times as much. */
  const costs = { ...profileNamed('llvmpipe-2-cores'), sliceMs: 4 };
  const chat = { promptTokens: 20, completionTokens: 200, groupsPerStep: 1, groupSize: 4, steps: 40 };
  const readers = { promptTokens: 2000, completionTokens: 20, groupsPerStep: 1, groupSize: 4, steps: 12 };
  const world = scenario(
    [
      job('small', { ...served, ...chat, computeScale: 0.1, tokenLatencyMs: 20 }),
      job('big', { ...served, ...readers, computeScale: 4 }),
    ],
    { costs },
  );

  it('has a p99 of two of its steps under stageAligned, of a whole slice under fifo, at the same throughput', async () => {
    const aligned = figures(await simulate(world, policyNamed('stageAligned')), 'small');
    const shared = figures(await simulate(world, policyNamed('fifo')), 'small');
    const stepMs = 0.1 * (costs.decode.stepMs + 4 * costs.decode.rowMs);
    // Binned: at most 5 % too large.
    expect(aligned.p99).toBeGreaterThanOrEqual(1.9 * stepMs);
    expect(aligned.p99).toBeLessThan(2 * stepMs * 1.05);
    expect(shared.p99).toBeGreaterThan(stepMs + 0.9 * costs.sliceMs);
    expect(aligned.p99).toBeLessThan(shared.p99 / 5);
    expect(aligned.tokensPerSecond / shared.tokensPerSecond).toBeCloseTo(1, 2);
  });

  // Turns so short that more than one token in a hundred begins a wait: a p99 sees no rarer ones.
  it('waits far less than under roundRobin, where it is held without slots for whole turns', async () => {
    const aligned = figures(await simulate(world, policyNamed('stageAligned')), 'small');
    const turns = figures(await simulate(world, policyNamed('roundRobin', { turn_ms: 10 })), 'small');
    expect(aligned.p99).toBeLessThan(turns.p99 / 5);
    expect(turns.p99).toBeGreaterThan(9);
  });

  it('comes to the same each time', async () => {
    const again = await simulate(world, policyNamed('stageAligned'));
    expect(again).toEqual(await simulate(world, policyNamed('stageAligned')));
  });
});
