import type { CopyOp } from '../gpu/ops.js';
import { at } from '../lib/assert.js';
import { headRows, type MicroBatch } from './batch.js';
import { CLIP_BYTES } from './optimizer.js';

/**
 * Where the numbers of a batch's head rows lie in one staging buffer: one array of all rows after the other, in the
 * order of the micro-batches, then the clip result. An evaluation needs only the first array.
 */
export abstract class HeadRowLayout {
  readonly headRows: number;

  /** @param rowBytes of a row, by array */
  protected constructor(
    private readonly microBatches: readonly MicroBatch[],
    private readonly rowBytes: readonly number[],
  ) {
    this.headRows = microBatches.reduce((sum, { headRows: rows }) => sum + rows, 0);
  }

  get stepBytes(): number {
    return this.clipOffset + CLIP_BYTES;
  }

  protected get clipOffset(): number {
    return this.offsetOf(this.rowBytes.length);
  }

  /** Where the array begins, in bytes. */
  protected offsetOf(array: number): number {
    return this.headRows * this.rowBytes.slice(0, array).reduce((sum, bytes) => sum + bytes, 0);
  }

  /** Copies a micro-batch's rows into the array; `firstRow` counts the head rows of those before it. */
  protected copyRowsTo(
    array: number,
    staging: GPUBuffer,
    firstRow: number,
    rows: number,
    source: GPUBuffer,
  ): CopyOp {
    const bytes = at(this.rowBytes, array);
    const targetOffset = this.offsetOf(array) + firstRow * bytes;
    return { kind: 'copy', source, sourceOffset: 0, target: staging, targetOffset, bytes: rows * bytes };
  }

  /** A number of each head row, for each sequence of the batch, aligned as its weights; 0 where there is no row. */
  protected spread(
    batch: readonly { readonly tokens: { readonly length: number } }[],
    valueOf: (row: number) => number,
  ): Float32Array<ArrayBuffer>[] {
    const spread = batch.map(({ tokens }) => new Float32Array(tokens.length));
    let row = 0;
    for (const { sequence, position } of this.rows()) at(spread, sequence)[position] = valueOf(row++);
    return spread;
  }

  /** All head rows, in the order in which they were copied out. */
  protected *rows(): ReturnType<typeof headRows> {
    for (const microBatch of this.microBatches) yield* headRows(microBatch);
  }
}
