/** Latest observations looked at: short enough that two clocks do not drift apart meanwhile. */
const WINDOW = 64;

/**
 * Puts the device's timestamps on the host's clock. The host learns of a slice some time after the device is done
 * with it, never before; so the smallest difference lately seen between the two clocks is the offset, give or take
 * the shortest such delay.
 */
export class DeviceClock {
  readonly #offsetsMs: number[] = [];

  /** The device was done at `deviceNs`; the host heard of it at `heardMs`. */
  observe(deviceNs: bigint, heardMs: number): void {
    this.#offsetsMs.push(heardMs - Number(deviceNs) / 1e6);
    if (this.#offsetsMs.length > WINDOW) this.#offsetsMs.shift();
  }

  /** The host's time of a timestamp; null before anything was observed. */
  hostMs(deviceNs: bigint): number | null {
    if (this.#offsetsMs.length === 0) return null;
    return Math.min(...this.#offsetsMs) + Number(deviceNs) / 1e6;
  }
}
