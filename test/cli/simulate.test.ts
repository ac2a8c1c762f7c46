import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { Comparison } from '#src/sim/against.js';
import type { SimSummary } from '#src/sim/summary.js';
import { recordedRun, recordedRunOfTwo, writeRun } from '../sim/live-run.js';
import { inProcess } from './in-process.js';

const EXAMPLES = 'examples/scenarios';
/** What makes a model that a scenario names, and is no scenario. */
const PRETRAIN = 'two-sizes-large.toml';

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'offbeat-simulate-'));
});
afterAll(() => rmSync(folder, { recursive: true }));

async function simulated(name: string, ...args: string[]): Promise<{ summary: SimSummary; stdout: string }> {
  const json = join(folder, `${name}.json`);
  const { code, stdout, stderr } = await inProcess('simulate', ...args, '--json', json);
  expect(code, stderr).toBe(0);
  return { summary: JSON.parse(readFileSync(json, 'utf8')) as SimSummary, stdout };
}

const JOB = '[[job]]\nid = "a"\nsteps = 2\n[job.rollout]\nprompts_per_step = 2\nsamples_per_prompt = 2\n';

function scenario(name: string, toml: string): string {
  const file = join(folder, name);
  writeFileSync(file, toml);
  return file;
}

describe('every example', () => {
  const names = readdirSync(EXAMPLES).filter((name) => name !== PRETRAIN);

  test.each(names)('%s is simulated', async (name) => {
    // The large one begins as it would go on.
    const some = name === 'thousand-lanes.toml' ? ['--set', 'sim.ends_ms=900000', '--lanes', '100'] : [];
    const { summary, stdout } = await simulated(name, join(EXAMPLES, name), ...some);
    expect(summary.violations).toBe(0);
    expect(summary.ended).toBe(some.length === 0 ? 'done' : 'horizon');
    expect(summary.jobs.reduce((sum, { tokens }) => sum + tokens.decoded, 0)).toBeGreaterThan(500);
    for (const { id } of summary.jobs.slice(0, 4)) expect(stdout).toContain(id);
    expect(stdout).toMatch(/^lanes +\d+: training .+ generation .+ idle .+$/m);
  });

  test('a policy of the user', async () => {
    const { summary } = await simulated(
      'own',
      join(EXAMPLES, 'four-agents.toml'),
      '--policy',
      'examples/policy.ts',
    );
    expect(summary).toMatchObject({ violations: 0, ended: 'done' });
  });
});

describe('what comes out', () => {
  test('is the same bytes for the same seed, and others for another', async () => {
    const args = [join(EXAMPLES, 'four-agents.toml')];
    const bytes = async (name: string, ...more: string[]) => {
      await simulated(name, ...args, ...more);
      return readFileSync(join(folder, `${name}.json`), 'utf8');
    };
    const first = await bytes('first');
    expect(await bytes('second')).toBe(first);
    expect(await bytes('third', '--seed', '5')).not.toBe(first);
  });

  test('a folder with trace and report like that of a live run', async () => {
    const out = join(folder, 'out');
    const { summary } = await simulated('folder', join(EXAMPLES, 'four-agents.toml'), '--out', out);
    expect(readdirSync(out).sort()).toEqual(['config.toml', 'report.html', 'summary.json', 'trace.json']);
    expect(JSON.parse(readFileSync(join(out, 'summary.json'), 'utf8'))).toEqual(summary);
    const { traceEvents } = JSON.parse(readFileSync(join(out, 'trace.json'), 'utf8')) as {
      traceEvents: { ph: string; name: string; args?: { name?: string } }[];
    };
    const names = new Set(traceEvents.map(({ name }) => name));
    for (const name of [
      'engine',
      'trainer',
      'waiting',
      'granted',
      'awake',
      'time to yield',
      'resume',
      'plan 1',
    ])
      expect(names).toContain(name);
    const threads = traceEvents.filter(({ name }) => name === 'thread_name').map(({ args }) => args?.name);
    expect(threads).toEqual(
      expect.arrayContaining(['sums engine', 'slow-tool actorTraining', 'plans', 'preemptions']),
    );
    const html = readFileSync(join(out, 'report.html'), 'utf8');
    for (const { id } of summary.jobs) expect(html).toContain(`<th>${id}</th>`);
    // The file says all there is to say: simulated again, it comes to the same.
    const { summary: again } = await simulated('again', join(out, 'config.toml'));
    expect(again.jobs).toEqual(summary.jobs);
  });

  test('of many lanes stays small, and says what is left out', async () => {
    const out = join(folder, 'large');
    const args = ['--set', 'sim.ends_ms=900000', '--lanes', '300', '--out', out];
    const { code, stderr } = await inProcess('simulate', join(EXAMPLES, 'thousand-lanes.toml'), ...args);
    expect({ code, stderr }).toEqual({
      code: 0,
      stderr: 'trace and report show the first 16 of 300 lanes; all numbers are over all of them\n',
    });
    expect(statSync(join(out, 'report.html')).size).toBeLessThan(1_500_000);
    expect(statSync(join(out, 'trace.json')).size).toBeLessThan(20_000_000);
  });

  test('says what was assumed, and takes what is given', async () => {
    const bare = await simulated('bare', scenario('bare.toml', JOB));
    expect(bare.stdout).toContain('costs of the profile llvmpipe-2-cores');
    expect(bare.stdout).toContain('completion_tokens lognormal, median 8, sigma 0.8, at most 32');
    const lengths = scenario('lengths.jsonl', '{"n": 3}\n');
    const given = `${JOB}[job.sim]\ncompletion_tokens = { kind = "trace", file = "lengths.jsonl", field = "n" }\n`;
    const { summary } = await simulated('given', scenario('given.toml', given));
    expect(lengths).toContain(folder);
    expect(summary.jobs[0]?.tokens.decoded).toBe(2 * 4 * 3);
    expect(summary.assumptions.join()).not.toContain('completion_tokens');
  });

  test('copies of a job come when they are told to, and train on lanes of their own', async () => {
    const toml = `${JOB}[job.sim]\ncopies = 3\narrives_ms = [0, 500, 2000]\n`;
    const { summary } = await simulated('copies', scenario('copies.toml', toml), '--lanes', '3');
    expect(summary.jobs.map(({ id, arrived_s: s }) => [id, s])).toEqual([
      ['a-1', 0],
      ['a-2', 0.5],
      ['a-3', 2],
    ]);
    expect(summary.jobs.every(({ queue_wait_ms: { max } }) => max === 0)).toBe(true);
  });
});

