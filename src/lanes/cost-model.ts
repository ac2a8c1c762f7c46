import type { DispatchOp, Op } from '../gpu/ops.js';
import type { Splitter } from '../kernels/launch.js';

/** Before a kernel was ever timed: a fixed part in µs, and work per µs. Slow guesses only cost smaller slices. */
const UNSEEN_FIXED_US = 20;
const UNSEEN_WORK_PER_US = 2_000;
const COPY_BYTES_PER_US = 2_000;
/** Weight of a new measurement in the running mean. */
const BLEND = 0.2;
/** A measurement counts as at most so many times what was expected: a thread that had to wait is no slow kernel. */
const SURPRISE_MAX = 2;
/** Weight of a finished slice in the running ratio, and the most it counts as: slices are many and noisy. */
const SLICE_BLEND = 0.15;
const SLICE_SURPRISE_MAX = 5;
const SLICE_SCALE_MIN = 0.25;
const SLICE_SCALE_MAX = 8;
/** Copies are guessed from their bytes alone, on the low side: they may take much longer. */
const COPY_SCALE_MAX = 64;
/** No dispatch counts as shorter than this: what a coarse clock calls nothing still takes some time. */
const DISPATCH_US_MIN = 1;
const PIECES_MAX = 65_536;
/** Shorter pieces would be little but the fixed cost of a dispatch. */
const PIECE_US_MIN = 2 * UNSEEN_FIXED_US;
/** The next number of pieces to try is at least so many times the last. */
const PIECES_GROWTH = 1.25;

interface Timing {
  work: number;
  us: number;
  count: number;
  /** It is to be timed once more. */
  isDoubted: boolean;
  /** Shortest ever, the first left out. */
  fastestUs: number;
}

/**
 * What a dispatch will cost, learnt from its kernel's past: a running mean for each kernel and power of two of
 * work, taken from timestamps. A size not seen yet is scaled from the nearest one seen. On top of that a running ratio
 * of real to predicted slice time, for each resident, follows what single dispatches do not show: submit cost, other load
 * on the machine, clocks that drift, and what timing a dispatch adds to it (to short ones as much as they take).
 */
export class CostModel implements Splitter {
  readonly #timings = new Map<string, Map<number, Timing>>();
  /** By whose slices they are. */
  readonly #sliceScales = new Map<string, number>();
  /** Of those, who is not on the lane now: an engine asleep comes back, and is predicted as before then. */
  readonly #away = new Set<string>();
  #copyScale = 1;

  /** `sliceBudgetUs` may change as budgets do: what is cut from then on is cut for it. */
  constructor(public sliceBudgetUs: number) {}

  /** Resident `who` is on the lane from now on. */
  joined(who: string): void {
    this.#away.delete(who);
  }

  /** Resident `who` is gone: nobody is held up by how slow it was. */
  left(who: string): void {
    this.#away.add(who);
  }

