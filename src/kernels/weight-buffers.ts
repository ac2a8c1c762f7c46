import type { Gpu } from '../gpu/device.js';
import type { BufferSlice, CopyOp, WriteOp } from '../gpu/ops.js';
import { assert, at } from '../lib/assert.js';
import { findTensor, layoutBytes, type Buckets, type ParamLayout } from '../model/layout.js';
import { copyChunks, writeChunks } from './transfers.js';

/** One float32 value for every parameter, on the device: weights, gradients or an optimizer moment. */
export class WeightBuffers {
  readonly buckets: readonly GPUBuffer[];

  constructor(
    private readonly gpu: Gpu,
    readonly layout: ParamLayout,
    label: string,
  ) {
    this.buckets = layout.bucketElements.map((elements, i) =>
      gpu.createStorage(`${label} ${i}`, elements * 4),
    );
  }

  /** The tensor's part of its bucket, ready to bind. */
  slice(name: string): BufferSlice {
    const tensor = findTensor(this.layout, name);
    const buffer = at(this.buckets, tensor.bucket);
    return { buffer, offset: tensor.offset * 4, bytes: tensor.rows * tensor.columns * 4 };
  }

  get bytes(): number {
    return layoutBytes(this.layout);
  }

  /** Host to device. The data is read when the op is submitted: keep it unchanged until then. */
  *upload(data: Buckets): Generator<WriteOp, void, void> {
    assert(data.length === this.buckets.length, `${data.length} buckets for ${this.buckets.length}`);
    for (const [i, bucket] of data.entries()) {
      yield* writeChunks(at(this.buckets, i), bucket);
    }
  }

  /** Device to device: everything in `source` to here. */
  *copyFrom(source: WeightBuffers): Generator<CopyOp, void, void> {
    for (const [i, target] of this.buckets.entries()) {
      yield* copyChunks(at(source.buckets, i), target, target.size);
    }
  }

  destroy(): void {
    for (const bucket of this.buckets) this.gpu.destroyBuffer(bucket);
  }
}
