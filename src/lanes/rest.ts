import { nowMs } from '../lib/clock.js';
import type { Doorbell } from './doorbell.js';
import type { InFlight, Slice } from './in-flight.js';
import { NAP_MS_MIN, Naps } from './naps.js';

/** What a nap must not last beyond. */
export interface NapLimits {
  /** How much later than the oldest slice's end is early enough to look. */
  readonly spareMs: number;
  /** So long until there is room for the next slice. */
  readonly roomInMs: number;
}

/**
 * The thread's sleep while slices are in flight. Their ends are told by the event loop; but while a promise of the
 * device is pending, Dawn spins this thread to poll it, and on a software adapter that takes a core from the device
 * itself. So each turn of the loop is preceded by a nap, which a message ends.
 */
export class Rest {
  readonly #naps = new Naps();
  /** When this thread fell asleep, until it has looked at the slices again. */
  #blindSinceMs: number | null = null;

  constructor(private readonly inFlight: InFlight) {}

  async nap(doorbell: Doorbell, { spareMs, roomInMs }: NapLimits): Promise<void> {
    const before = this.inFlight.count;
    const sinceMs = nowMs();
    this.#blindSinceMs = sinceMs;
    const leftMs = this.inFlight.nextDoneMs(sinceMs);
    const napMs = this.#naps.nextMs(leftMs, spareMs);
    // When the device is late, so is the room.
    doorbell.nap(leftMs > 0 ? Math.min(napMs, Math.max(NAP_MS_MIN, roomInMs)) : napMs);
    await new Promise<void>((resolve) => {
      setImmediate(resolve);
    });
    this.#blindSinceMs = null;
    if (leftMs > 0 && spareMs === 0) this.#naps.looked(this.inFlight.count < before);
  }

  /** When a slice just seen to be done was: now, or some time during the nap just over, as predicted if that may be. */
  finishedMs(slice: Slice, seenMs: number): number {
    if (this.#blindSinceMs === null) return seenMs;
    return Math.min(seenMs, Math.max(this.#blindSinceMs, this.inFlight.endMs(slice)));
  }
}
