import { spawn } from 'node:child_process';
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { hostname, tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { runCommand, SetupError } from '../../scripts/lib/command.mjs';
import { outputsOf, staleOutputs } from '../../scripts/lib/compile.mjs';
import { withLock } from '../../scripts/lib/lock.mjs';
import { NODE_MIN, nodeIsRecentEnough } from '../../scripts/lib/node-version.mjs';
import { wrongPackages } from '../../scripts/lib/packages.mjs';

const repository = fileURLToPath(new URL('../..', import.meta.url));

let folder = '';
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'offbeat-set-up-'));
});
afterEach(() => {
  rmSync(folder, { recursive: true });
});

/** A tiny repository with the real scripts and the real compiler. */
function makeRepository(): void {
  cpSync(join(repository, 'scripts'), join(folder, 'scripts'), { recursive: true });
  for (const name of ['tsconfig.json', 'package.json', 'package-lock.json']) {
    cpSync(join(repository, name), join(folder, name));
  }
  symlinkSync(join(repository, 'node_modules'), join(folder, 'node_modules'));
  mkdirSync(join(folder, 'src/cli'), { recursive: true });
  writeFileSync(join(folder, 'src/answer.ts'), 'export const answer = 7;\n');
  writeFileSync(
    join(folder, 'src/cli/main.ts'),
    `import { answer } from '../answer.js';
export function main(argv: string[]): Promise<number> {
  setInterval(() => undefined, 1000);
  process.stdout.write(argv.join(' ').repeat(100_000));
  return Promise.resolve(answer);
}
`,
  );
}

function script(name: string, ...args: string[]) {
  return runCommand([process.execPath, join(folder, 'scripts', name), ...args], {
    timeoutMs: 60_000,
    cwd: folder,
  });
}

test('the build runs once, follows every change of the sources, and leaves nothing stale', async () => {
  makeRepository();
  expect(await script('build.mjs')).toMatchObject({ code: 0, stderr: 'setup: building src into dist\n' });
  expect(await script('build.mjs')).toMatchObject({ code: 0, stderr: '' });

  rmSync(join(folder, 'dist/answer.js'));
  writeFileSync(join(folder, 'dist/left-over.js'), '');
  expect((await script('build.mjs')).code).toBe(0);
  expect(existsSync(join(folder, 'dist/answer.js'))).toBe(true);
  expect(existsSync(join(folder, 'dist/left-over.js'))).toBe(false);

  writeFileSync(join(folder, 'src/answer.ts'), "export const answer: number = 'seven';\n");
  const failed = await script('build.mjs');
  expect(failed).toMatchObject({ code: 1 });
  expect(failed.stderr).toContain('src/answer.ts(1,14)');
  // A failed build is not remembered as done.
  expect((await script('build.mjs')).code).toBe(1);

  writeFileSync(join(folder, 'src/answer.ts'), 'export const answer = 8;\n');
  expect((await script('build.mjs')).code).toBe(0);
  expect(readFileSync(join(folder, 'dist/answer.js'), 'utf8')).toContain('answer = 8');
});

test('two builds at once both end well', async () => {
  makeRepository();
  const results = await Promise.all([script('build.mjs'), script('build.mjs'), script('build.mjs')]);
  expect(results.map(({ code }) => code)).toEqual([0, 0, 0]);
  const builds = results.filter(({ stderr }) => stderr.includes('building'));
  expect(builds).toHaveLength(1);
});

test('the command line needs a build, passes its arguments and exit code on, and loses no output', async () => {
  makeRepository();
  const early = await script('offbeat.mjs', 'run');
  expect(early).toMatchObject({ code: 2, stderr: 'offbeat: not set up yet: run `npm run setup` first\n' });
  await script('build.mjs');
  const result = await script('offbeat.mjs', 'one', 'two');
  expect(result.code).toBe(7);
  expect(result.stdout).toHaveLength('one two'.length * 100_000);
});

