import { setTimeout as sleep } from 'node:timers/promises';
import { nowMs } from '../../lib/clock.js';

/** Timers of the event loop come late by about so much; the rest is slept to the microsecond. */
const TIMER_SLACK_MS = 1.2;
const never = new Int32Array(new SharedArrayBuffer(4));

/**
 * Waits until a moment of `nowMs`, without keeping a core busy: a timer for most of it, then a blocking wait of about
 * a millisecond, because a request that could only come at the ticks of a timer would not come at random phases.
 */
export async function pauseUntil(atMs: number): Promise<void> {
  const timerMs = Math.floor(atMs - nowMs() - TIMER_SLACK_MS);
  if (timerMs >= 1) await sleep(timerMs);
  const restMs = atMs - nowMs();
  if (restMs > 0) Atomics.wait(never, 0, 0, restMs);
}
