import type { LatencyHistogram } from './latency.js';
import type { SimSequence } from './sequence.js';

/** The step that some sequences take. */
export interface TimedStep {
  /** Sequences that decode. */
  readonly rows: number;
  /** On average, waits included, and alone on the lane. */
  readonly ms: number;
  readonly aloneMs: number;
  /** How long its slices wait for others' whenever they do. */
  readonly waitMs: number;
}

/** Times between tokens as whoever waits for them sees them, in histograms. */
export class TokenTimes {
  #pausedMs = 0;

  constructor(private readonly histograms: readonly LatencyHistogram[]) {}

  /** Everything stood still for so long: one step of each sequence takes so much longer. */
  pause(ms: number): void {
    this.#pausedMs += ms;
  }

  /**
   * So many steps passed. The step that a pause fell into took so much longer. What a step waits for others comes in
   * pieces: where it is less than one on average, some steps wait for a whole one and the others not at all.
   */
  pass(steps: number, { rows, ms, aloneMs, waitMs }: TimedStep): void {
    if (rows === 0) return;
    const late = this.#pausedMs > 0 ? Math.min(1, steps) : 0;
    const lateMs = ms + this.#pausedMs;
    const onTime = steps - late;
    const waiting = waitMs > 0 ? Math.min(1, Math.max(0, ms - aloneMs) / waitMs) : 1;
    for (const histogram of this.histograms) {
      if (late > 0) histogram.add(lateMs, rows * late);
      if (onTime <= 0) continue;
      if (waiting === 1) histogram.add(ms, rows * onTime);
      else {
        if (waiting > 0) histogram.add(aloneMs + waitMs, rows * onTime * waiting);
        histogram.add(aloneMs, rows * onTime * (1 - waiting));
      }
    }
    this.#pausedMs = 0;
  }

  /** Without a slot, here or anywhere, its next token is late by that long. */
  gap(sequence: SimSequence, nowMs: number): void {
    if (sequence.stoppedMs === null) return;
    const ms = nowMs - sequence.stoppedMs;
    sequence.stoppedMs = null;
    if (ms <= 0) return;
    for (const histogram of this.histograms) histogram.add(ms, 1);
  }
}
