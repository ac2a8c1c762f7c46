import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { UserError } from '#src/lib/errors.js';
import { OutFolder } from '#src/telemetry/out-folder.js';

let base: string;
beforeAll(() => {
  base = mkdtempSync(join(tmpdir(), 'offbeat-out-'));
});
afterAll(() => rmSync(base, { recursive: true }));

it('holds the result and the report, in a new folder however deep', async () => {
  const folder = await OutFolder.create(join(base, 'a/b'));
  await folder.write('result.json', ['{', '}']);
  await folder.write('report.html', ['<html>']);
  await folder.close();
  expect(readdirSync(folder.path).sort()).toEqual(['report.html', 'result.json']);
  expect(readFileSync(folder.reportPath, 'utf8')).toBe('<html>');
});

it('never touches a folder that holds something', async () => {
  await expect(OutFolder.create(join(base, 'a/b'))).rejects.toThrow(
    /b: not empty: name a new folder with --out$/,
  );
  expect(readFileSync(join(base, 'a/b/result.json'), 'utf8')).toBe('{}');
});

it('leaves nothing behind when nothing was measured, but what was there', async () => {
  await (await OutFolder.create(join(base, 'new/inner'))).close();
  expect(existsSync(join(base, 'new'))).toBe(false);
  const there = mkdtempSync(join(base, 'there-'));
  await (await OutFolder.create(there)).close();
  expect(existsSync(there)).toBe(true);
});

it('says in one line what stands in the way', async () => {
  const file = join(base, 'file');
  writeFileSync(file, '');
  await expect(OutFolder.create(file)).rejects.toThrow(UserError);
  await expect(OutFolder.create(join(file, 'in'))).rejects.toThrow(
    /cannot be made \(.*\): name another folder/,
  );
  // Where the system says that there is no such file, Node's own recursive mkdir never answers.
  await expect(OutFolder.create('/proc/offbeat/out')).rejects.toThrow(
    /^\/proc\/offbeat\/out: cannot be made \(.*\): name another folder with --out$/,
  );
});
