import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, describe, expect, test, vi } from 'vitest';
import { z } from 'zod';
import { policyNamed } from '#src/scheduler/policies/index.js';
import { runScenario } from '#src/run/runner.js';
import { loadScenario, type Scenario } from '#src/run/scenario.js';
import { RunFiles, tokensOf } from './run-folders.js';
import { temporaryFolder } from './runs.js';
import { expectSame, go, jobFiles, type Ran, scenarioOf as writtenScenario } from './scenario-runs.js';

const ENDING = join(import.meta.dirname, 'fixtures/ending-task.mjs');

/** On policy: what a job does depends on nothing but itself. */
const HEAD = `
seed = 7
[output]
checkpoint = true
[defaults]
steps = 3
[defaults.rollout]
prompts_per_step = 3
samples_per_prompt = 4
[defaults.engine]
slots = 6
[defaults.algorithm]
staleness_versions_max = 0
[defaults.evaluation]
heldout_prompts = 8
`;

/** Unlike in every way that could rub off: seeds, sizes of a step, temperature, a reference, recomputed scores. */
const JOBS: Readonly<Record<string, string>> = {
  plain: '',
  kl: '[job.algorithm]\nkl_coefficient = 0.05\nold_log_probs = "recomputed"\nupdates_per_step = 2\n',
  hot: 'weight = 3\narrives_s = 0.4\n[job.rollout]\ntemperature = 1.3\nsamples_per_prompt = 6\n',
};

const scenarioOf = (ids: readonly string[]): Scenario =>
  writtenScenario(HEAD, Object.fromEntries(ids.map((id) => [id, JOBS[id] ?? ''])));

const withLanes = (scenario: Scenario, count: number): Scenario => {
  const all = Array.from({ length: count }, (_, lane) => lane);
  const jobs = scenario.jobs.map((job, i) => ({ ...job, lanes: all, trainerLane: i % count }));
  return { ...scenario, lanes: { ...scenario.lanes, count }, jobs };
};

describe('a job never knows that others exist', () => {
  const alone = new Map<string, RunFiles>();
  const ids = Object.keys(JOBS);
  beforeAll(async () => {
    for (const id of ids) alone.set(id, new RunFiles((await go(scenarioOf([id]))).folder));
  });

  const expectAllSame = (folder: string, label: string): void => {
    for (const id of ids) {
      const own = alone.get(id);
      if (own === undefined) throw new Error(`${id} did not run alone`);
      expectSame(jobFiles(folder, id), own, `${label}: ${id}`);
    }
  };

  test.each(['priority', 'serial', 'static', 'roundRobin', 'gapRatio'])(
    'its results are the same bits alone and beside others: one lane, %s',
    async (name) => {
      const policy = { name, plan: policyNamed(name) };
      expectAllSame((await go(scenarioOf(ids), { policy })).folder, name);
    },
  );

  test('and on two lanes, with trainers on both', async () => {
    expectAllSame((await go(withLanes(scenarioOf(ids), 2))).folder, 'two lanes');
  });

  test('and where their engines do not fit side by side', async () => {
    const scenario = scenarioOf(ids);
    const tight = { ...scenario, lanes: { ...scenario.lanes, memoryMib: 7 } };
    const { folder, outcome } = await go(tight, {
      policy: { name: 'gapRatio', plan: policyNamed('gapRatio') },
    });
    // The first that is done leaves room for two of the others.
    const roomyMs = Math.min(...outcome.jobs.map(({ finishedMs }) => finishedMs));
    const awake = outcome.records.awake.items
      .filter(({ fromMs }) => fromMs < roomyMs)
      .toSorted((a, b) => a.fromMs - b.fromMs);
    expect(new Set(awake.map(({ job }) => job)).size).toBeGreaterThan(1);
    awake.forEach(({ fromMs }, i) => {
      if (i > 0) expect(fromMs).toBeGreaterThanOrEqual(awake[i - 1]?.toMs ?? NaN);
    });
    expectAllSame(folder, 'tight');
  });

  test('and when the lane that all of them are on is lost', async () => {
    const lost = await go(scenarioOf(ids), {
      faults: (_, epoch) => (epoch === 0 ? [{ at: 'afterSubmit', after: 160, do: 'destroyDevice' }] : []),
    });
    expect(lost.outcome.summary?.lanes.rebuilt).toBe(1);
    expectAllSame(lost.folder, 'lost lane');
  });
});