test('a lock is held by one at a time', async () => {
  const path = join(folder, 'a.lock');
  let holders = 0;
  const hold = () =>
    withLock(path, 10_000, async () => {
      holders++;
      expect(holders).toBe(1);
      await new Promise((resolve) => setTimeout(resolve, 20));
      holders--;
    });
  await Promise.all([hold(), hold(), hold()]);
  expect(existsSync(path)).toBe(false);
  await expect(withLock(path, 100, () => Promise.reject(new Error('inside')))).rejects.toThrow('inside');
  expect(existsSync(path)).toBe(false);
});

test('a lock whose owner is gone is taken over; one that is held is waited for, not forever', async () => {
  const path = join(folder, 'a.lock');
  const child = spawn(process.execPath, ['-e', '']);
  await new Promise((resolve) => child.on('exit', resolve));
  writeFileSync(path, `${hostname()}\n${child.pid}\n1`);
  expect(await withLock(path, 1000, () => Promise.resolve('taken'))).toBe('taken');

  writeFileSync(path, `${hostname()}\n${process.pid}\n1`);
  const waiting = withLock(path, 200, () => Promise.resolve('never'));
  await expect(waiting).rejects.toThrow(SetupError);
  expect(existsSync(path)).toBe(true);
});

test('outputs follow from sources; anything else in dist is stale', () => {
  expect(outputsOf('gpu/device.ts')).toEqual(['gpu/device.js', 'gpu/device.js.map', 'gpu/device.d.ts']);
  expect(outputsOf('types.d.ts')).toEqual([]);
  const built = ['.tsbuildinfo', '.offbeat-build', 'a.js', 'a.d.ts', 'b.js', 'gone/a.js'];
  expect(staleOutputs(['a.ts'], built)).toEqual(['b.js', 'gone/a.js']);
});

test('packages are wrong when missing, of another version, or deleted; optional ones may be left out', () => {
  const wanted = {
    '': { version: '0.1.0' },
    'node_modules/a': { version: '1.0.0' },
    'node_modules/b': { version: '2.0.0' },
    'node_modules/native': { version: '3.0.0', optional: true },
  };
  const right = { 'node_modules/a': { version: '1.0.0' }, 'node_modules/b': { version: '2.0.0' } };
  const all = () => true;
  expect(wrongPackages(wanted, right, all)).toEqual([]);
  expect(wrongPackages(wanted, {}, all)).toEqual(['node_modules/a', 'node_modules/b']);
  expect(wrongPackages(wanted, { ...right, 'node_modules/b': { version: '2.0.1' } }, all)).toEqual([
    'node_modules/b',
  ]);
  expect(wrongPackages(wanted, { ...right, 'node_modules/native': { version: '2.9.0' } }, all)).toEqual([
    'node_modules/native',
  ]);
  expect(wrongPackages(wanted, right, (path) => path !== 'node_modules/a')).toEqual(['node_modules/a']);
});

test('the Node version is compared number by number, and package.json asks for the same', () => {
  expect(['20.19.0', 'v20.20.2', 'v22.1.0', '100.0.0'].map(nodeIsRecentEnough)).toEqual([
    true,
    true,
    true,
    true,
  ]);
  expect(['20.18.9', 'v18.20.0', '20.9.0', '9.99.0'].map(nodeIsRecentEnough)).toEqual([
    false,
    false,
    false,
    false,
  ]);
  expect(readFileSync(join(repository, 'package.json'), 'utf8')).toContain(`"node": ">=${NODE_MIN}"`);
});

test('a program that fails, cannot start or takes too long is told apart, and none throws', async () => {
  const node = process.execPath;
  const failed = await runCommand([node, '-e', 'console.error("why"); process.exit(3)'], {
    timeoutMs: 30_000,
  });
  expect(failed).toMatchObject({ code: 3, signal: null, stderr: 'why\n' });
  const absent = await runCommand([join(folder, 'absent')], { timeoutMs: 30_000 });
  expect(absent).toMatchObject({ code: null, signal: null });
  const slow = await runCommand([node, '-e', 'setInterval(() => {}, 1000)'], { timeoutMs: 300 });
  expect(slow).toMatchObject({ code: null, signal: 'SIGKILL' });
});
