/** Two clocks of good quality drift apart by less than this: so much of its age a bound is widened by. */
const DRIFT = 2e-5;

/** One timed stretch of the device's work. */
export interface Sighting {
  /** Host: just before it was submitted. */
  readonly submittedMs: number;
  /** Device: its beginning and end. */
  readonly beganNs: bigint;
  readonly endedNs: bigint;
  /** Host: when its end was known. */
  readonly heardMs: number;
}

/**
 * Puts the device's timestamps on the host's clock. Nothing begins before it is submitted, nor is it heard of before it
 * has ended: the first bounds the offset between the two clocks from below, the second from above. The offset is taken
 * to be half-way between the tightest bounds seen, which widen as they age (after Marzullo and Owicki, 1985).
 */
export class DeviceClock {
  #lowerMs = -Infinity;
  #upperMs = Infinity;
  #atMs = 0;

  observe({ submittedMs, beganNs, endedNs, heardMs }: Sighting): void {
    const lowerMs = submittedMs - Number(beganNs) / 1e6;
    const upperMs = heardMs - Number(endedNs) / 1e6;
    const widenedMs = DRIFT * Math.max(0, heardMs - this.#atMs);
    this.#lowerMs = Math.max(lowerMs, this.#lowerMs - widenedMs);
    this.#upperMs = Math.min(upperMs, this.#upperMs + widenedMs);
    this.#atMs = heardMs;
    // One of the clocks was set: what was known of it before is void.
    if (this.#lowerMs > this.#upperMs) [this.#lowerMs, this.#upperMs] = [lowerMs, upperMs];
  }

  /** Half the width of what the offset may be, in ms: a time on the host's clock is at most so wrong. */
  get errorMs(): number {
    return (this.#upperMs - this.#lowerMs) / 2;
  }

  /** The host's time of a timestamp; null before anything was observed. */
  hostMs(deviceNs: bigint): number | null {
    if (this.#upperMs === Infinity) return null;
    return (this.#lowerMs + this.#upperMs) / 2 + Number(deviceNs) / 1e6;
  }
}
