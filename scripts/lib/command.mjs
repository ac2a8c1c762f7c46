import { spawn } from 'node:child_process';
import { accessSync, constants } from 'node:fs';
import { delimiter, join } from 'node:path';

/** @typedef {import('./command.d.mts').CommandResult} CommandResult */

const OUTPUT_CHARS_MAX = 1_000_000;

/** A reason to stop set-up that the user should read: one line, and the exit code. */
export class SetupError extends Error {
  /** @param {string} message @param {number} exitCode */
  constructor(message, exitCode = 2) {
    super(message);
    this.exitCode = exitCode;
  }
}

/** One line of progress. It goes to stderr: stdout is for results. @param {string} text */
export function say(text) {
  process.stderr.write(`setup: ${text}\n`);
}

/**
 * Runs a program to its end and keeps the last million characters of what it prints. Never throws: a program that
 * cannot start has code null and says why in `stderr`.
 *
 * @param {readonly string[]} argv
 * @param {{ timeoutMs: number, cwd?: string, env?: Record<string, string | undefined>, input?: string, shell?: boolean }} options
 * @returns {Promise<CommandResult>}
 */
export function runCommand(argv, options) {
  const { timeoutMs, input = '', ...rest } = options;
  return new Promise((resolve) => {
    const child = spawn(argv[0], argv.slice(1), { ...rest, timeout: timeoutMs, killSignal: 'SIGKILL' });
    const output = { stdout: '', stderr: '' };
    for (const name of ['stdout', 'stderr']) {
      child[name].setEncoding('utf8').on('data', (text) => {
        output[name] = (output[name] + text).slice(-OUTPUT_CHARS_MAX);
      });
    }
    child.on('error', (error) => resolve({ code: null, signal: null, stdout: '', stderr: error.message }));
    child.on('close', (code, signal) => resolve({ code, signal, ...output }));
    // A program that does not read its input closes the pipe; what counts then is its exit code.
    child.stdin.on('error', () => {});
    child.stdin.end(input);
  });
}

/** The last lines a program printed, for a message about its failure. @param {CommandResult} result */
export function outputTail(result, linesMax = 30) {
  const lines = `${result.stdout}\n${result.stderr}`.split('\n').filter((line) => line.trim() !== '');
  return lines.slice(-linesMax).join('\n');
}

/** Whether a program of this name is on the path. @param {string} program */
export function onPath(program) {
  return (process.env['PATH'] ?? '').split(delimiter).some((folder) => {
    try {
      accessSync(join(folder, program), constants.X_OK);
      return folder !== '';
    } catch {
      return false;
    }
  });
}
