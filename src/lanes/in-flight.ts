import type { DispatchOp } from '../gpu/ops.js';
import { assert } from '../lib/assert.js';
import type { SliceRecord } from '../telemetry/records.js';
import type { CostModel } from './cost-model.js';
import { type Resident, whoOf } from './resident.js';

/** The host sees the end of a slice up to about so much later. */
const SEEN_LATE_US = 300;

/** The longest dispatch of a slice: by prediction, or by the device's clock once that is known. */
export interface Longest {
  readonly kernel: string;
  readonly us: number;
}

/** A slice that the device has and has not told to be done. */
export interface Slice {
  readonly resident: Resident;
  readonly predictedUs: number;
  readonly submittedMs: number;
  readonly dispatches: readonly DispatchOp[];
  /** Each of its dispatches is timed by the device, which slows it down. */
  readonly timed: boolean;
  /** Null when it has no dispatch. */
  longest: Longest | null;
}

/** A slice that is done, and when the device could begin it by the host's clock. */
export interface DoneSlice {
  readonly slice: Slice;
  readonly startedMs: number;
}

/** The slices submitted and unfinished, in the order in which the device runs them. */
export class InFlight {
  readonly #slices: Slice[] = [];
  #lastFinishedMs = 0;

  get count(): number {
    return this.#slices.length;
  }

  /** In the order of the device. */
  get slices(): readonly Slice[] {
    return this.#slices;
  }

  /** When the last one that is done was found to be. */
  get lastFinishedMs(): number {
    return this.#lastFinishedMs;
  }

  /** Predicted time of all of them. */
  get predictedUs(): number {
    return this.#slices.reduce((sum, slice) => sum + slice.predictedUs, 0);
  }

  /**
   * How long the device is predicted to need for all of them from now on. One that is late is taken to need as long
   * again as it is late: when the device falls behind what was predicted, less and less is put on top.
   */
  remainingUs(nowMs: number): number {
    const [oldest] = this.#slices;
    if (oldest === undefined) return 0;
    const elapsedUs = Math.max(0, nowMs - this.#startMs(oldest)) * 1000;
    return this.predictedUs - oldest.predictedUs + Math.abs(oldest.predictedUs - elapsedUs);
  }

  add(slice: Slice): void {
    this.#slices.push(slice);
  }

  lastOf(resident: Resident): Slice | null {
    return this.#slices.findLast((slice) => slice.resident === resident) ?? null;
  }

  /** How long the device is predicted to need until it is done with the oldest; 0 when there is none. */
  nextDoneMs(nowMs: number): number {
    const [oldest] = this.#slices;
    return oldest === undefined ? 0 : this.endMs(oldest) - nowMs;
  }

  /** How long it is predicted to need for all behind the oldest: so long it does not stand still when that is done. */
  get behindMs(): number {
    return this.#slices.slice(1).reduce((sum, { predictedUs }) => sum + predictedUs, 0) / 1000;
  }

  /** When the device is predicted to be done with the slice. */
  endMs(slice: Slice): number {
    const [oldest] = this.#slices;
    assert(oldest !== undefined, 'a slice that is not in flight');
    const upTo = this.#slices.slice(0, this.#slices.indexOf(slice) + 1);
    return this.#startMs(oldest) + upTo.reduce((sum, { predictedUs }) => sum + predictedUs, 0) / 1000;
  }

  /**
   * Takes a slice out that is done, with all before it: they finish in the order they were submitted, but the
   * device may tell of a later one first. None when it was taken out that way already.
   */
  finish(slice: Slice, finishedMs: number): DoneSlice[] {
    const done = this.#slices.splice(0, this.#slices.indexOf(slice) + 1);
    return done.map((each) => {
      const startedMs = this.#startMs(each);
      this.#lastFinishedMs = finishedMs;
      return { slice: each, startedMs };
    });
  }

  /** When the device could begin it: its submission, or the end of the slice before it, whichever came later. */
  #startMs(slice: Slice): number {
    return Math.max(slice.submittedMs, this.#lastFinishedMs);
  }
}

/** What the cost model learns from slices the host found done at once, by the host's clock. */
export function learnFrom(
  done: readonly DoneSlice[],
  finishedMs: number,
  cost: CostModel,
  hasTimestamps: boolean,
): void {
  const [first, second] = done;
  // Dispatches timed one by one run slower than they would: they say nothing about the others.
  if (first === undefined || done.some(({ slice }) => slice.timed)) return;
  const realUs = (finishedMs - first.startedMs) * 1000;
  const predictedUs = done.reduce((sum, { slice }) => sum + slice.predictedUs, 0);
  const copies = done.filter(({ slice }) => slice.dispatches.length === 0);
  if (copies.length > 0) {
    // Seen a little late and really a little longer look the same: believing the first would make it the second.
    const surelyUs = realUs < predictedUs ? realUs : Math.max(predictedUs, realUs - SEEN_LATE_US);
    if (copies.length === done.length) cost.observeCopies(predictedUs, surelyUs);
    return;
  }
  const [only, another] = first.slice.dispatches;
  const alone = second === undefined && another === undefined;
  if (alone && only !== undefined && !hasTimestamps && cost.isNew(only)) cost.observe(only, realUs);
  else if (!hasTimestamps) cost.observeSlice(predictedUs, realUs, whoOf(first.slice.resident));
}

export function sliceRecord(lane: number, { slice, startedMs }: DoneSlice, finishedMs: number): SliceRecord {
  const { resident, submittedMs, predictedUs, dispatches } = slice;
  const { job, kind } = resident;
  return {
    lane,
    job,
    resident: kind,
    submittedMs,
    startedMs,
    finishedMs,
    predictedUs,
    dispatches: dispatches.length,
  };
}
