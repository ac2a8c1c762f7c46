import { at } from '../lib/assert.js';

/** Bins a decade; a quantile is the upper edge of its bin, so it is at most 4.8 % too large. */
const BINS_PER_DECADE = 49;
const MS_MIN = 1e-3;
const DECADES = 12;

/** Times between two tokens, counted in bins of equal ratio: bounded, however many there are. */
export class LatencyHistogram {
  readonly #counts = new Float64Array(BINS_PER_DECADE * DECADES);
  #total = 0;
  /** The last time that was counted, and its bin: it is often the same again. */
  #lastMs = NaN;
  #lastIndex = 0;

  /** @param tokens how many times it took so long; a fraction where only part of a step has passed. */
  add(ms: number, tokens: number): void {
    if (ms !== this.#lastMs) {
      const bin = Math.ceil(Math.log10(Math.max(ms, MS_MIN) / MS_MIN) * BINS_PER_DECADE - 1e-9);
      this.#lastIndex = Math.min(bin, this.#counts.length - 1);
      this.#lastMs = ms;
    }
    this.#counts[this.#lastIndex] = at(this.#counts, this.#lastIndex) + tokens;
    this.#total += tokens;
  }

  /** By nearest rank, in ms; null when there is nothing. */
  quantile(q: number): number | null {
    if (this.#total < 1) return null;
    let seen = 0;
    for (let bin = 0; bin < this.#counts.length; bin++) {
      seen += at(this.#counts, bin);
      if (seen >= q * this.#total - 1e-9) return MS_MIN * 10 ** (bin / BINS_PER_DECADE);
    }
    return MS_MIN * 10 ** DECADES;
  }

  clear(): void {
    this.#counts.fill(0);
    this.#total = 0;
  }
}
