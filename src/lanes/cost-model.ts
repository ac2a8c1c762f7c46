import type { DispatchOp, Op } from '../gpu/ops.js';
import type { Splitter } from '../kernels/launch.js';

/** Before a kernel was ever timed: a fixed part in µs, and work per µs. Slow guesses only cost smaller slices. */
const UNSEEN_FIXED_US = 20;
const UNSEEN_WORK_PER_US = 2_000;
const COPY_BYTES_PER_US = 2_000;
/** Weight of a new measurement in the running mean. */
const BLEND = 0.2;
const SLICE_SCALE_MIN = 0.25;
const SLICE_SCALE_MAX = 8;

interface Timing {
  work: number;
  us: number;
  count: number;
}

/**
 * What a dispatch will cost, learnt from its kernel's past: a running mean for each kernel and power of two of
 * work, taken from timestamps. A size not seen yet is scaled from the nearest one seen. On top of that one running
 * ratio of real to predicted slice time follows what single dispatches do not show: submit cost, other load on
 * the machine, clocks that drift.
 */
export class CostModel implements Splitter {
  readonly #timings = new Map<string, Map<number, Timing>>();
  #sliceScale = 1;
  #largestUs = 0;

  constructor(private readonly sliceBudgetUs: number) {}

  /** Predicted device time of one op in µs, the machine's present speed included. */
  predictUs(op: Op): number {
    switch (op.kind) {
      case 'dispatch':
        return this.#kernelUs(op.kernel, op.work) * this.#sliceScale;
      case 'copy':
      case 'clear':
        return UNSEEN_FIXED_US + op.bytes / COPY_BYTES_PER_US;
      case 'write':
        return op.data.byteLength / COPY_BYTES_PER_US;
      case 'submitted':
        return 0;
      default:
        return op satisfies never;
    }
  }

  /** Cuts so that each piece is predicted to take at most half a slice. */
  pieces(kernel: string, work: number): number {
    return Math.ceil((this.#kernelUs(kernel, work) * this.#sliceScale) / (this.sliceBudgetUs / 2));
  }

  /** True while nothing is known of the kernel at about this size, so that timing it is worth a pass of its own. */
  isNew(op: DispatchOp): boolean {
    return this.#timings.get(op.kernel)?.get(sizeClass(op.work)) === undefined;
  }

  observe(op: DispatchOp, us: number): void {
    const classes = this.#timings.get(op.kernel) ?? new Map<number, Timing>();
    this.#timings.set(op.kernel, classes);
    const known = classes.get(sizeClass(op.work));
    if (known === undefined) {
      classes.set(sizeClass(op.work), { work: op.work, us, count: 1 });
      return;
    }
    known.count++;
    known.us += BLEND * (us - known.us);
    known.work += BLEND * (op.work - known.work);
    // The first timing of a kernel includes its compilation in some drivers: it is not a dispatch's cost.
    if (known.count > 1) this.#largestUs = Math.max(this.#largestUs, us);
  }

  /** A finished slice: what it was predicted to take and what it took. */
  observeSlice(predictedUs: number, realUs: number): void {
    if (predictedUs <= 0) return;
    const ratio = (this.#sliceScale * realUs) / predictedUs;
    const blended = this.#sliceScale + (BLEND / 2) * (Math.min(ratio, SLICE_SCALE_MAX) - this.#sliceScale);
    this.#sliceScale = Math.min(SLICE_SCALE_MAX, Math.max(SLICE_SCALE_MIN, blended));
  }

  /** Longest single dispatch seen by timestamps, in µs. */
  get largestDispatchUs(): number {
    return this.#largestUs;
  }

  #kernelUs(kernel: string, work: number): number {
    const classes = this.#timings.get(kernel);
    if (classes === undefined) return UNSEEN_FIXED_US + work / UNSEEN_WORK_PER_US;
    const wanted = sizeClass(work);
    let nearest: Timing | null = null;
    let distance = Infinity;
    for (const [size, timing] of classes) {
      if (Math.abs(size - wanted) >= distance) continue;
      distance = Math.abs(size - wanted);
      nearest = timing;
    }
    if (nearest === null) return UNSEEN_FIXED_US + work / UNSEEN_WORK_PER_US;
    // Larger than what was seen: in proportion. Smaller: not below the fixed part a dispatch always costs.
    const scaled = (nearest.us * work) / nearest.work;
    return work >= nearest.work ? scaled : Math.max(scaled, Math.min(nearest.us, UNSEEN_FIXED_US));
  }
}

function sizeClass(work: number): number {
  return Math.floor(Math.log2(Math.max(1, work)));
}
