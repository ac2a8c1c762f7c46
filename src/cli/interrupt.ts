import { UserError } from '../lib/errors.js';
import { EXIT_INTERRUPTED } from './exit-codes.js';
import { complain } from './output.js';

const SIGNALS = ['SIGINT', 'SIGTERM'] as const;

/**
 * Does work that can be interrupted: the first Ctrl-C (or SIGTERM) aborts `interrupted` and the work ends as it
 * sees fit, the second ends the process at once.
 *
 * @returns the exit code: the work's own, or 130 when it was interrupted.
 */
export async function interruptible(work: (interrupted: AbortSignal) => Promise<number>): Promise<number> {
  const controller = new AbortController();
  const { signal } = controller;
  const onSignal = (): void => {
    if (signal.aborted) process.exit(EXIT_INTERRUPTED);
    controller.abort();
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
