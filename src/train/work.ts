import type { CopyOp, Op, WriteOp } from '../gpu/ops.js';
import type { Splitter } from '../kernels/launch.js';
import type { MicroBatch, WeightedSequence } from './batch.js';

// The seam between the layers and the head that stands on them: `Learner` runs the one, and asks this of the other.

/** What a head does with one micro-batch. */
export interface HeadWork {
  /** Host writes that its dispatches read. */
  readonly writes: Iterable<WriteOp>;
  /** From the residual stream after the last layer; in a step, to that stream's gradient in `scratch.flow`. */
  run(split: Splitter): Generator<Op, void, void>;
  /** Its rows' results to the staging buffer; `firstRow` counts the head rows of the micro-batches before. */
  copyOut(staging: GPUBuffer, firstRow: number): Iterable<CopyOp>;
}

/** A batch with the head that stands on the layers, and how what that leaves in the staging buffer is read. */
export interface Work<S extends WeightedSequence, T> {
  readonly batch: readonly S[];
  /** Of `Learner.pack`. */
  readonly microBatches: readonly MicroBatch[];
  readonly head: (microBatch: MicroBatch) => HeadWork;
  /** Of all results; those of a step end with the clip result. */
  readonly bytes: number;
  readonly read: (bytes: ArrayBuffer) => T;
}