  /** Predicted device time in µs of one op of resident `who`, the machine's present speed included. */
  predictUs(op: Op, who = ''): number {
    switch (op.kind) {
      case 'dispatch':
        return this.#scaleOf(who) * this.#kernelUs(op.kernel, op.work);
      case 'copy':
      case 'clear':
        return this.#copyScale * (UNSEEN_FIXED_US + op.bytes / COPY_BYTES_PER_US);
      case 'write':
        return (this.#copyScale * op.data.byteLength) / COPY_BYTES_PER_US;
      case 'submitted':
        return 0;
      default:
        return op satisfies never;
    }
  }

  /**
   * Enough pieces that each is predicted to take at most half a slice; where the fixed cost of a dispatch alone is
   * more than that, only as many as still make the pieces shorter.
   */
  pieces(kernel: string, work: number): number {
    const wantedUs = Math.max(PIECE_US_MIN, this.sliceBudgetUs / 2);
    const scale = this.#slowestScale();
    let best = 1;
    let bestUs = scale * this.#kernelUs(kernel, work);
    for (let pieces = 1, us = bestUs; us > wantedUs && pieces < PIECES_MAX;) {
      pieces = Math.min(PIECES_MAX, Math.ceil(pieces * Math.max(PIECES_GROWTH, us / wantedUs)));
      us = scale * this.#kernelUs(kernel, work / pieces);
      if (us < bestUs) [best, bestUs] = [pieces, us];
    }
    return best;
  }

  /** True while too little is known of the kernel at about this size: it is worth timing. */
  isNew(op: DispatchOp): boolean {
    const known = this.#timings.get(op.kernel)?.get(sizeClass(op.work));
    return known === undefined || known.count < 2 || known.isDoubted;
  }

  /** The shortest time a dispatch of about this size was ever seen to take, in µs; 0 when none was. */
  fastestUs(op: DispatchOp): number {
    const us = this.#timings.get(op.kernel)?.get(sizeClass(op.work))?.fastestUs ?? Infinity;
    return us === Infinity ? 0 : us;
  }

  /** Counts the kernel as new at about this size: what is known of it holds until it has been timed once more. */
  timeAgain(op: DispatchOp): void {
    const known = this.#timings.get(op.kernel)?.get(sizeClass(op.work));
    if (known !== undefined) known.isDoubted = true;
  }

  /** A dispatch and the device time it took. */
  observe(op: DispatchOp, measuredUs: number): void {
    const us = Math.max(DISPATCH_US_MIN, measuredUs);
    let classes = this.#timings.get(op.kernel);
    if (classes === undefined) this.#timings.set(op.kernel, (classes = new Map<number, Timing>()));
    const known = classes.get(sizeClass(op.work));
    if (known === undefined) {
      classes.set(sizeClass(op.work), { work: op.work, us, count: 1, isDoubted: false, fastestUs: Infinity });
      return;
    }
    known.count++;
    known.isDoubted = false;
    known.fastestUs = Math.min(known.fastestUs, us);
    // In some drivers the first timing includes the kernel's compilation: it only holds the place of the second.
    const isFirst = known.count === 2;
    const blend = isFirst ? 1 : BLEND;
    const believedUs = isFirst ? us : Math.min(us, SURPRISE_MAX * known.us);
    known.us += blend * (believedUs - known.us);
    known.work += blend * (op.work - known.work);
  }

  /**
   * Finished slices of `who`: what they were predicted to take and what they took. The mean is taken of the ratio itself, so
   * that a slice the host saw late and the next one, seen just as much too early, cancel out.
   */
  observeSlice(predictedUs: number, realUs: number, who = ''): void {
    if (predictedUs <= 0) return;
    const blended = blend(this.#scaleOf(who), predictedUs, realUs);
    this.#sliceScales.set(who, Math.min(SLICE_SCALE_MAX, Math.max(SLICE_SCALE_MIN, blended)));
  }

  /** The same for slices that hold nothing but copies, fills and host writes. */
  observeCopies(predictedUs: number, realUs: number): void {
    if (predictedUs <= 0) return;
    this.#copyScale = Math.min(COPY_SCALE_MAX, Math.max(1, blend(this.#copyScale, predictedUs, realUs)));
  }

  /** Of the residents that are there; 1 before any of them has run. */
  #slowestScale(): number {
    let slowest = 0;
    for (const [who, scale] of this.#sliceScales)
      if (!this.#away.has(who)) slowest = Math.max(slowest, scale);
    return slowest === 0 ? 1 : slowest;
  }

  #scaleOf(who: string): number {
    return this.#sliceScales.get(who) ?? 1;
  }

  #kernelUs(kernel: string, work: number): number {
    const classes = this.#timings.get(kernel);
    if (classes === undefined) return UNSEEN_FIXED_US + work / UNSEEN_WORK_PER_US;
    const wanted = sizeClass(work);
    // A first timing may be a compilation's: it counts only where there is nothing else.
    const isKnown = [...classes.values()].some(({ count }) => count > 1);
    let nearest: Timing | null = null;
    let distance = Infinity;
    for (const [size, timing] of classes) {
      if (Math.abs(size - wanted) >= distance || (isKnown && timing.count === 1)) continue;
      distance = Math.abs(size - wanted);
      nearest = timing;
    }
    if (nearest === null) return UNSEEN_FIXED_US + work / UNSEEN_WORK_PER_US;
    // Larger than what was seen: in proportion. Smaller: not below the fixed part a dispatch always costs.
    const scaled = (nearest.us * work) / nearest.work;
    return work >= nearest.work ? scaled : Math.max(scaled, Math.min(nearest.us, UNSEEN_FIXED_US));
  }
}

/** A running ratio of real to predicted time, one slice later. */
function blend(scale: number, predictedUs: number, realUs: number): number {
  const ratio = Math.min(realUs / predictedUs, SLICE_SURPRISE_MAX);
  return scale * (1 + SLICE_BLEND * (ratio - 1));
}

function sizeClass(work: number): number {
  return Math.floor(Math.log2(Math.max(1, work)));
}
