import type { Gpu } from '../gpu/device.js';
import type { BufferSlice, WriteOp } from '../gpu/ops.js';
import { writeChunks } from '../kernels/transfers.js';
import { assert } from '../lib/assert.js';

/** Storage bindings start at multiples of 256 bytes. */
const ALIGN_WORDS = 64;

/** Several tables of 32-bit words in one buffer, so that one host write, or a few when they are large, fills them all. */
export class PackedTables<Name extends string> {
  readonly #buffer: GPUBuffer;
  readonly #starts = new Map<Name, number>();
  readonly #words: number;

  constructor(
    private readonly gpu: Gpu,
    label: string,
    private readonly sizes: Readonly<Record<Name, number>>,
  ) {
    let words = 0;
    for (const name in sizes) {
      this.#starts.set(name, words);
      words += Math.ceil(sizes[name] / ALIGN_WORDS) * ALIGN_WORDS;
    }
    this.#words = words;
    this.#buffer = gpu.createStorage(label, words * 4);
  }

  /** One table on the device, ready to bind. */
  slice(name: Name): BufferSlice {
    return { buffer: this.#buffer, offset: this.#start(name) * 4, bytes: this.sizes[name] * 4 };
  }

  /** Host memory for all tables, zeros; `table` gives the part of one. Fresh each time: a write may still be waiting. */
  blank(): { readonly writes: Iterable<WriteOp>; readonly table: (name: Name) => Uint32Array<ArrayBuffer> } {
    const data = new Uint32Array(this.#words);
    const table = (name: Name): Uint32Array<ArrayBuffer> => {
      const start = this.#start(name);
      return data.subarray(start, start + this.sizes[name]);
    };
    return { writes: writeChunks(this.#buffer, data), table };
  }

  destroy(): void {
    this.gpu.destroyBuffer(this.#buffer);
  }

  #start(name: Name): number {
    const start = this.#starts.get(name);
    assert(start !== undefined, `no table ${name}`);
    return start;
  }
}
