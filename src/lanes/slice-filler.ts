import type { Gpu } from '../gpu/device.js';
import type { DispatchOp, Op } from '../gpu/ops.js';
import { nowMs } from '../lib/clock.js';
import type { CostModel } from './cost-model.js';
import type { Entry } from './entry.js';
import type { Longest, Slice } from './in-flight.js';
import type { OnBegun, SliceTimer } from './slice-timer.js';

/** Makes slices out of what residents have to do, and hands them to the device. */
export class SliceFiller {
  constructor(
    private readonly gpu: Gpu,
    private readonly cost: CostModel,
    private readonly timer: SliceTimer,
  ) {}

  /** Submits the entry's ops, from `first` on, for as long as they are predicted to fit; the first one always goes. */
  submit(entry: Entry, first: Op, roomUs: number, onBegun: OnBegun | null): Slice {
    const { who } = entry;
    const { encoder, timed, submit } = this.timer.begin({ who, isNew: this.#isNew(first), onBegun });
    const dispatches: DispatchOp[] = [];
    let longest: Longest | null = null;
    let predictedUs = 0;
    let dispatchesUs = 0;
    for (let op: Op | null = first; op !== null; op = entry.peek()) {
      const us = this.cost.predictUs(op, who);
      const fits = op === first || us === 0 || predictedUs + us <= roomUs;
      if (!fits || !encoder.accepts(op)) break;
      if (dispatches.length > 0 && !timed && this.#wantsOwnSlice(op, dispatches)) break;
      encoder.add(op);
      if (op.kind === 'dispatch') {
        dispatches.push(op);
        dispatchesUs += us;
        if (longest === null || us > longest.us) longest = { kernel: op.kernel, us };
      }
      predictedUs += us;
      entry.take(us);
    }
    const slice: Slice = {
      resident: entry.resident,
      predictedUs,
      submittedMs: nowMs(),
      dispatches,
      timed,
      longest,
    };
    submit({ dispatches, dispatchesUs }, (real) => {
      slice.longest = real;
    });
    return slice;
  }

  #isNew(op: Op): boolean {
    return op.kind === 'dispatch' && this.cost.isNew(op);
  }

  /** A new kernel begins a slice, so that it is timed soon; without timestamps that slice holds nothing else. */
  #wantsOwnSlice(op: Op, before: readonly DispatchOp[]): boolean {
    if (op.kind === 'submitted') return false;
    if (this.gpu.hasTimestamps) return this.timer.ready && this.#isNew(op);
    return this.#isNew(op) || before.some((earlier) => this.cost.isNew(earlier));
  }
}
