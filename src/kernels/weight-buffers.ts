import type { Gpu } from '../gpu/device.js';
import type { BufferSlice, CopyOp, WriteOp } from '../gpu/ops.js';
import { assert, at } from '../lib/assert.js';
import { findTensor, type Buckets, type ParamLayout } from '../model/layout.js';

/** Bytes one copy or upload op moves at most, so that a publish is cut into slices like any other work. */
const CHUNK_BYTES = 4 * 2 ** 20;

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
    return this.layout.bucketElements.reduce((sum, elements) => sum + elements * 4, 0);
  }

  /** Host to device. The data is read when the op is submitted: keep it unchanged until then. */
  *upload(data: Buckets): Generator<WriteOp, void, void> {
    assert(data.length === this.buckets.length, `${data.length} buckets for ${this.buckets.length}`);
    for (const [i, bucket] of data.entries()) {
      const target = at(this.buckets, i);
      for (let start = 0; start < bucket.length; start += CHUNK_BYTES / 4) {
        yield {
          kind: 'write',
          target,
          offset: start * 4,
          data: bucket.subarray(start, start + CHUNK_BYTES / 4),
        };
      }
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

/** Copies `bytes` from the start of one buffer to the start of another, a chunk an op. */
export function* copyChunks(
  source: GPUBuffer,
  target: GPUBuffer,
  bytes: number,
): Generator<CopyOp, void, void> {
  for (let offset = 0; offset < bytes; offset += CHUNK_BYTES) {
    const size = Math.min(CHUNK_BYTES, bytes - offset);
    yield { kind: 'copy', source, sourceOffset: offset, target, targetOffset: offset, bytes: size };
  }
}
