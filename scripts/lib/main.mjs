// How every set-up script ends: its error as one line, and the exit code that goes with it.
import { SetupError } from './command.mjs';

/** @param {() => Promise<void>} action */
export async function runScript(action) {
  try {
    await action();
  } catch (error) {
    const known = error instanceof SetupError;
    process.stderr.write(`setup: ${known ? error.message : error.stack}\n`);
    process.exitCode = known ? error.exitCode : 1;
  }
}
