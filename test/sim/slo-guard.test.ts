import { describe, expect, it } from 'vitest';
import { policyNamed } from '#src/scheduler/policies/index.js';
import type { SimJobOutcome, SimOutcome } from '#src/sim/outcome.js';
import type { SimScenario } from '#src/sim/scenario.js';
import { simulate } from '#src/sim/simulate.js';
import { job, lanes, plainCosts, scenario } from './scenarios.js';

/** Somebody chats on one of two lanes that four jobs roll out on: alone it takes 20 ms a token. */
const LIMIT_MS = 70;
const HORIZON_MS = 120_000;
const ROLLOUT_JOBS = ['a', 'b', 'c', 'd'] as const;

function served(limitMs = LIMIT_MS): SimScenario {
  const everywhere = { trainerLane: null, engineLanes: [0, 1], stages: [], trainerBytes: 0, engineBytes: 5 };
  const rollouts = ROLLOUT_JOBS.map((id) =>
    job(id, { ...everywhere, steps: 1_000, groupSize: 16, completionTokens: 120, slotsMax: 8 }),
  );
  const chat = job('chat', {
    ...everywhere,
    arrivesMs: 3_000,
    engineLanes: [0],
    steps: 1_000,
    groupSize: 2,
    completionTokens: { kind: 'uniform', low: 40, high: 200 },
    tokenLatencyMs: limitMs,
  });
  const costs = plainCosts({ decode: { stepMs: 20, rowMs: 0, prefillRowMs: 0, batchRows: 1000 } });
  return scenario([...rollouts, chat], { lanes: lanes(2), costs });
}

const under = (policy: string, limitMs?: number): Promise<SimOutcome> =>
  simulate(served(limitMs), policyNamed(policy), { horizonMs: HORIZON_MS, progressMs: 50 });

function outcomeOf({ jobs }: SimOutcome, id: string): SimJobOutcome {
  const found = jobs.find((own) => own.id === id);
  if (found === undefined) throw new Error(`no job ${id}`);
  return found;
}

const p99 = (outcome: SimOutcome): number => outcomeOf(outcome, 'chat').tokenLatencyMs.p99 ?? NaN;

function generationMs({ busy }: SimOutcome, lane: number, isChat: boolean): number {
  return busy
    .filter((own) => own.lane === lane && (own.job === 'chat') === isChat)
    .reduce((sum, { ms }) => sum + ms, 0);
}

describe('a foreground beside four jobs that roll out', () => {
  it('keeps its p99 within the limit under sloGuard, and the rollouts use what that leaves', async () => {
    const outcome = await under('sloGuard');
    expect(outcome.firstViolation).toBeNull();
    expect(p99(outcome)).toBeLessThanOrEqual(LIMIT_MS);
    for (const id of ROLLOUT_JOBS) expect(outcomeOf(outcome, id).rollouts, id).toBeGreaterThan(20);
    // Its lane is shared all the time, and the other one is all theirs.
    expect(generationMs(outcome, 0, false)).toBeGreaterThan(0.4 * HORIZON_MS);
    expect(generationMs(outcome, 1, false)).toBeGreaterThan(0.95 * HORIZON_MS);
  });

  it('waits for its turns under roundRobin', async () => {
    expect(p99(await under('roundRobin'))).toBeGreaterThan(LIMIT_MS);
  });

  it('gets no token at all under fifo: the others came first', async () => {
    const { tokens, tokenLatencyMs } = outcomeOf(await under('fifo'), 'chat');
    expect([tokens.decoded, tokenLatencyMs.p99]).toEqual([0, null]);
  });

  it('has the lane almost for itself where any rollout beside it is too much', async () => {
    const limitMs = 30;
    const outcome = await under('sloGuard', limitMs);
    expect(p99(outcome)).toBeLessThanOrEqual(limitMs);
    expect(generationMs(outcome, 0, true)).toBeGreaterThan(0.9 * (HORIZON_MS - 3_000));
    for (const id of ROLLOUT_JOBS) expect(outcomeOf(outcome, id).rollouts, id).toBeGreaterThan(20);
  });
});
