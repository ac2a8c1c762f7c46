import { LaneLost } from '../lanes/remote-lane.js';
import { toError } from '../lib/errors.js';

/** Waits for no answer: what is sent to a lane that is lost goes on elsewhere, with the rest of what the lane had. */
export function sent(work: Promise<unknown>, onFailed: (error: Error) => void): void {
  work.catch((error: unknown) => {
    if (!(error instanceof LaneLost)) onFailed(toError(error));
  });
}
