import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, describe, expect, test } from 'vitest';
import { at } from '#src/lib/assert.js';
import { resolveConfig } from '#src/run/config.js';
import { differences, problemsOf } from '../../bench/lib/soak-check.js';
import { Deaths } from '../../bench/lib/soak-deaths.js';
import { drawCase, type SoakCase } from '../../bench/lib/soak-draw.js';
import type { FolderContents, SoakRollout } from '../../bench/lib/soak-folder.js';
import { soak } from '../../bench/lib/soak-loop.js';
import { type SoakOutcome, soakRun } from '../../bench/lib/soak-run.js';
import { resultJson, resultText } from '../../bench/lib/soak-text.js';
import { trend } from '../../bench/lib/soak-trend.js';
import { temporaryFolder } from './runs.js';

/** Of a soak that has deaths on both lanes, a twin and an interrupt in its first few runs. */
const SEED = 1;
const RUNS = 4;

test(`a short soak holds (seed ${SEED})`, async () => {
  const told: (string | number)[] = [];
  const result = await soak({
    seed: SEED,
    forMs: 15_000,
    runsMax: RUNS,
    enough: new AbortController().signal,
    onBegin: (seed) => told.push(seed),
    onEnd: ({ ended }) => told.push(ended),
  });
  const text = resultText(result, SEED);
  expect(result.failure, text).toBeNull();
  expect(result.held, text).toBe(true);
  expect(text).toMatch(/verdict: everything held\n$/);
  const { sums } = result.account;
  expect(sums.runs).toBeGreaterThan(0);
  expect(told).toHaveLength(2 * sums.runs);
  expect(told[0]).toBe(SEED);
  expect(sums.deaths, text).toBeGreaterThan(0);
  expect(sums.tokens_trained, text).toBeGreaterThan(0);
  expect(sums.twins_same, text).toBeGreaterThan(0);
  expect(resultJson(result, SEED)).toMatchObject({ held: true, failure: null, runs: sums.runs });
});

describe('what is drawn', () => {
  const cases = Array.from({ length: 400 }, (_, seed) => drawCase(seed));

  test('follows from the seed', () => {
    expect(drawCase(17)).toEqual(cases[17]);
    expect(drawCase(18)).not.toEqual(cases[17]);
  });

  test('can be run', () => {
    for (const { seed, job, sharing, steps } of cases) {
      const config = resolveConfig({ set: [...job, ...sharing] });
      expect([config.seed, config.steps], `seed ${seed}`).toEqual([seed, steps]);
      expect(resolveConfig({ set: job }).lanes.count, `seed ${seed}`).toBe(1);
    }
  });

  test('mixes everything', () => {
    const deaths = cases.flatMap(({ deaths: script }) =>
      script.flatMap((faults, lane) => faults.map((fault) => `${fault.do} ${fault.at} on ${lane}`)),
    );
    // Three kinds at five moments on the lane that trains, at three on the other.
    expect(new Set(deaths).size).toBe(3 * 5 + 3 * 3);
    const sets = new Set(cases.flatMap(({ sharing }) => sharing));
    for (const kv of ['held', 'spilled', 'dropped', 'pressure'])
      expect(sets).toContain(`lanes.kv_on_preempt=${kv}`);
    expect(new Set(cases.map(({ twinOf }) => twinOf))).toEqual(new Set(['everything', 'tokens', null]));
    expect(cases.some(({ interruptAfterMs }) => interruptAfterMs !== null)).toBe(true);
    expect(cases.some(({ hasDelays }) => hasDelays)).toBe(true);
  });
});

/** A case without deaths, delays or an interrupt, with more config than was drawn. */
function calm(sharing: readonly string[] = []): SoakCase {
  const drawn = Array.from({ length: 100 }, (_, seed) => drawCase(seed)).find(
    ({ twinOf, job }) => twinOf === 'everything' && !job.some((set) => set.startsWith('task.name')),
  );
  if (drawn === undefined) throw new Error('none of 100 cases is calm');
  const none = { deaths: [], hasDelays: false, interruptAfterMs: null };
  return { ...drawn, ...none, sharing: [...drawn.sharing, ...sharing] };
}

