/** Before anything was measured: weights' bytes a prefill row goes through in a millisecond. */
const GUESS_PREFILL_BYTES_PER_MS = 1e9;
/** Before anything was measured: bytes a millisecond from device to host, and from host to device. */
const GUESS_OUT_BYTES_PER_MS = 3e6;
const GUESS_BACK_BYTES_PER_MS = 10e6;
/** So much of what was known fades with each new measurement. */
const FADE = 0.2;
/** A measurement counts as at most so many times what is known: a stage that took the device meanwhile is no slow copy. */
const SURPRISE_MAX = 4;
/** Of a step's rows at least this share must be prefill for its time to tell what recomputing costs. */
const PREFILL_SHARE_MIN = 0.5;

/** What the choice between moving and recomputing a cache rests on. */
export interface KvCostSnapshot {
  readonly prefillMsPerRow: number;
  readonly spillMsPerByte: number;
  readonly restoreMsPerByte: number;
  /** Real submissions behind each number; 0 where it is still a guess. */
  readonly measured: { readonly prefill: number; readonly spill: number; readonly restore: number };
}

/** A step's rows, and when its first op was taken up. */
export interface StepWork {
  readonly rows: number;
  /** Those of its rows that came in stretches: prompts, and caches computed again. */
  readonly prefillRows: number;
  readonly beganMs: number;
}

/** Rows and bytes in device milliseconds: what each way of emptying a cache would take, there and back. */
export interface Prices {
  moveMs(bytes: number): number;
  recomputeMs(rows: number): number;
}

/**
 * What it costs to prefill a row and to move a byte of cache, out and back, each from times the host observed of real
 * submissions. The device works in order, so something took from its begin, or from the end of what came before it if
 * that was later, to its own end.
 */
export class KvCosts implements Prices {
  readonly #prefill: Rate;
  readonly #out = new Rate(1 / GUESS_OUT_BYTES_PER_MS);
  readonly #back = new Rate(1 / GUESS_BACK_BYTES_PER_MS);
  #lastDoneMs = -Infinity;

  constructor(weightBytes: number) {
    this.#prefill = new Rate(weightBytes / GUESS_PREFILL_BYTES_PER_MS);
  }

  get snapshot(): KvCostSnapshot {
    return {
      prefillMsPerRow: this.#prefill.msEach,
      spillMsPerByte: this.#out.msEach,
      restoreMsPerByte: this.#back.msEach,
      measured: { prefill: this.#prefill.count, spill: this.#out.count, restore: this.#back.count },
    };
  }

  /** Out now and back later. */
  moveMs(bytes: number): number {
    return bytes * (this.#out.msEach + this.#back.msEach);
  }

  recomputeMs(rows: number): number {
    return rows * this.#prefill.msEach;
  }

  /** A step has ended; those that are mostly decode rows say nothing of prefill. */
  observeStep({ rows, prefillRows, beganMs }: StepWork, doneMs: number): void {
    const tookMs = this.#tookMs(beganMs, doneMs);
    if (prefillRows > 0 && prefillRows >= rows * PREFILL_SHARE_MIN) this.#prefill.observe(rows, tookMs);
  }

  /** Bytes of cache have come to the host. */
  observeSpill(bytes: number, beganMs: number, doneMs: number): void {
    this.#out.observe(bytes, this.#tookMs(beganMs, doneMs));
  }

  /**
   * The host has handed bytes of cache to the device. What the device still does with them is the begin of a step and
   * cannot be told from it; with much to restore the host waits for it from slice to slice, and sees most of it.
   */
  observeRestore(bytes: number, tookMs: number): void {
    this.#back.observe(bytes, tookMs);
  }

  #tookMs(beganMs: number, doneMs: number): number {
    const tookMs = doneMs - Math.max(beganMs, this.#lastDoneMs);
    this.#lastDoneMs = Math.max(this.#lastDoneMs, doneMs);
    return tookMs;
  }
}

/**
 * Milliseconds for one of many, as the ratio of two fading sums: what moved much counts for more than what moved little
 * and mostly waited. A guess begins; the first measurement replaces it.
 */
class Rate {
  count = 0;
  #many = 0;
  #ms = 0;

  constructor(private readonly guessMs: number) {}

  get msEach(): number {
    return this.count === 0 ? this.guessMs : this.#ms / this.#many;
  }

  observe(many: number, ms: number): void {
    // Seen in the same moment as what came before it: the clock says nothing of it.
    if (ms <= 0) return;
    const believedMs = this.count === 0 ? ms : Math.min(ms, SURPRISE_MAX * this.msEach * many);
    this.#ms = (1 - FADE) * this.#ms + believedMs;
    this.#many = (1 - FADE) * this.#many + many;
    this.count++;
  }
}
