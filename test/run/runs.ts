import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { afterAll, vi } from 'vitest';
import { resolveConfig } from '#src/run/config.js';
import { runJob, type RunOptions } from '#src/run/runner.js';
import { RunFiles } from './run-folders.js';

const REPOSITORY = resolve(import.meta.dirname, '../..');
export const SHIPPED_MODEL = join(REPOSITORY, 'models/arithmetic-tiny');
const OFFBEAT = join(REPOSITORY, 'scripts/offbeat.mjs');

/** A load that is over in a second or two, and still has every part of a run in it. */
export const SMALL = [
  'steps=4',
  'rollout.prompts_per_step=4',
  'rollout.samples_per_prompt=4',
  'evaluation.heldout_prompts=16',
];

const roots: string[] = [];
afterAll(() => {
  for (const root of roots.splice(0)) rmSync(root, { recursive: true, force: true });
});

/** A fresh folder that goes away after the tests of the file. */
export function temporaryFolder(): string {
  const root = mkdtempSync(join(tmpdir(), 'offbeat-run-'));
  roots.push(root);
  return root;
}

/** Runs a small job in this process, silently; `set` comes after and outdoes what `SMALL` says. */
export async function smallRun(set: readonly string[] = [], faults?: RunFaults): Promise<RunFiles> {
  const folder = join(temporaryFolder(), 'run');
  await smallRunInto(folder, set, faults);
  return new RunFiles(folder);
}

/** What is to go wrong in the lane of that number and epoch. */
export type RunFaults = NonNullable<RunOptions['faults']>;

/** As `smallRun`, into a folder that the caller names and so has even when the run fails. */
export async function smallRunInto(
  outFolder: string,
  set: readonly string[],
  faults: RunFaults = () => [],
): Promise<void> {
  const silence = vi.spyOn(process.stderr, 'write').mockReturnValue(true);
  try {
    const { signal: interrupted } = new AbortController();
    await runJob(resolveConfig({ set: [...SMALL, ...set] }), { outFolder, interrupted, faults });
  } finally {
    silence.mockRestore();
  }
}

export interface CommandResult {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
  readonly seconds: number;
}

export interface Command {
  /** Sends a signal to the process. */
  kill(signal: NodeJS.Signals): void;
  /** Resolves when what it has written to stderr matches; rejects when it ends without. */
  said(pattern: RegExp): Promise<void>;
  readonly ended: Promise<CommandResult>;
}

/** Starts the command line as a user does, in a folder of its own. */
export function offbeat(
  args: readonly string[],
  { cwd = temporaryFolder(), env = {} }: { cwd?: string; env?: Record<string, string> } = {},
): Command {
  const startedMs = performance.now();
  const child = spawn(process.execPath, [OFFBEAT, ...args], { cwd, env: { ...process.env, ...env } });
  let stdout = '';
  let stderr = '';
  let over = false;
  let check = (): void => undefined;
  child.stdout.setEncoding('utf8').on('data', (text: string) => (stdout += text));
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    stderr += text;
    check();
  });
  const ended = new Promise<CommandResult>((done, failed) => {
    child.on('error', failed);
    child.on('close', (code, signal) => {
      over = true;
      check();
      done({ code, signal, stdout, stderr, seconds: (performance.now() - startedMs) / 1000 });
    });
  });
  const said = (pattern: RegExp): Promise<void> =>
    new Promise((matched, missed) => {
      check = () => {
        if (pattern.test(stderr)) matched();
        else if (over) missed(new Error(`ended without saying ${String(pattern)}:\n${stderr}`));
      };
      check();
    });
  return { kill: (signal) => void child.kill(signal), said, ended };
}

/** `--set` for each key and value. */
export function sets(pairs: readonly string[]): string[] {
  return pairs.flatMap((pair) => ['--set', pair]);
}
