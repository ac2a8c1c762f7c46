import type { Gpu } from '../gpu/device.js';
import type { WriteOp } from '../gpu/ops.js';
import { blocksFor } from '../kernels/kv-cache.js';
import { assert, at } from '../lib/assert.js';
import { headRows, type MicroBatch, type WeightedSequence } from './batch.js';
import { PackedTables } from './packed-tables.js';

const ROW_WORDS = 4;

export interface TableLimits {
  /** Rows of one micro-batch. */
  readonly rowsMax: number;
  /** Sequences of one micro-batch. */
  readonly slotsMax: number;
  /** Cache blocks of one sequence. */
  readonly blocksPerSlot: number;
}

type Name = 'rows' | 'blockTable' | 'rowIndex';

/** What the layers, and any head's norm, read of a micro-batch; the engine's tables have the same shapes. */
export class ForwardTables extends PackedTables<Name> {
  constructor(
    gpu: Gpu,
    private readonly limits: TableLimits,
    private readonly vocabSize: number,
  ) {
    const { rowsMax, slotsMax, blocksPerSlot } = limits;
    super(gpu, 'trainer forward tables', {
      rows: rowsMax * ROW_WORDS,
      blockTable: slotsMax * blocksPerSlot,
      rowIndex: rowsMax,
    });
  }

  /** The tables of a micro-batch as host writes. */
  fill(batch: readonly WeightedSequence[], microBatch: MicroBatch): Iterable<WriteOp> {
    const { writes, table } = this.blank();
    this.#fillBlocks(microBatch, table('blockTable'));
    this.#fillRows(batch, microBatch, table('rows'));
    table('rowIndex').set(Array.from(headRows(microBatch), ({ row }) => row));
    return writes;
  }

  /** Blocks are handed out in order: what the cache held before is of no use to a new micro-batch. */
  #fillBlocks({ sequences }: MicroBatch, blockTable: Uint32Array): void {
    let nextBlock = 0;
    for (const [slot, { rows }] of sequences.entries()) {
      const first = slot * this.limits.blocksPerSlot;
      for (let block = 0; block < blocksFor(rows); block++) blockTable[first + block] = nextBlock++;
    }
  }

  #fillRows(batch: readonly WeightedSequence[], { sequences }: MicroBatch, table: Uint32Array): void {
    for (const [slot, { index, firstRow, rows }] of sequences.entries()) {
      for (let position = 0; position < rows; position++) {
        const token = knownToken(at(batch, index), position, this.vocabSize);
        table.set([slot, position, token, 0], (firstRow + position) * ROW_WORDS);
      }
    }
  }
}

/** The token at a position; one that the vocabulary does not have is a bug. */
export function knownToken({ tokens }: WeightedSequence, position: number, vocabSize: number): number {
  const token = at(tokens, position);
  assert(Number.isInteger(token) && token >= 0 && token < vocabSize, `token ${token} of ${vocabSize}`);
  return token;
}
