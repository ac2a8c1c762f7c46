import { describe, expect, test } from 'vitest';
import { runContest } from '#src/bench/compare/contest.js';
import { policyMakers } from '#src/bench/compare/policies.js';
import { SimulatedRunner, simulatedMeasured } from '#src/bench/compare/simulated.js';
import { summarize } from '#src/bench/compare/summarize.js';
import { compareTable } from '#src/bench/compare/table.js';
import { policyNamed } from '#src/scheduler/policies/index.js';
import { simulate } from '#src/sim/simulate.js';
import { wastedTotal } from '#src/bench/compare/measured.js';
import { simSetup } from '#src/run/scenario-sim.js';
import { scenario } from './fixtures.js';

const WORK = [
  'defaults.sim.completion_tokens={kind="lognormal",median=30,sigma=0.8,max=200}',
  'defaults.sim.environment_wait_ms=400',
  'defaults.sim.turns=[1,2,3]',
  'defaults.sim.filtered_share=0.2',
  'defaults.steps=3',
  'job.slow-tool.steps=3',
];
const agents = scenario(...WORK);
const NEVER = new AbortController().signal;

describe('a simulated run', () => {
  test('has all that the simulator knows, in the terms of the comparison', async () => {
    const outcome = await simulate((await simSetup(agents)).scenario, policyNamed('gapRatio'));
    const run = simulatedMeasured(outcome, 1);
    expect(run).toMatchObject({ endMs: outcome.endedMs, makespanMs: outcome.makespanMs, lanes: 1 });
    for (const [index, job] of run.jobs.entries()) {
      const { tokens, tokensRecomputed } = outcome.jobs[index] ?? {};
      expect(job.tokensTrained + wastedTotal(job.tokensWasted)).toBe(
        (tokens?.decoded ?? 0) - (tokens?.inFlight ?? 0) + (tokensRecomputed ?? 0),
      );
      expect(job.queueWaitMs.actorTraining).toHaveLength(3);
      expect(job.yieldMs).toBeNull();
    }
    const busyMs = (run.busy ?? []).reduce((sum, { ms }) => sum + ms, 0);
    expect(busyMs).toBeCloseTo(
      outcome.busy.reduce((sum, { ms }) => sum + ms, 0),
      6,
    );
    expect(new Set(run.timeline.spans.map(({ kind }) => kind))).toEqual(new Set(['training', 'generation']));
  });

  test('of a job that was given up has no end', async () => {
    const { scenario: given } = await simSetup(agents);
    const jobs = given.jobs.map((job, index) => (index === 0 ? { ...job, leavesMs: 500 } : job));
    const outcome = await simulate({ ...given, jobs }, policyNamed('priority'));
    const run = simulatedMeasured(outcome, 1);
    expect(outcome.jobs[0]?.finishedMs).toBe(500);
    expect(run.jobs.map(({ finishedMs }) => finishedMs === null)).toEqual([true, false, false, false]);
    expect(run.makespanMs).toBeNull();
  });
});

test('end to end: the same contest gives the same result, and a job alone is slowed down by nobody', async () => {
  const policies = ['serial', 'priority'];
  const contest = { scenario: { ...agents, jobs: agents.jobs.slice(0, 2) }, policies, repeats: 2 };
  const runner = new SimulatedRunner(await policyMakers(policies, agents));
  const circumstances = { mode: 'simulated', interrupted: false, wallS: 1 } as const;
  const once = await runContest(contest, runner, NEVER);
  const twice = await runContest(contest, runner, NEVER);
  const result = summarize(contest, once, { ...circumstances, machine: runner.machine });
  expect(summarize(contest, twice, { ...circumstances, machine: runner.machine })).toEqual(result);
  expect(result.machine.description).toContain('llvmpipe-2-cores');
  const rowOf = (policy: string, job: string | null) =>
    result.rows.find((row) => row.policy === policy && row.job === job);
  // One at a time: the first job has the lane to itself, the second waits for all of the first.
  expect(rowOf('serial', 'sums')?.slowdown).toBeCloseTo(1, 1);
  expect(rowOf('serial', 'hot')?.slowdown).toBeGreaterThan(1.5);
  expect(rowOf('priority', null)?.goodput).toBeGreaterThan(rowOf('serial', null)?.goodput ?? Infinity);
  expect(compareTable(result)).toContain('highest goodput: priority');
});

test('one job under the policy of its baseline is slowed down by exactly nothing', async () => {
  const alone = { ...agents, jobs: agents.jobs.slice(0, 1) };
  const policies = ['priority', 'fifo'];
  const runner = new SimulatedRunner(await policyMakers(policies, alone));
  const contest = { scenario: alone, policies, repeats: 2 };
  const repeats = await runContest(contest, runner, NEVER);
  const { rows } = summarize(contest, repeats, {
    mode: 'simulated',
    machine: runner.machine,
    interrupted: false,
    wallS: 1,
  });
  expect(rows[0]).toMatchObject({ policy: 'priority', job: null, slowdown: 1, jain: 1 });
  expect(rows[0]?.ci95.slowdown).toEqual([1, 1]);
});
