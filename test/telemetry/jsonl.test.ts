import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { JsonlWriter } from '#src/telemetry/jsonl.js';

let folder: string;
let problems: string[];
const options = (bytesQueuedMax = 1e6): { bytesQueuedMax: number; onProblem: (text: string) => void } => ({
  bytesQueuedMax,
  onProblem: (text) => problems.push(text),
});

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'offbeat-jsonl-'));
  problems = [];
});
afterEach(() => rmSync(folder, { recursive: true }));

test('writes every record in the order of the calls, also while the disk is busy', async () => {
  const path = join(folder, 'a.jsonl');
  const writer = await JsonlWriter.open(path, options());
  for (let index = 0; index < 5000; index++) {
    writer.append({ index, text: 'zwölf\n"Boxkämpfer"' });
    if (index % 1000 === 0) await new Promise((resolve) => setTimeout(resolve, 1));
  }
  await writer.close();
  const lines = readFileSync(path, 'utf8').trimEnd().split('\n');
  expect(lines.map((line) => (JSON.parse(line) as { index: number }).index)).toEqual([...Array(5000).keys()]);
  expect(writer.recordsLost).toBe(0);
  expect(problems).toEqual([]);
});

test('keeps a record as it was when it was appended', async () => {
  const path = join(folder, 'a.jsonl');
  const writer = await JsonlWriter.open(path, options());
  const record = { value: 1 };
  writer.append(record);
  record.value = 2;
  writer.append(record);
  await writer.close();
  expect(readFileSync(path, 'utf8')).toBe('{"value":1}\n{"value":2}\n');
});

test('drops what does not fit the queue, counts it and says so once', async () => {
  const path = join(folder, 'a.jsonl');
  // Each line is 13 bytes, and nothing is written before the first await: four fit and two do not.
  const writer = await JsonlWriter.open(path, options(55));
  for (let index = 0; index < 6; index++) writer.append({ index: index + 10 });
  await writer.close();
  expect(readFileSync(path, 'utf8').split('\n')).toHaveLength(4 + 1);
  expect(writer.recordsLost).toBe(2);
  expect(problems).toHaveLength(1);
  expect(problems[0]).toContain(path);
});

test('takes nothing after close, and closes twice without harm', async () => {
  const path = join(folder, 'a.jsonl');
  const writer = await JsonlWriter.open(path, options());
  writer.append({ a: 1 });
  await writer.close();
  writer.append({ a: 2 });
  await writer.close();
  expect(readFileSync(path, 'utf8')).toBe('{"a":1}\n');
  expect(writer.recordsLost).toBe(1);
});

test.skipIf(!existsSync('/dev/full'))('tells of a full disk once and goes on', async () => {
  const writer = await JsonlWriter.open('/dev/full', options());
  for (let index = 0; index < 100; index++) {
    writer.append({ index });
    if (index % 10 === 0) await new Promise((resolve) => setTimeout(resolve, 1));
  }
  await writer.close();
  expect(problems).toHaveLength(1);
  expect(problems[0]).toMatch(/ENOSPC.*--out/);
  expect(problems[0]).not.toContain('\n');
  expect(writer.recordsLost).toBe(100);
});
