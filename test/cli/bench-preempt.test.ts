import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { z } from 'zod';
import { yieldQuantiles } from '#src/bench/preempt/statistics.js';
import { at } from '#src/lib/assert.js';
import { ended, offbeat, start } from './offbeat.js';
import { writeTinyModel } from './tiny-model.js';

let folder: string;
let model: string;
beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'offbeat-bench-'));
  model = await writeTinyModel(join(folder, 'tiny'));
});
afterAll(() => rmSync(folder, { recursive: true }));

const ms = z.number();
const quantiles = z.strictObject({
  n: z.int(),
  p50: ms.nullable(),
  p90: ms.nullable(),
  p99: ms.nullable(),
  p999: ms.nullable(),
  max: ms.nullable(),
});
/** The format, written down a second time: what others read must not change by accident. */
const format = z.strictObject({
  format: z.literal('offbeat-bench-preempt/1'),
  adapter: z.looseObject({ description: z.string(), software: z.boolean() }),
  host: z.strictObject({ cpus: z.int().min(1), cpu_model: z.string(), node: z.string() }),
  seed: z.int(),
  model: z.string(),
  low_priority: z.string(),
  high_priority: z.string(),
  interrupted: z.boolean(),
  left_out: z.array(z.string()),
  host_jitter_ms: ms.positive(),
  host_jitter: quantiles,
  solo: z.strictObject({ hp_ms: quantiles }),
  unchunked: z.strictObject({ lp_tokens_per_s: z.number().positive(), decode_step_ms: ms.positive() }),
  cells: z.array(
    z.strictObject({
      mode: z.string(),
      slice_budget_us: z.number().nullable(),
      in_flight_budget_us: z.number().nullable(),
      hint: z.boolean(),
      n: z.int().min(1),
      yield_ms: quantiles,
      yield_clock: z.enum(['device', 'host']),
      yield_host_ms: quantiles,
      detection_ms: quantiles,
      bound_ms: ms.nullable(),
      law_violations: z.int(),
      law_violations_beyond_jitter: z.int(),
      violations: z.array(
        z.strictObject({
          yield_ms: ms,
          bound_ms: ms,
          kernel: z.string().nullable(),
          predicted_us: z.number().nullable(),
          real_us: z.number().nullable(),
        }),
      ),
      lp_retained: z.number().min(0),
      lp_tokens_per_s: z.number().min(0),
      hp_slowdown: z.number(),
      hp_ms: quantiles,
      hp_duty: z.number().min(0).max(1),
      resume_ms: ms.nullable(),
      resume: quantiles,
      wasted: z.strictObject({ recompute_ms: ms, discarded_ms: ms, idle_ms: ms, hint_idle_ms: ms }),
      tokens_recomputed: z.int(),
      tokens_discarded: z.int(),
      host_cpu: z.number().nullable(),
      requests_unrecorded: z.int(),
      wall_s: z.number().positive(),
      samples: z.strictObject({
        yield_ms: z.array(ms),
        yield_host_ms: z.array(ms),
        bound_ms: z.array(ms),
        phase: z.array(z.number().min(0).max(1).nullable()),
        hp_ms: z.array(ms),
        resume_ms: z.array(ms.nullable()),
        slice_predicted_us: z.array(z.number()),
        slice_real_us: z.array(z.number()),
      }),
    }),
  ),
  wall_s: z.number().positive(),
});

const read = (file: string) => format.parse(JSON.parse(readFileSync(file, 'utf8')));

