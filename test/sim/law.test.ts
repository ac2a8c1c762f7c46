import { expect, it } from 'vitest';
import { policyNamed } from '#src/scheduler/policies/index.js';
import { simulate } from '#src/sim/simulate.js';
import { job, plainCosts, scenario } from './scenarios.js';

/** What the lane's budgets bound: the work already submitted when a stage comes. */
const LAW_MS = 5;
const TRAIN_MS = 200;

it('priority: training is granted at once and waits for its lane no longer than the law', async () => {
  // One trains again and again on a lane that two others fill with sequences.
  const costs = plainCosts({
    yieldMs: { kind: 'uniform', low: 1, high: LAW_MS },
    train: { ms: TRAIN_MS, msPerUnit: 0 },
  });
  const served = { stages: [], trainerLane: null, trainerBytes: 0 } as const;
  const jobs = [
    job('trained', { steps: 10 }),
    job('long', { ...served, completionTokens: 400, steps: 4 }),
    job('wide', { ...served, completionTokens: 300, groupSize: 8, steps: 4 }),
  ];
  const outcome = await simulate(scenario(jobs, { costs }), policyNamed('priority'));
  expect({ violations: outcome.violations, ended: outcome.ended }).toEqual({ violations: 0, ended: 'done' });
  const trainings = outcome.timeline.stages.filter(({ stage }) => stage === 'actorTraining');
  expect(trainings).toHaveLength(10);
  for (const { requestedMs, grantedMs, releasedMs } of trainings) {
    expect(grantedMs).toBe(requestedMs);
    expect((releasedMs ?? NaN) - requestedMs - TRAIN_MS).toBeLessThanOrEqual(LAW_MS + 1e-6);
  }
  // Others ran in the way of most of them, or there was nothing to wait for.
  expect(outcome.yieldMs.length).toBeGreaterThanOrEqual(8);
});
