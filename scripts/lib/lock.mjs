// One process at a time, by a lock file. Waits are bounded, and a lock whose owner is gone is taken over.
import { linkSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { hostname } from 'node:os';
import { dirname } from 'node:path';
import { performance } from 'node:perf_hooks';
import { setTimeout as sleep } from 'node:timers/promises';
import { SetupError } from './command.mjs';

const POLL_MS = 100;

/** Creates the lock file whole, or not at all when another process has it. */
function take(path, owner) {
  const draft = `${path}.${process.pid}`;
  writeFileSync(draft, owner);
  try {
    linkSync(draft, path);
    return true;
  } catch (error) {
    if (error.code === 'EEXIST') return false;
    throw error;
  } finally {
    rmSync(draft, { force: true });
  }
}

function readOwner(path) {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    if (error.code === 'ENOENT') return null;
    throw error;
  }
}

/** True when the owner ran on this machine and has ended. Of another machine's processes nothing is known. */
function isGone(owner) {
  const [host, pid] = owner.split('\n');
  if (host !== hostname()) return false;
  try {
    process.kill(Number(pid), 0);
    return false;
  } catch (error) {
    return error.code === 'ESRCH';
  }
}

/** Removes a lock left behind; gives it back when a new owner was faster than our look. */
function removeAbandoned(path, owner) {
  const aside = `${path}.${process.pid}.abandoned`;
  try {
    renameSync(path, aside);
  } catch (error) {
    if (error.code === 'ENOENT') return;
    throw error;
  }
  if (readOwner(aside) !== owner) take(path, readOwner(aside));
  rmSync(aside, { force: true });
}

/**
 * Runs `action` while holding the lock file at `path`.
 *
 * @template T
 * @param {string} path
 * @param {number} waitMsMax
 * @param {() => Promise<T>} action
 * @returns {Promise<T>}
 * @throws {SetupError} when another process holds it for longer than `waitMsMax`
 */
export async function withLock(path, waitMsMax, action) {
  mkdirSync(dirname(path), { recursive: true });
  const mine = `${hostname()}\n${process.pid}\n${performance.now()}`;
  const deadlineMs = performance.now() + waitMsMax;
  while (!take(path, mine)) {
    const owner = readOwner(path);
    if (owner !== null && isGone(owner)) {
      removeAbandoned(path, owner);
      continue;
    }
    if (performance.now() > deadlineMs) {
      throw new SetupError(
        `another process holds ${path}: wait for it, or delete the file if nothing is running`,
      );
    }
    await sleep(POLL_MS);
  }
  try {
    return await action();
  } finally {
    if (readOwner(path) === mine) rmSync(path, { force: true });
  }
}