test('measures what it is asked for, and every number follows from the raw samples', async () => {
  const [out, json] = [join(folder, 'out'), join(folder, 'measured.json')];
  const args = ['--model', model, '--n', '5', '--modes', 'held,abort-retry', '--in-flight-budgets', '3000'];
  const { code, stdout, stderr } = await offbeat(
    ...['bench', 'preempt', ...args, '--slice-budgets', '1000', '--seed', '3', '--json', json, '--out', out],
  );
  expect(code, stderr).toBe(0);
  expect(readdirSync(out).sort()).toEqual(['report.html', 'result.json']);
  expect(readFileSync(join(out, 'report.html'), 'utf8')).toMatch(/^<!doctype html>/i);
  expect(readFileSync(json, 'utf8')).toBe(readFileSync(join(out, 'result.json'), 'utf8'));
  const { cells, solo, host_jitter: jitter, ...rest } = read(json);
  expect(rest).toMatchObject({
    seed: 3,
    model: basename(model),
    interrupted: false,
    left_out: [],
    host_jitter_ms: jitter.p99,
  });
  expect(jitter.n).toBe(5);
  expect(cells.map((cell) => [cell.mode, cell.slice_budget_us, cell.in_flight_budget_us, cell.n])).toEqual([
    ['held', 1000, 3000, 5],
    ['abort-retry', null, 0, 5],
  ]);
  for (const cell of cells) {
    const { samples } = cell;
    expect(cell.requests_unrecorded).toBe(0);
    expect(yieldQuantiles(samples.yield_ms)).toEqual(cell.yield_ms);
    expect(yieldQuantiles(samples.yield_host_ms)).toEqual(cell.yield_host_ms);
    expect(yieldQuantiles(samples.hp_ms)).toEqual(cell.hp_ms);
    expect(yieldQuantiles(samples.resume_ms.filter((value) => value !== null))).toEqual(cell.resume);
    expect(samples.phase).toHaveLength(5);
    expect(samples.slice_real_us).toHaveLength(samples.slice_predicted_us.length);
    expect(samples.slice_real_us.length).toBeGreaterThan(0);
    // A step is not over before it could begin.
    samples.yield_ms.forEach((value, i) => expect(value).toBeLessThan(at(samples.hp_ms, i)));
    const over = samples.bound_ms.filter((bound, i) => at(samples.yield_ms, i) > bound);
    expect(cell.law_violations).toBe(over.length);
    expect(cell.hp_slowdown).toBeCloseTo((cell.hp_ms.p50 ?? 0) / (solo.hp_ms.p50 ?? 0) - 1, 3);
    expect(stdout).toContain(cell.mode);
  }
  const [held, aborted] = cells;
  expect(held).toMatchObject({ tokens_recomputed: 0, tokens_discarded: 0 });
  expect(held?.samples.bound_ms).toHaveLength(5);
  expect(aborted?.bound_ms).toBeNull();
  expect(aborted?.tokens_discarded).toBeGreaterThan(0);
  expect(stdout).toMatch(/LP kept: /);
  expect(stdout).toContain(`report       ${join(out, 'report.html')}\n`);
});

test('Ctrl-C ends it with what was measured so far', async () => {
  const out = join(folder, 'interrupted');
  const budgets = ['--slice-budgets', '1000', '--in-flight-budgets', '3000'];
  const args = ['--model', model, '--modes', 'held', ...budgets, '--out', out];
  const child = start(['bench', 'preempt', ...args]);
  const end = ended(child);
  const hasMeasured = new Promise<void>((resolve) =>
    child.stderr.on('data', (text: string) => {
      if (text.includes('round 2')) resolve();
    }),
  );
  await Promise.race([hasMeasured, end]);
  child.kill('SIGINT');
  const { code, stdout, stderr } = await end;
  expect(code, stderr).toBe(130);
  const { interrupted, cells } = read(join(out, 'result.json'));
  expect(interrupted).toBe(true);
  // Of a thousand: the first round's, and none or some of the second's.
  expect(cells).toHaveLength(1);
  expect(cells[0]?.n).toBeGreaterThanOrEqual(100);
  expect(cells[0]?.n).toBeLessThan(1000);
  expect(stdout).toContain('interrupted after');
  expect(existsSync(join(out, 'report.html'))).toBe(true);
});

describe('a mistake is told in one line, before anything is measured or written', () => {
  const refused = async (...args: string[]): Promise<string> => {
    const { code, stdout, stderr } = await offbeat('bench', ...args);
    expect({ code, stdout }, stderr).toEqual({ code: 2, stdout: '' });
    expect(stderr).toMatch(/^offbeat: [^\n]+\n$/);
    return stderr;
  };

  test('flags', async () => {
    expect(await refused('preempt', '--n', 'ten')).toContain('--n is "ten", must be a whole number from 1');
    expect(await refused('preempt', '--in-flight-budgets', '4000,')).toContain(
      '--in-flight-budgets[2] is "", must be a number from 50',
    );
    expect(await refused('preempt', '--full', '--quick')).toContain(
      '--full and --quick contradict each other',
    );
    expect(await refused('preempt', '--fast')).toContain(
      "unknown option '--fast'; see `offbeat bench preempt --help`",
    );
    expect(await refused('decode')).toContain("unknown command 'decode'; see `offbeat bench --help`");
  });

  test('files', async () => {
    const json = join(folder, 'nowhere/x.json');
    expect(await refused('preempt', '--json', json)).toContain(`--json ${json}: cannot be written`);
    const full = mkdtempSync(join(folder, 'full-'));
    writeFileSync(join(full, 'kept'), 'kept');
    expect(await refused('preempt', '--out', full)).toContain(
      `${full}: not empty: name a new folder with --out`,
    );
    const out = join(folder, 'never');
    const nowhere = join(folder, 'nowhere');
    expect(await refused('preempt', '--model', nowhere, '--out', out)).toContain(
      join(nowhere, 'config.json'),
    );
    expect(existsSync(out)).toBe(false);
  });
});

test('help comes bare and by name', async () => {
  expect((await offbeat('bench')).stdout).toContain('preempt');
  const { code, stdout } = await offbeat('bench', 'preempt', '--help');
  expect(code).toBe(0);
  for (const part of ['--quick', '--slice-budgets', 'abort-retry', 'Examples:'])
    expect(stdout).toContain(part);
});