describe('a run of several jobs', () => {
  let ran: Ran;
  beforeAll(async () => {
    ran = await go(scenarioOf(['plain', 'hot']));
  });

  test('tells of all jobs and of each', () => {
    const { folder, outcome } = ran;
    const { summary } = outcome;
    if (summary === null) throw new Error('no summary');
    expect(Object.keys(summary.jobs)).toEqual(['plain', 'hot']);
    const written = z.looseObject({ jobs: z.record(z.string(), z.unknown()) });
    expect(written.parse(JSON.parse(readFileSync(join(folder, 'summary.json'), 'utf8')))).toEqual(
      JSON.parse(JSON.stringify(summary)),
    );
    let decoded = 0;
    for (const [id, job] of Object.entries(summary.jobs)) {
      const files = jobFiles(folder, id);
      expect(files.metrics, id).toHaveLength(3);
      expect(files.summary.tokens, id).toEqual(job.tokens);
      expect(tokensOf(files.rollouts), id).toBe(job.tokens.decoded);
      decoded += job.tokens.decoded;
    }
    expect(summary.tokens.decoded).toBe(decoded);
    expect(summary.goodput * summary.makespan_s).toBeCloseTo(summary.tokens.trained, 6);
    for (const share of summary.busy) expect(share).toBeGreaterThan(0);
  });

  test('a job that arrives late does nothing before', () => {
    const { outcome } = ran;
    const hot = outcome.jobs.find(({ id }) => id === 'hot');
    if (hot === undefined) throw new Error('no such job');
    const { stages, startMs } = outcome.records;
    const first = Math.min(
      ...stages.items.filter(({ job }) => job === 'hot').map(({ requestedMs }) => requestedMs),
    );
    expect(hot.arrivedMs - startMs).toBeGreaterThan(400);
    expect(first).toBeGreaterThanOrEqual(hot.arrivedMs);
  });

  test('on-policy tokens are of the version that is trained', () => {
    for (const { id, stalenessTokens, summary } of ran.outcome.jobs)
      expect([...stalenessTokens], id).toEqual([[0, summary.tokens.trained]]);
  });

  test('its trace and its report name the jobs', () => {
    const { trace } = new RunFiles(ran.folder);
    const names = trace.map(({ args }) => String(args?.['name']));
    for (const id of ['plain', 'hot']) {
      expect(names.some((name) => name.startsWith(`${id} engine`))).toBe(true);
      expect(readFileSync(join(ran.folder, 'report.html'), 'utf8')).toContain(`<th>${id}</th>`);
    }
  });

  test('its config.toml runs again', () => {
    const file = join(ran.folder, 'config.toml');
    expect(loadScenario({ file }).scenario.jobs.map(({ id }) => id)).toEqual(['plain', 'hot']);
    expect(existsSync(join(ran.folder, 'jobs/hot/config.toml'))).toBe(true);
  });
});

test('a job that fails ends alone, and is told of when the others are done', async () => {
  const bad = `[[job]]\nid = "bad"\nsteps = 9\n[job.task]\nname = ${JSON.stringify(ENDING)}
[job.rollout]\nprompts_per_step = 130\nsamples_per_prompt = 2\nmax_tokens = 2\n[job.evaluation]\nheldout_prompts = 0\n`;
  const file = join(temporaryFolder(), 'scenario.toml');
  writeFileSync(file, `${HEAD}[[job]]\nid = "plain"\nsteps = 6\n${bad}`);
  const outFolder = join(temporaryFolder(), 'run');
  const silence = vi.spyOn(process.stderr, 'write').mockReturnValue(true);
  const { signal: interrupted } = new AbortController();
  try {
    await expect(runScenario(loadScenario({ file }).scenario, { outFolder, interrupted })).rejects.toThrow(
      /^job bad: task "ending": its train split ended after 520 tasks/,
    );
  } finally {
    silence.mockRestore();
  }
  expect(jobFiles(outFolder, 'plain').metrics).toHaveLength(6);
  expect(jobFiles(outFolder, 'bad').metrics).toHaveLength(4);
});
