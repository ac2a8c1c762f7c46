import type { DispatchOp } from '#src/gpu/ops.js';
import type { Kernels } from '#src/kernels/kernels.js';
import { BLOCK_TOKENS, blocksFor } from '#src/kernels/kv-cache.js';
import { Matmul, whole } from '#src/kernels/launch.js';
import { ropeAngles } from '#src/kernels/rope-angles.js';
import { Random } from '#src/lib/prng.js';

/** Sizes of a decoder layer and its head, in elements. */
export interface LayerShape {
  readonly hidden: number;
  readonly inner: number;
  readonly heads: number;
  readonly kvHeads: number;
  readonly headDim: number;
  readonly vocabulary: number;
}

/** One launch to time, with the arithmetic or the bytes it cannot do without. */
export interface KernelCase {
  /** Null where the work does not depend on a number of rows. */
  readonly rows: number | null;
  readonly ops: readonly DispatchOp[];
  readonly amount: { readonly unit: 'flop' | 'byte'; readonly count: number };
}

/** Launches by name; each is made when called, so that its buffers live no longer than its timing. */
export type Cases = Readonly<Record<string, () => KernelCase>>;

export const PLAIN = { overrides: {}, prelude: {} };
/** As the output head: logits are made for so many rows at a time. */
const LOGITS_BYTES_MAX = 32 * 2 ** 20;
const DECODE_CONTEXT_TOKENS = 256;
const SEQUENCE_TOKENS = 128;

/** Makes the buffers of the launches of one shape and number of rows; `release` frees all made since the last. */
export class Room {
  readonly #made: GPUBuffer[] = [];
  readonly #noise: Float32Array<ArrayBuffer>;

  constructor(
    readonly kernels: Kernels,
    readonly shape: LayerShape,
    readonly rows: number,
  ) {
    const random = new Random(1);
    this.#noise = Float32Array.from({ length: 2 ** 16 }, () => random.normal());
  }

  /** Rows whose logits are made together. */
  get headRows(): number {
    return Math.min(this.rows, Math.floor(LOGITS_BYTES_MAX / 4 / this.shape.vocabulary));
  }

  /** Columns of query, key and value together. */
  get qkvColumns(): number {
    const { heads, kvHeads, headDim } = this.shape;
    return (heads + 2 * kvHeads) * headDim;
  }

  release(): void {
    for (const buffer of this.#made.splice(0)) this.kernels.gpu.destroyBuffer(buffer);
  }

  /** Zeros, or what `value` gives for each index. */
  words(length: number, value: (index: number) => number = () => 0): GPUBuffer {
    return this.#buffer(Uint32Array.from({ length }, (_, index) => value(index)));
  }

  /** Normally distributed numbers, the same ones over and over. */
  floats(length: number): GPUBuffer {
    const data = new Float32Array(length);
    for (let at = 0; at < length; at += this.#noise.length)
      data.set(this.#noise.subarray(0, length - at), at);
    return this.#buffer(data);
  }

  /** (cos, sin) for every position of a batch. */
  angles(): GPUBuffer {
    return this.#buffer(
      ropeAngles({ headDim: this.shape.headDim, ropeTheta: 10_000 }, DECODE_CONTEXT_TOKENS),
    );
  }

  /** One dispatch that moves so many float32 elements at the least. */
  moved(elements: number, op: DispatchOp, rows: number | null = this.rows): KernelCase {
    return { rows, ops: [op], amount: { unit: 'byte', count: elements * 4 } };
  }

  matmul(
    name: 'matmul_nn' | 'matmul_nt',
    size: { inner: number; columns: number; hasResidual?: boolean; rows?: number },
  ): KernelCase {
    const { inner, columns, hasResidual = false, rows = this.rows } = size;
    const [x, w, y] = [this.floats(rows * inner), this.floats(inner * columns), this.floats(rows * columns)];
    const residual = hasResidual ? { residual: this.floats(rows * columns) } : {};
    const kernel = new Matmul(this.kernels, name, { x, w, y, ...residual });
    const ops = [...kernel.run({ rows, inner, columns }, whole)];
    return { rows, ops, amount: { unit: 'flop', count: 2 * rows * inner * columns } };
  }

  /** Decode rows, each with a context of its own, or whole sequences one after the other. */
  batch(kind: 'decode' | 'sequences') {
    const { rows } = this;
    const tokens = kind === 'decode' ? DECODE_CONTEXT_TOKENS : Math.min(rows, SEQUENCE_TOKENS);
    const blocksPerSlot = blocksFor(tokens);
    const slots = kind === 'decode' ? rows : Math.ceil(rows / tokens);
    const place = (row: number): [slot: number, position: number] =>
      kind === 'decode' ? [row, tokens - 1] : [Math.floor(row / tokens), row % tokens];
    let contextTokens = 0;
    for (let row = 0; row < rows; row++) contextTokens += place(row)[1] + 1;
    return {
      rows: this.words(rows * 4, (index) => [...place(Math.floor(index / 4)), 0, 0][index % 4] ?? 0),
      blockTable: this.words(slots * blocksPerSlot, (index) => index),
      blocksPerSlot,
      cacheElements: slots * blocksPerSlot * BLOCK_TOKENS * this.shape.kvHeads * this.shape.headDim,
      contextTokens,
    };
  }

  /** Buffers and params that the attention kernels share. */
  attention(kind: 'decode' | 'sequences') {
    const { heads, kvHeads, headDim } = this.shape;
    const batch = this.batch(kind);
    return {
      variant: { overrides: {}, prelude: { HEAD_DIM: headDim } },
      buffers: {
        rows: batch.rows,
        block_table: batch.blockTable,
        q: this.floats(this.rows * heads * headDim),
        k_cache: this.floats(batch.cacheElements),
        v_cache: this.floats(batch.cacheElements),
      },
      params: {
        heads,
        kv_heads: kvHeads,
        blocks_per_slot: batch.blocksPerSlot,
        scale: 1 / Math.sqrt(headDim),
        row_start: 0,
        row_end: this.rows,
        key_start: 0,
        key_end: batch.blocksPerSlot * BLOCK_TOKENS,
      },
      contextTokens: batch.contextTokens,
    };
  }

  #buffer(data: Float32Array<ArrayBuffer> | Uint32Array<ArrayBuffer>): GPUBuffer {
    const { gpu } = this.kernels;
    const buffer = gpu.createStorage('bench', data.byteLength);
    gpu.device.queue.writeBuffer(buffer, 0, data);
    this.#made.push(buffer);
    return buffer;
  }
}
