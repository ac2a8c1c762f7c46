import type { Gpu } from '../gpu/device.js';
import type { CopyOp, WriteOp } from '../gpu/ops.js';
import { blocksFor, type KvCache } from '../kernels/kv-cache.js';
import { assert, at } from '../lib/assert.js';

/** Bytes one op moves at most: a stage that comes meanwhile waits for no longer one. */
const OP_BYTES_MAX = 2 ** 19;
/** Bytes of one buffer on the host's side, a multiple of 4. */
const BUFFER_BYTES_MAX = 2 ** 24;

/** A stretch of one sequence's cache: where it lies on the device, and where in the spill. */
interface Stretch {
  readonly cache: GPUBuffer;
  readonly cacheOffset: number;
  readonly buffer: number;
  readonly offset: number;
  readonly bytes: number;
}

/**
 * One sequence's cache on the host: the keys and values of its first `rows` positions, in buffers the host can map,
 * which stay mapped until the data goes back. The keys of all layers come first, then the values, blocks in the order
 * of the tokens, so that it does not matter which blocks it came from and which it returns to.
 */
export class KvSpill {
  readonly bytes: number;
  readonly #blocks: readonly number[];
  readonly #buffers: GPUBuffer[] = [];
  #state: 'leaving' | 'mapping' | 'here' | 'freed' = 'leaving';
  #wanted = true;

  constructor(
    private readonly gpu: Gpu,
    private readonly kv: KvCache,
    blocks: readonly number[],
    readonly rows: number,
  ) {
    this.#blocks = blocks.slice(0, blocksFor(rows));
    this.bytes = this.#blocks.length * kv.bytesPerBlock;
    for (let start = 0; start < this.bytes; start += BUFFER_BYTES_MAX) {
      const bytes = Math.min(BUFFER_BYTES_MAX, this.bytes - start);
      this.#buffers.push(gpu.createReadback('engine spilled cache', bytes));
    }
  }

  /** True once the data can go back to the device. */
  get isHere(): boolean {
    return this.#state === 'here';
  }

  get isFreed(): boolean {
    return this.#state === 'freed';
  }

  /** Device to host's side. The blocks may be given to others at once: their writes come later in the queue. */
  *copyOut(): Generator<CopyOp, void, void> {
    for (const { cache, cacheOffset, buffer, offset, bytes } of this.#stretches(this.#blocks)) {
      const target = at(this.#buffers, buffer);
      yield { kind: 'copy', source: cache, sourceOffset: cacheOffset, target, targetOffset: offset, bytes };
    }
  }

  /** To be called when all of `copyOut` is submitted; resolves when the data is here, or freed if unwanted by then. */
  async map(): Promise<void> {
    assert(this.#state === 'leaving', `map of a spill that is ${this.#state}`);
    this.#state = 'mapping';
    if (this.#wanted) {
      await Promise.all(this.#buffers.map((buffer) => buffer.mapAsync(GPUMapMode.READ)));
      this.#state = 'here';
    }
    if (!this.#wanted) this.destroy();
  }

  /**
   * Host to `blocks`, in the order of the tokens: to the first of them if there are more than were spilled, and only
   * what comes first if there are fewer. The data is read as the ops are submitted.
   */
  *copyBack(blocks: readonly number[]): Generator<WriteOp, void, void> {
    assert(this.isHere, `copyBack of a spill that is ${this.#state}`);
    const ranges = this.#buffers.map((buffer) => buffer.getMappedRange());
    for (const { cache, cacheOffset, buffer, offset, bytes } of this.#stretches(
      blocks.slice(0, this.#blocks.length),
    )) {
      const data = new Uint32Array(at(ranges, buffer), offset, bytes / 4);
      yield { kind: 'write', target: cache, offset: cacheOffset, data };
    }
  }

  /** The data is not needed any more: frees it as soon as the device has let go of it. */
  release(): void {
    this.#wanted = false;
    if (this.isHere) this.destroy();
  }

  /** Frees the memory now: nothing of this may be on its way to the device or waiting for it. */
  destroy(): void {
    if (this.isFreed) return;
    this.#state = 'freed';
    for (const buffer of this.#buffers) this.gpu.destroyBuffer(buffer);
  }

  *#stretches(blocks: readonly number[]): Generator<Stretch, void, void> {
    const { blockBytes } = this.kv;
    for (const [index, cache] of [...this.kv.keys, ...this.kv.values].entries()) {
      let address = index * this.#blocks.length * blockBytes;
      for (const { first, count } of runs(blocks)) {
        const end = (first + count) * blockBytes;
        for (let cacheOffset = first * blockBytes; cacheOffset < end;) {
          const offset = address % BUFFER_BYTES_MAX;
          const bytes = Math.min(end - cacheOffset, OP_BYTES_MAX, BUFFER_BYTES_MAX - offset);
          yield { cache, cacheOffset, buffer: Math.floor(address / BUFFER_BYTES_MAX), offset, bytes };
          cacheOffset += bytes;
          address += bytes;
        }
      }
    }
  }
}

/** Blocks that follow each other in the cache, joined: one op moves them all. */
function* runs(blocks: readonly number[]): Generator<{ first: number; count: number }, void, void> {
  for (let start = 0; start < blocks.length;) {
    const first = at(blocks, start);
    let count = 1;
    while (blocks[start + count] === first + count) count++;
    yield { first, count };
    start += count;
  }
}
