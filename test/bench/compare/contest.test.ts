import { describe, expect, test } from 'vitest';
import {
  contestOrders,
  runContest,
  scenarioOf,
  SOLO_POLICY,
  type Contest,
  type Order,
  type Runner,
} from '#src/bench/compare/contest.js';
import { jobSeed, type Scenario } from '#src/run/scenario.js';
import { job, measured, scenario } from './fixtures.js';

const MACHINE = { description: 'nothing', software: false, vendor: '', architecture: '' };
const contest: Contest = { scenario: scenario(), policies: ['serial', 'fifo', 'gapRatio'], repeats: 4 };
const ids = contest.scenario.jobs.map(({ id }) => id);

function key({ policy, solo }: Order): string {
  return solo === null ? policy : `${solo} alone`;
}

/** Measures nothing; remembers what it was asked for. */
function runner(onOrder: (order: Order, scenario: Scenario) => void = () => undefined): Runner {
  return {
    machine: MACHINE,
    measure: (asked, order) => {
      onOrder(order, asked);
      return Promise.resolve(measured(asked.jobs.map(({ id }) => job({ id }))));
    },
  };
}

describe('the order of a contest', () => {
  const orders = contestOrders(contest);
  const repeats = [0, 1, 2, 3].map((repeat) => orders.slice(7 * repeat, 7 * repeat + 7));

  test('runs every policy and every job alone once in each repeat, one repeat after the other', () => {
    for (const [repeat, own] of repeats.entries()) {
      expect(own.every((order) => order.repeat === repeat)).toBe(true);
      expect(own.map(key).sort()).toEqual([...contest.policies, ...ids.map((id) => `${id} alone`)].sort());
    }
    expect(orders.filter(({ solo }) => solo !== null).every(({ policy }) => policy === SOLO_POLICY)).toBe(
      true,
    );
  });

  test('is mixed anew in each repeat, and the same for the same seed', () => {
    expect(new Set(repeats.map((own) => own.map(key).join())).size).toBeGreaterThan(1);
    expect(contestOrders(contest)).toEqual(orders);
    expect(contestOrders({ ...contest, scenario: scenario('seed=5') })).not.toEqual(orders);
  });
});

describe('the scenario of a run', () => {
  test('has the seeds that the scenario would have with the seed of its repeat', () => {
    const { jobs, seed } = scenarioOf(contest.scenario, { repeat: 2, solo: null });
    expect(seed).toBe(6);
    expect(jobs.map(({ config }) => config.seed)).toEqual(ids.map((id) => jobSeed(6, id)));
    expect(scenarioOf(contest.scenario, { repeat: 2, solo: null })).toEqual(scenario('seed=6'));
    expect(scenarioOf(contest.scenario, { repeat: 0, solo: null })).toEqual(contest.scenario);
  });

  test("moves on a seed of the job's own", () => {
    const { jobs } = scenarioOf(scenario('job.sums.seed=100'), { repeat: 3, solo: null });
    expect(jobs[0]?.config.seed).toBe(103);
  });

  test('of a job alone has that job with the same seed, there from the start', () => {
    const shared = scenarioOf(contest.scenario, { repeat: 1, solo: null }).jobs[3];
    const { jobs, lanes } = scenarioOf(contest.scenario, { repeat: 1, solo: 'large-groups' });
    expect(jobs).toEqual([{ ...shared, arrivesS: 0 }]);
    expect(lanes).toEqual(contest.scenario.lanes);
  });
});

describe('a contest', () => {
  test('gives each run its scenario, and keeps one timeline of each policy', async () => {
    const asked: string[] = [];
    const repeats = await runContest(
      contest,
      runner((order, { seed, jobs }) => asked.push(`${key(order)} ${seed} ${jobs.length}`)),
      new AbortController().signal,
    );
    expect(asked).toHaveLength(28);
    expect(asked).toContain('gapRatio 7 4');
    expect(asked).toContain('slow-tool alone 5 1');
    expect(repeats.map(({ seed }) => seed)).toEqual([4, 5, 6, 7]);
    expect(repeats.map(({ runs }) => runs.map(({ timeline }) => timeline.spans.length))).toEqual([
      [4, 4, 4],
      [0, 0, 0],
      [0, 0, 0],
      [0, 0, 0],
    ]);
    expect([...(repeats[3]?.solo ?? [])]).toEqual(ids.map((id) => [id, 10_000]));
  });

  test('that is interrupted keeps whole repeats, and nothing of the run that was cut short', async () => {
    const abort = new AbortController();
    let runs = 0;
    const stopping = runner(() => {
      if (++runs === 17) abort.abort();
    });
    expect(await runContest(contest, stopping, abort.signal)).toHaveLength(2);
    expect(runs).toBe(17);
    // Its last run of a repeat was the one that was cut short.
    const late = new AbortController();
    let count = 0;
    const cut = runner(() => {
      if (++count === 7) late.abort();
    });
    expect(await runContest(contest, cut, late.signal)).toEqual([]);
  });

  test('ends with the error of a run, unless it was interrupted', async () => {
    const failing: Runner = { machine: MACHINE, measure: () => Promise.reject(new Error('no device')) };
    await expect(runContest(contest, failing, new AbortController().signal)).rejects.toThrow('no device');
    const abort = new AbortController();
    const interrupted: Runner = {
      machine: MACHINE,
      measure: () => {
        abort.abort();
        return Promise.reject(new Error('interrupted'));
      },
    };
    expect(await runContest(contest, interrupted, abort.signal)).toEqual([]);
  });
});