test('--against prints predicted beside measured, --calibrate takes the costs of a run', async () => {
  const run = mkdtempSync(join(folder, 'run-'));
  writeRun(run, await recordedRun());
  const { code, stdout, stderr } = await inProcess('simulate', '--against', run);
  expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
  const error = /^makespan .* ([+−]?[\d.<]+) %$/m.exec(stdout)?.[1] ?? 'none';
  expect(Math.abs(Number(error.replace(/[+−<]/g, ''))), stdout).toBeLessThan(2);
  const { summary } = await simulated('calibrated', join(EXAMPLES, 'two-sizes.toml'), '--calibrate', run);
  expect(summary.costs.source).toContain(run);
});

test('--against of several jobs has a row for each, and --json the numbers', async () => {
  const run = mkdtempSync(join(folder, 'run-'));
  writeRun(run, await recordedRunOfTwo());
  const json = join(folder, 'against.json');
  const { code, stdout, stderr } = await inProcess('simulate', '--against', run, '--json', json);
  expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
  const rows = /^ +measured +predicted +error\nmakespan .* %\njob turns .* %\njob large .* %\n$/;
  expect(stdout).toMatch(rows);
  const told = JSON.parse(readFileSync(json, 'utf8')) as Comparison;
  expect(told.jobs.map(({ id }) => id)).toEqual(['turns', 'large']);
  for (const { error } of told.jobs) expect(Math.abs(error)).toBeLessThan(0.03);
  expect(told.paceSpread).toBeCloseTo(1, 1);
  rmSync(join(run, 'jobs', 'turns', 'metrics.jsonl'));
  const lacking = await inProcess('simulate', '--against', run);
  expect(lacking).toMatchObject({ code: 2, stdout: '' });
  expect(lacking.stderr).toMatch(/^offbeat: [^\n]*jobs\/turns\/metrics\.jsonl cannot be used [^\n]+\n$/);
});

describe('what is wrong is said in one line', () => {
  test.each([
    [[], 'simulate needs a scenario'],
    [['none.toml'], 'none.toml: not found'],
    [['A', '--lanes', '0'], '--lanes 0: must be a whole number from 1'],
    [['A', '--seed', 'x'], '--seed x: must be a whole number from 0'],
    [['A', '--policy', 'best'], '--policy best: no policy of that name: use one of serial'],
    [['A', '--calibrate', 'none'], 'none/config.toml: not found'],
    [['A', '--set', 'sim.profile=tpu'], 'no cost profile is named "tpu": use one of llvmpipe-2-cores'],
    [['A', '--set', 'job.a.sim.turns=-1'], '--set job.a.sim.turns=-1: must be a number from 0'],
    [
      ['A', '--set', 'job.a.lanes=[0]', '--set', 'lanes=2', '--set', 'job.a.trainer_lane=1'],
      'trainer_lane is 1',
    ],
    [['A', '--out', 'src'], 'src: not empty: name a new folder with --out'],
    [['--against', 'none'], 'none/config.toml: not found'],
    [['A', '--against', 'none'], 'leave out the scenario'],
    [['--against', 'none', '--lanes', '3'], 'leave out --lanes'],
  ])('%j', async (args, expected) => {
    const file = scenario('a.toml', JOB);
    const { code, stdout, stderr } = await inProcess(
      'simulate',
      ...args.map((arg) => (arg === 'A' ? file : arg)),
    );
    expect({ code, stdout }, stderr).toEqual({ code: 2, stdout: '' });
    expect(stderr).toMatch(/^offbeat: [^\n]+\n$/);
    expect(stderr).toContain(expected);
  });
});
