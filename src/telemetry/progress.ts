import type { Progress } from './progress-line.js';
import { PlainProgress } from './progress-plain.js';
import { TtyProgress } from './progress-tty.js';

export type { Progress, StepProgress } from './progress-line.js';

/** Below this a block that updates in place would only be noise; a terminal of unknown width says 0. */
const TTY_COLUMNS_MIN = 40;

/** A block that updates in place on a terminal, plain lines anywhere else. Results go to stdout: give it stderr. */
export function createProgress(stream: NodeJS.WriteStream): Progress {
  const block = stream.isTTY && stream.columns >= TTY_COLUMNS_MIN;
  return block ? new TtyProgress(stream) : new PlainProgress(stream);
}
