// src/ → dist/ by the TypeScript compiler, only when something changed.
import { createHash } from 'node:crypto';
import { existsSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { outputTail, runCommand, say, SetupError } from './command.mjs';
import { withLock } from './lock.mjs';

const COMPILE_TIMEOUT_MS = 5 * 60_000;
const OUTPUT_ENDINGS = ['.js', '.js.map', '.d.ts'];
const BUILD_INFO = '.tsbuildinfo';
const STAMP = '.offbeat-build';

/** Paths of all files under a folder, relative to it, sorted, with forward slashes. */
function filesUnder(folder) {
  if (!existsSync(folder)) return [];
  return readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) =>
      join(entry.parentPath, entry.name)
        .slice(folder.length + 1)
        .replaceAll('\\', '/'),
    )
    .sort();
}

/** @param {string} path a source file @returns {string[]} what the compiler writes for it; nothing for a declaration */
export function outputsOf(path) {
  if (!path.endsWith('.ts') || path.endsWith('.d.ts')) return [];
  return OUTPUT_ENDINGS.map((ending) => path.slice(0, -'.ts'.length) + ending);
}

/**
 * Files in dist that no source makes any more.
 *
 * @param {readonly string[]} sources relative to src
 * @param {readonly string[]} built relative to dist
 */
export function staleOutputs(sources, built) {
  const kept = new Set([BUILD_INFO, STAMP, ...sources.flatMap(outputsOf)]);
  return built.filter((path) => !kept.has(path));
}

/** Content decides, not time: a checkout touches files without changing them, and the reverse. */
function fingerprint(root, sources) {
  const hash = createHash('sha256');
  const inputs = ['tsconfig.json', 'package-lock.json', ...sources.map((path) => `src/${path}`)];
  for (const path of inputs) {
    const content = readFileSync(join(root, path));
    hash.update(`${path}\0${content.length}\0`).update(content);
  }
  return hash.digest('hex');
}

function isBuilt(root) {
  const dist = join(root, 'dist');
  const stamp = join(dist, STAMP);
  if (!existsSync(stamp)) return false;
  const sources = filesUnder(join(root, 'src'));
  const built = filesUnder(dist);
  if (staleOutputs(sources, built).length > 0) return false;
  const present = new Set(built);
  return (
    sources.flatMap(outputsOf).every((path) => present.has(path)) &&
    readFileSync(stamp, 'utf8') === fingerprint(root, sources)
  );
}

async function compile(root) {
  const dist = join(root, 'dist');
  const sources = filesUnder(join(root, 'src'));
  const built = filesUnder(dist);
  // Taken before the compiler reads: a file edited meanwhile makes the stamp old, never wrong.
  const print = fingerprint(root, sources);
  for (const path of [STAMP, ...staleOutputs(sources, built)]) rmSync(join(dist, path), { force: true });
  const present = new Set(built);
  // The compiler trusts its own record of what it wrote; without it, it writes everything again.
  if (!sources.flatMap(outputsOf).every((path) => present.has(path)))
    rmSync(join(dist, BUILD_INFO), { force: true });

  const compiler = join(root, 'node_modules/typescript/bin/tsc');
  const result = await runCommand([process.execPath, compiler, '-p', 'tsconfig.json'], {
    cwd: root,
    timeoutMs: COMPILE_TIMEOUT_MS,
  });
  if (result.code !== 0) throw new SetupError(`the build failed:\n${outputTail(result)}`, 1);
  writeFileSync(join(dist, STAMP), print);
}

/**
 * Builds dist unless it matches src. Two processes at once are fine: the second waits and finds the work done.
 *
 * @param {string} root of the repository
 */
export async function ensureBuilt(root) {
  if (isBuilt(root)) return;
  await withLock(join(root, '.cache/build.lock'), 2 * COMPILE_TIMEOUT_MS, async () => {
    if (isBuilt(root)) return;
    say('building src into dist');
    await compile(root);
  });
}
