import type { SliceRecord } from '../telemetry/records.js';

const SLICES_KEPT_MAX = 20_000;

/** Records of finished slices, kept until somebody takes them; those beyond the limit are only counted. */
export class SliceLog {
  #slices: SliceRecord[] = [];
  #dropped = 0;

  add(slice: SliceRecord): void {
    if (this.#slices.length < SLICES_KEPT_MAX) this.#slices.push(slice);
    else this.#dropped++;
  }

  /** Everything since the last call. */
  take(): { slices: SliceRecord[]; dropped: number } {
    const taken = { slices: this.#slices, dropped: this.#dropped };
    this.#slices = [];
    this.#dropped = 0;
    return taken;
  }
}
