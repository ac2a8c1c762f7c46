import type { Gpu } from '../gpu/device.js';
import type { Op } from '../gpu/ops.js';
import type { WeightBuffers } from '../kernels/weight-buffers.js';
import { assert, at } from '../lib/assert.js';
import { zeroBuckets, type Buckets } from '../model/layout.js';
import { readStaging } from './staging.js';

/** Bytes read back at once: small enough that other work fits in between. */
const CHUNK_BYTES = 4 * 2 ** 20;

/**
 * Weights and moments from the device to the host, a chunk at a time through staging buffers that are used again as
 * soon as the host has read them. How many there come to be depends on how far the host lags behind the device: never
 * more than what is exported at once has chunks.
 */
export class WeightsExport {
  readonly #free: GPUBuffer[] = [];
  #staged = 0;
  #reads: Promise<void>[] = [];
  #targets: Buckets[] = [];

  constructor(private readonly gpu: Gpu) {}

  get bytes(): number {
    return this.#staged * CHUNK_BYTES;
  }

  /** Copies everything in `sources` out; `collect` then waits for it. */
  *ops(sources: readonly WeightBuffers[]): Generator<Op, void, void> {
    const reads: Promise<void>[] = [];
    const targets = sources.map(({ layout }) => zeroBuckets(layout));
    this.#targets = targets;
    this.#reads = reads;
    for (const [i, { buckets }] of sources.entries()) {
      for (const [j, source] of buckets.entries()) yield* this.#bucket(source, at(at(targets, i), j), reads);
    }
  }

  /** What was copied out, in the order of the sources, once every chunk is here. */
  async collect(): Promise<Buckets[]> {
    const targets = this.#targets;
    this.#targets = [];
    await Promise.all(this.#reads);
    return targets;
  }

  destroy(): void {
    assert(this.#free.length === this.#staged, 'destroyed while chunks are being read');
    for (const staging of this.#free) this.gpu.destroyBuffer(staging);
  }

  *#bucket(
    source: GPUBuffer,
    target: Float32Array<ArrayBuffer>,
    reads: Promise<void>[],
  ): Generator<Op, void, void> {
    for (let offset = 0; offset < target.byteLength; offset += CHUNK_BYTES) {
      const bytes = Math.min(CHUNK_BYTES, target.byteLength - offset);
      const chunk = target.subarray(offset / 4, (offset + bytes) / 4);
      yield* this.#chunk({ source, offset, bytes, chunk, reads });
    }
  }

  *#chunk(piece: {
    source: GPUBuffer;
    offset: number;
    bytes: number;
    chunk: Float32Array<ArrayBuffer>;
    reads: Promise<void>[];
  }): Generator<Op, void, void> {
    const { source, offset, bytes, chunk, reads } = piece;
    const staging = this.#take();
    let handedOver = false;
    try {
      yield { kind: 'copy', source, sourceOffset: offset, target: staging, targetOffset: 0, bytes };
      const call = (): void => {
        const read = readStaging(staging, bytes)
          .then((copy) => chunk.set(new Float32Array(copy)))
          .finally(() => this.#free.push(staging));
        // An export given up half-way has nobody who waits for its chunks.
        read.catch(() => undefined);
        reads.push(read);
      };
      handedOver = true;
      yield { kind: 'submitted', call };
    } finally {
      if (!handedOver) this.#free.push(staging);
    }
  }

  #take(): GPUBuffer {
    const free = this.#free.pop();
    if (free !== undefined) return free;
    this.#staged++;
    return this.gpu.createReadback('weights export', CHUNK_BYTES);
  }
}
