import { expect, it } from 'vitest';
import { policyNamed } from '#src/scheduler/policies/index.js';
import type { SimOutcome } from '#src/sim/outcome.js';
import type { SimJobSpec } from '#src/sim/scenario.js';
import { simulate } from '#src/sim/simulate.js';
import { job, lanes, scenario } from './scenarios.js';

/** Training on lane 0, generation on lane 1, as Weave has a pool for each: alone, each lane idles half of the time. */
const SPLIT = { trainerLane: 0, engineLanes: [1], slotsMax: 2, steps: 6 };
const ROLLOUT_MS = 120;
const TRAIN_MS = 100 + 2 * (3 + 12);
const CYCLE_MS = ROLLOUT_MS + TRAIN_MS;

function run(policy: string, ids: readonly string[], part: Partial<SimJobSpec> = {}): Promise<SimOutcome> {
  const jobs = ids.map((id) => job(id, { ...SPLIT, completionTokens: 12, ...part }));
  return simulate(scenario(jobs, { lanes: lanes(2) }), policyNamed(policy), { policyName: policy });
}

/** How long both lanes are at work at once, in ms. */
function overlapMs({ timeline }: SimOutcome): number {
  const [first, second] = [0, 1].map((lane) =>
    timeline.spans.filter((span) => span.lane === lane && span.kind !== 'init'),
  );
  let ms = 0;
  for (const a of first ?? []) {
    for (const b of second ?? []) ms += Math.max(0, Math.min(a.toMs, b.toMs) - Math.max(a.fromMs, b.fromMs));
  }
  return ms;
}

it('one job alone has a lane idle whatever it does', async () => {
  for (const policy of ['serial', 'coexecRoundRobin']) {
    const alone = await run(policy, ['a']);
    expect(alone.makespanMs).toBeCloseTo(6 * CYCLE_MS, 6);
    expect(overlapMs(alone)).toBe(0);
  }
});

it('two jobs with complementary phases: while one trains, the other generates', async () => {
  const serial = await run('serial', ['a', 'b']);
  const together = await run('coexecRoundRobin', ['a', 'b']);
  expect(serial.makespanMs).toBeCloseTo(12 * CYCLE_MS, 6);
  // After one cycle each alone, lane 0 trains without a pause: only the first of the other ten rollouts is not hidden.
  const makespanMs = 2 * CYCLE_MS + ROLLOUT_MS + 10 * TRAIN_MS;
  expect(together.makespanMs).toBeCloseTo(makespanMs, 6);
  expect(overlapMs(together)).toBeCloseTo(9 * ROLLOUT_MS, 6);
  for (const { steps, tokens, tokensRecomputed } of together.jobs) {
    expect({ steps, tokensRecomputed }).toEqual({ steps: 6, tokensRecomputed: 0 });
    expect(tokens).toMatchObject({ decoded: 6 * 2 * 12, trained: 6 * 2 * 12 });
  }
  const finishedMs = together.jobs.map((outcome) => outcome.finishedMs);
  expect(finishedMs).toEqual(
    [makespanMs - TRAIN_MS, makespanMs].map((ms) => expect.closeTo(ms, 6) as number),
  );
});

it('the two stay resident: no engine sleeps before its job is done', async () => {
  const { plans, jobs } = await run('coexecRoundRobin', ['a', 'b']);
  const first = Math.min(...jobs.map(({ finishedMs }) => finishedMs ?? NaN));
  expect(plans.filter(({ timeMs, plan }) => timeMs < first && plan.sleep.length > 0)).toEqual([]);
});

it('jobs whose rollouts leave no gaps for each other do not share a cycle', async () => {
  const long = { completionTokens: 60 };
  const cycleMs = 600 + 100 + 2 * 63;
  const together = await run('coexecRoundRobin', ['a', 'b'], long);
  expect(together.makespanMs).toBeCloseTo(12 * cycleMs, 6);
  expect(overlapMs(together)).toBe(0);
});
