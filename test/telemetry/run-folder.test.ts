import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { UserError } from '#src/lib/errors.js';
import type { MetricsRecord } from '#src/telemetry/metrics.js';
import { RunFolder } from '#src/telemetry/run-folder.js';
import { syntheticRun } from './synthetic.js';

let base: string;
beforeEach(() => {
  base = mkdtempSync(join(tmpdir(), 'offbeat-run-'));
});
afterEach(() => rmSync(base, { recursive: true }));

const ignore = (): void => undefined;

async function refusal(path: string): Promise<string> {
  const error: unknown = await RunFolder.create(path, ['main'], ignore).then(
    () => null,
    (reason: unknown) => reason,
  );
  expect(error).toBeInstanceOf(UserError);
  const text = error instanceof Error ? error.message : '';
  expect(text).not.toContain('\n');
  expect(text).toContain(path);
  expect(text).toContain('--out');
  return text;
}

describe('creating', () => {
  test('makes missing folders, and takes an empty one', async () => {
    const path = join(base, 'a', 'b');
    const folder = await RunFolder.create(path, ['main'], ignore);
    await folder.close();
    expect(readdirSync(path).sort()).toEqual(['metrics.jsonl', 'rollouts.jsonl']);
    mkdirSync(join(base, 'empty'));
    await (await RunFolder.create(join(base, 'empty'), ['main'], ignore)).close();
  });

  test('never touches a folder that holds something', async () => {
    writeFileSync(join(base, 'mine.txt'), 'mine');
    expect(await refusal(base)).toContain('not empty');
    expect(readdirSync(base)).toEqual(['mine.txt']);
  });

  test('refuses a file, and a path through a file', async () => {
    const file = join(base, 'file');
    writeFileSync(file, 'mine');
    expect(await refusal(file)).toContain('not a directory');
    expect(await refusal(join(file, 'below'))).toContain('not a directory');
    expect(readFileSync(file, 'utf8')).toBe('mine');
  });

  test.skipIf(!existsSync('/proc/self'))('refuses where no folder can be made', async () => {
    await refusal('/proc/offbeat/run');
  });

  test('refuses a name the file system cannot hold, and leaves nothing behind', async () => {
    await refusal(join(base, 'made', 'x'.repeat(300)));
    expect(readdirSync(base)).toEqual([]);
  });
});

describe('writing', () => {
  test('fills the folder with whole files', async () => {
    const run = syntheticRun(1, 3);
    const folder = await RunFolder.create(join(base, 'run'), ['main'], ignore);
    const job = folder.job('main');
    for (const record of run.metrics) job.appendMetrics(record);
    job.appendRollout({ id: 'r1' });
    await folder.writeConfig('seed = 7\n');
    await job.writeSummary(run.summary);
    await folder.writeReport('<!doctype html>');
    await folder.writeTrace(['{"traceEvents":', '[]}']);
    await folder.close();
    const names = [
      'config.toml',
      'metrics.jsonl',
      'report.html',
      'rollouts.jsonl',
      'summary.json',
      'trace.json',
    ];
    expect(readdirSync(folder.path).sort()).toEqual(names);
    const read = (name: string): string => readFileSync(join(folder.path, name), 'utf8');
    expect(JSON.parse(read('summary.json'))).toEqual(run.summary);
    expect(read('trace.json')).toBe('{"traceEvents":[]}');
    expect(
      read('metrics.jsonl')
        .trimEnd()
        .split('\n')
        .map((line) => JSON.parse(line) as unknown),
    ).toEqual(run.metrics);
    expect(folder.logPath).toBe(join(folder.path, 'offbeat.log'));
    expect(job.recordsLost).toBe(0);
  });

  test('keeps the file as it was when writing fails half way', async () => {
    const folder = await RunFolder.create(join(base, 'run'), ['main'], ignore);
    await folder.writeTrace(['old']);
    const failing = function* (): Generator<string> {
      yield 'new, but';
      throw new Error('out of luck');
    };
    await expect(folder.writeTrace(failing())).rejects.toThrow(/trace\.json.*out of luck/);
    await folder.close();
    expect(readFileSync(join(folder.path, 'trace.json'), 'utf8')).toBe('old');
    expect(readdirSync(folder.path).filter((name) => name.includes('partial'))).toEqual([]);
  });

  test('refuses metrics that are not in the registry and tokens that do not add up', async () => {
    const folder = await RunFolder.create(join(base, 'run'), ['main'], ignore);
    const misspelt = { step: 1, time_s: 0, 'actor/looss': 1 } as MetricsRecord;
    expect(() => folder.job('main').appendMetrics(misspelt)).toThrow('actor/looss');
    const { summary } = syntheticRun(1, 3);
    const tokens = { ...summary.tokens, decoded: summary.tokens.decoded + 1 };
    expect(() => folder.job('main').writeSummary({ ...summary, tokens })).toThrow('add up');
    await folder.close();
    expect(readdirSync(folder.path)).not.toContain('summary.json');
  });
});
