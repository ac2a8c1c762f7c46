export const NAP_MS_MIN = 0.08;
const NAP_MS_MAX = 50;
/** Late slices are looked for at least this often. */
const LATE_NAP_MS_MAX = 4;
/** A late slice is found at most so much later, as a share of how late it is already. */
const LATE_SHARE = 0.25;
/** Of the time predicted to be left, at most and at least so much is slept through in one go. */
const SHARE_MAX = 0.85;
const SHARE_MIN = 0.3;
/** How the share gives way when a slice is over before the first look, and comes back when it is not. */
const OVERSLEPT = 0.93;
const RECOVERY = 1.02;

/**
 * How long a lane's thread sleeps before it looks whether the device is done: most of what is predicted to be left;
 * once that is over, longer and longer, so that looking costs little however late the device is.
 *
 * A slice that ends during a nap is only seen at the nap's end, and a prediction that is too long would confirm itself.
 * So naps shorten as soon as slices are found done at the first look.
 */
export class Naps {
  #share = SHARE_MAX;

  /**
   * @param leftMs predicted time to the end of the oldest slice; below 0 when it is late
   * @param spareMs how much later than that it is early enough to look
   */
  nextMs(leftMs: number, spareMs = 0): number {
    const untilMs = leftMs + spareMs;
    if (untilMs <= 0) return clamped(Math.min(LATE_NAP_MS_MAX, -untilMs * LATE_SHARE));
    return clamped(spareMs > 0 ? untilMs : leftMs * this.#share);
  }

  /** After a nap within the predicted time: was the slice over already? */
  looked(wasOver: boolean): void {
    const share = this.#share * (wasOver ? OVERSLEPT : RECOVERY);
    this.#share = Math.min(SHARE_MAX, Math.max(SHARE_MIN, share));
  }
}

function clamped(wantedMs: number): number {
  return Math.min(NAP_MS_MAX, Math.max(NAP_MS_MIN, wantedMs));
}
