import { expect, it } from 'vitest';
import { policyNamed } from '#src/scheduler/policies/index.js';
import { simulate } from '#src/sim/simulate.js';
import { cluster } from './big.js';

const priority = policyNamed('priority');

const HOUR_MS = 3_600_000;

it('a hundred lanes and ten jobs for an hour take seconds, and plans stay as rare as they are asked to be', async () => {
  const before = process.cpuUsage();
  const options = { coalesceMs: 20_000, progressMs: 60_000, horizonMs: HOUR_MS, planEventsMax: 10_000 };
  const outcome = await simulate(cluster(100, 10), priority, options);
  const seconds = process.cpuUsage(before).user / 1e6;
  expect(outcome.violations).toBe(0);
  expect(outcome.jobs.reduce((sum, job) => sum + job.rollouts, 0)).toBeGreaterThan(5000);
  // One plan for each 20 s, and one more for the answers to its orders.
  expect(outcome.plans.length + outcome.plansDropped).toBeLessThan((2 * HOUR_MS) / 20_000 + 100);
  // Computing every token instead of every change would take a hundred times as long as this on any machine.
  const tokens = outcome.jobs.reduce((sum, job) => sum + job.tokens.decoded, 0);
  expect(tokens / seconds).toBeGreaterThan(2_000_000);
});
