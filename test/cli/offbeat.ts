import { spawn, type ChildProcessByStdio } from 'node:child_process';
import { join, resolve } from 'node:path';
import type { Readable } from 'node:stream';

const PACKAGE = resolve(import.meta.dirname, '../..');
const SCRIPT = join(PACKAGE, 'scripts/offbeat.mjs');
const TIMEOUT_MS = 90_000;

export interface Ended {
  /** Null when a signal ended it. */
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
}

export type Running = ChildProcessByStdio<null, Readable, Readable>;

/** Starts the command line as a user does: a process of its own, in the repository's root. */
export function start(args: readonly string[]): Running {
  return startNode([SCRIPT, ...args]);
}

/** Starts a script in the repository's root. */
export function startNode(args: readonly string[]): Running {
  return spawn(process.execPath, args, {
    cwd: PACKAGE,
    stdio: ['ignore', 'pipe', 'pipe'],
    timeout: TIMEOUT_MS,
    killSignal: 'SIGKILL',
  });
}

/** Everything a process printed, and how it ended. */
export function ended(child: Running): Promise<Ended> {
  let stdout = '';
  let stderr = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => (stdout += text));
  child.stderr.setEncoding('utf8').on('data', (text: string) => (stderr += text));
  return new Promise((resolveEnd, reject) => {
    child.once('error', reject);
    child.once('close', (code, signal) => resolveEnd({ code, signal, stdout, stderr }));
  });
}

/** Runs a command to its end. */
export function offbeat(...args: readonly string[]): Promise<Ended> {
  return ended(start(args));
}
