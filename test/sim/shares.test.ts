import { expect, it } from 'vitest';
import { policyNamed } from '#src/scheduler/policies/index.js';
import { simulate } from '#src/sim/simulate.js';
import { job, lanes, scenario } from './scenarios.js';

/** Rollouts of three jobs that have far more to do than there are lanes, one rollout a slot and lane at a time. */
const GROUPS = { small: 100, middle: 200, big: 300 } as const;
const LANES = 12;

it('gapRatio: shares of the lanes follow the shares of the work that remains', async () => {
  const engineLanes = Array.from({ length: LANES }, (_, lane) => lane);
  const jobs = Object.entries(GROUPS).map(([id, groupsPerStep]) =>
    job(id, {
      groupsPerStep,
      engineLanes,
      completionTokens: 40,
      slotsMax: 2,
      stages: [],
      trainerLane: null,
      trainerBytes: 0,
    }),
  );
  const world = scenario(jobs, { lanes: lanes(LANES) });
  const outcome = await simulate(world, policyNamed('gapRatio'));
  expect(outcome.violations).toBe(0);
  const { makespanMs } = outcome;
  if (makespanMs === null) throw new Error('it did not end');
  // From when all have their lanes until the first has only its last rollouts left.
  const [fromMs, toMs] = [0.1 * makespanMs, 0.7 * makespanMs];
  const total = Object.values(GROUPS).reduce((sum, count) => sum + count, 0);
  const laneMs = new Map<string, number>();
  for (const span of outcome.timeline.spans) {
    const ms = Math.min(span.toMs, toMs) - Math.max(span.fromMs, fromMs);
    if (ms > 0) laneMs.set(span.job, (laneMs.get(span.job) ?? 0) + ms);
  }
  const all = [...laneMs.values()].reduce((sum, ms) => sum + ms, 0);
  expect(all).toBeGreaterThan(0.95 * LANES * (toMs - fromMs));
  for (const [id, count] of Object.entries(GROUPS)) {
    // Equal speed: what remains stays in the ratio of what there was.
    const share = (laneMs.get(id) ?? 0) / all;
    expect(Math.abs(share / (count / total) - 1), id).toBeLessThan(0.1);
  }
});
