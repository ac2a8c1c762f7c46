import type { Gpu } from '../gpu/device.js';
import type { WriteOp } from '../gpu/ops.js';
import { blocksFor } from '../kernels/kv-cache.js';
import { filtersOf, SAMPLE_ROW_WORDS, SAMPLING_WORDS, writeSampling } from '../kernels/output-head.js';
import { assert, at } from '../lib/assert.js';
import { headRows, type MicroBatch, type ScoreSequence } from './batch.js';
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

type Name = 'rows' | 'blockTable' | 'rowIndex' | 'sampleRows' | 'sampling';

/** What the forward pass and the output head read of a micro-batch; the engine's tables have the same shapes. */
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
      sampleRows: rowsMax * SAMPLE_ROW_WORDS,
      sampling: slotsMax * SAMPLING_WORDS,
    });
  }

  /** The tables of a micro-batch as host writes, and the filters its rows use (see `filtersOf`). */
  fill(
    batch: readonly ScoreSequence[],
    microBatch: MicroBatch,
  ): { writes: Iterable<WriteOp>; filters: number } {
    const { writes, table } = this.blank();
    const filters = this.#fillSlots(batch, microBatch, table('blockTable'), table('sampling'));
    this.#fillRows(batch, microBatch, table('rows'));
    const rowIndex = table('rowIndex');
    const sampleRows = table('sampleRows');
    let headRow = 0;
    for (const { slot, sequence, position, row } of headRows(microBatch)) {
      const target = this.#token(batch, sequence, position + 1);
      rowIndex[headRow] = row;
      sampleRows.set([slot, position + 1, target, 0], headRow * SAMPLE_ROW_WORDS);
      headRow++;
    }
    return { writes, filters };
  }

  /** Blocks are handed out in order: what the cache held before is of no use to a new micro-batch. */
  #fillSlots(
    batch: readonly ScoreSequence[],
    { sequences }: MicroBatch,
    blockTable: Uint32Array,
    sampling: Uint32Array,
  ): number {
    let filters = 0;
    let nextBlock = 0;
    for (const [slot, { index, rows }] of sequences.entries()) {
      const first = slot * this.limits.blocksPerSlot;
      for (let block = 0; block < blocksFor(rows); block++) blockTable[first + block] = nextBlock++;
      const params = at(batch, index).sampling;
      writeSampling(sampling, slot, params, [0, 0], { start: 0, count: 0 });
      filters |= filtersOf(params, this.vocabSize);
    }
    return filters;
  }

  #fillRows(batch: readonly ScoreSequence[], { sequences }: MicroBatch, table: Uint32Array): void {
    for (const [slot, { index, firstRow, rows }] of sequences.entries()) {
      for (let position = 0; position < rows; position++) {
        const token = this.#token(batch, index, position);
        table.set([slot, position, token, 0], (firstRow + position) * ROW_WORDS);
      }
    }
  }

  #token(batch: readonly ScoreSequence[], sequence: number, position: number): number {
    const token = at(at(batch, sequence).tokens, position);
    assert(
      Number.isInteger(token) && token >= 0 && token < this.vocabSize,
      `token ${token} of ${this.vocabSize}`,
    );
    return token;
  }
}