describe('a run that is not as it must be', () => {
  let good: SoakOutcome;
  let contents: FolderContents;
  beforeAll(async () => {
    const root = temporaryFolder();
    good = await soakRun(calm(), root);
    expect(good.problems).toEqual([]);
    expect(good.hadTwin).toBe(true);
    expect(existsSync(join(root, `seed-${good.drawn.seed}`))).toBe(false);
    if (good.contents === null) throw new Error('the run left nothing');
    contents = good.contents;
  });

  const problems = (changed: Partial<FolderContents>, wasInterrupted = false): string[] => {
    const { steps, rollouts } = good.drawn;
    return problemsOf({ ...contents, ...changed }, { steps, rollouts, wasInterrupted });
  };
  const withFirst = (change: (rollout: SoakRollout) => Partial<SoakRollout>): FolderContents['rollouts'] => {
    const [first, ...rest] = contents.rollouts;
    if (first === undefined) throw new Error('the run has no rollouts');
    return [{ ...first, ...change(first) }, ...rest];
  };

  test('is told by a token that was lost, or a rollout produced twice or never', () => {
    expect(problems({})).toEqual([]);
    const shorter = withFirst(({ token_ids }) => ({ token_ids: token_ids.slice(1) }));
    expect(problems({ rollouts: shorter }).join()).toMatch(
      /tokens written of .*tokens and log-probabilities/,
    );
    const twice = [...contents.rollouts, at(contents.rollouts, 0)];
    expect(problems({ rollouts: twice }).join()).toMatch(/rollout 1 was produced twice/);
    expect(problems({ rollouts: contents.rollouts.slice(1) }).join()).toMatch(
      /rollouts written of step \d+, not/,
    );
  });

  test('is told by an open account, a version that goes back, steps and a model that are missing', () => {
    const { summary } = contents;
    const tokens = { ...summary.tokens, decoded: summary.tokens.decoded + 1 };
    expect(problems({ summary: { ...summary, tokens } }).join()).toMatch(/the token account is open/);
    const back = withFirst(({ token_ids: { length } }) => ({
      weight_versions: [
        { version: 1, start: 0, end: 1 },
        { version: 0, start: 1, end: length },
      ],
    }));
    expect(problems({ rollouts: back }).join()).toMatch(/has versions/);
    const fewer = { ...summary, steps: 1 };
    expect(problems({ summary: fewer }).join()).toMatch(/1 steps were taken/);
    expect(problems({ summary: fewer, metricLines: 1 }, true)).toEqual([]);
    expect(problems({ weights: null }).join()).toMatch(/no model after/);
  });

  test('is told by other bits than its twin', async () => {
    const other = withFirst(({ logprobs }) => ({ logprobs: logprobs.map((value) => value - 1e-7) }));
    expect(differences({ ...contents, rollouts: other }, contents, 'tokens').join()).toMatch(
      /1 of \d+ rollouts/,
    );
    const later = withFirst(() => ({ lanes: [1, 0], weight_versions: [] }));
    expect(differences({ ...contents, rollouts: later }, contents, 'tokens')).toEqual([]);
    expect(differences({ ...contents, rollouts: later }, contents, 'everything')).not.toEqual([]);
    const root = temporaryFolder();
    const wrong = await soakRun(calm(['rollout.temperature=0.7']), root);
    expect(wrong.problems.join()).toMatch(/differ from those of the undisturbed twin/);
    expect(existsSync(join(root, `seed-${wrong.drawn.seed}`, 'summary.json'))).toBe(true);
  });

  test('is told when it fails, with what it said last', async () => {
    const dies: SoakCase = {
      ...calm(['lanes.rebuilds_max=0']),
      deaths: [[{ at: 'afterSubmit', after: 20, do: 'throw' }]],
    };
    const failed = await soakRun(dies, temporaryFolder());
    expect(failed.ended).toBe('failed');
    expect(failed.problems.join('\n')).toMatch(
      /injected fault: afterSubmit, after 20[^]*\| preparing the trainer/,
    );
  });

  test('is told by a lane that dies of itself', () => {
    const deaths = new Deaths([[{ at: 'beforeSubmit', after: 3, do: 'exit' }]]);
    for (const [lane, epoch] of [
      [0, 0],
      [1, 0],
      [0, 1],
    ] as const)
      deaths.faultsOf(lane, epoch);
    expect([deaths.struck.length, deaths.unplanned]).toEqual([1, []]);
    deaths.faultsOf(0, 2);
    expect(deaths.unplanned).toEqual(['lane 0 died of itself after 1 others']);
  });
});

test('growth is told from noise, and from too little to tell', () => {
  const allowance = { absolute: 5, share: 0.01 };
  const noisy = (slope: number): number[] =>
    Array.from({ length: 40 }, (_, i) => (i < 8 ? 10 * i : 100) + slope * i + ((i * 7) % 5));
  expect(trend(noisy(0), allowance)).toMatchObject({ isFlat: true });
  expect(trend(noisy(1), allowance)).toMatchObject({ isFlat: false });
  expect(trend(noisy(-1), allowance)).toMatchObject({ isFlat: true });
  expect(trend(noisy(1).slice(0, 10), allowance)).toBeNull();
});
