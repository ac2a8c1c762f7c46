import { UserError } from '../lib/errors.js';
import { EXIT_INTERRUPTED } from './exit-codes.js';
import { complain } from './output.js';

const SIGNALS = ['SIGINT', 'SIGTERM'] as const;
const SHOW_CURSOR = '\u001b[?25h';

/**
 * Does work that can be interrupted: the first Ctrl-C (or SIGTERM) aborts `interrupted` and the work ends as it
 * sees fit, the second ends the process at once.
 *
 * @returns the exit code: the work's own, or 130 when it was interrupted.
 */
export async function interruptible(work: (interrupted: AbortSignal) => Promise<number>): Promise<number> {
  const controller = new AbortController();
  const { signal } = controller;
  const onSignal = (name: NodeJS.Signals): void => {
    if (signal.aborted) dieOf(name);
    else controller.abort();
  };
  for (const name of SIGNALS) process.on(name, onSignal);
  try {
    const exitCode = await work(signal);
    return signal.aborted ? EXIT_INTERRUPTED : exitCode;
  } catch (error) {
    if (!signal.aborted || !(error instanceof UserError)) throw error;
    complain(error.message);
    return EXIT_INTERRUPTED;
  } finally {
    for (const name of SIGNALS) process.off(name, onSignal);
  }
}

/**
 * Ends the process as the signal ends any program that does not catch it; a shell reports 130 for Ctrl-C. Leaving
 * through `process.exit` would stop the lanes' threads first, and with work pending on a device that aborts the
 * process with a crash report.
 */
function dieOf(name: NodeJS.Signals): void {
  if (process.stderr.isTTY) process.stderr.write(SHOW_CURSOR);
  process.removeAllListeners(name);
  process.kill(process.pid, name);
}
