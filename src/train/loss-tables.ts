import type { Gpu } from '../gpu/device.js';
import type { WriteOp } from '../gpu/ops.js';
import { assert, at } from '../lib/assert.js';
import {
  headRows,
  type MicroBatch,
  type TrainSequence,
  type ValueSequence,
  type WeightedSequence,
} from './batch.js';
import { PackedTables } from './packed-tables.js';

const LOSS_ROW_WORDS = 4;
const SEGMENT_WORDS = 4;

type Name = 'lossRows' | 'scatter' | 'headOrder' | 'tokenSegments' | 'tokenOrder';

/** The tables on the device, whatever kind of sequence fills them. */
export type LossTableSlices = Pick<PackedTables<Name>, 'slice'>;

/** What the loss of one position reads: LOSS_ROW_WORDS numbers. */
type LossNumbers = readonly [number, number, number, number];
export type LossRow<S extends WeightedSequence> = (sequence: S, position: number) => LossNumbers;

/**
 * What loss and backward pass read of a micro-batch beside the forward tables: targets of the loss, and two lists of
 * segments for `embed_rows_grad`, one that puts head rows back in their places among all rows, one that gathers the
 * rows of each token.
 */
export class LossTables<S extends WeightedSequence> extends PackedTables<Name> {
  constructor(
    gpu: Gpu,
    rowsMax: number,
    private readonly lossRow: LossRow<S>,
  ) {
    super(gpu, 'trainer loss tables', {
      lossRows: rowsMax * LOSS_ROW_WORDS,
      scatter: rowsMax * SEGMENT_WORDS,
      headOrder: rowsMax,
      tokenSegments: rowsMax * SEGMENT_WORDS,
      tokenOrder: rowsMax,
    });
  }

  /** The tables of a micro-batch as host writes, and how many different tokens its rows have. */
  fill(batch: readonly S[], microBatch: MicroBatch): { writes: Iterable<WriteOp>; tokenSegments: number } {
    const { writes, table } = this.blank();
    const lossRows = new Float32Array(table('lossRows').buffer, table('lossRows').byteOffset);
    const scatter = table('scatter');
    const headOrder = table('headOrder');
    let headRow = 0;
    for (const { sequence, position, row } of headRows(microBatch)) {
      const numbers = this.lossRow(at(batch, sequence), position);
      assert(numbers.every(Number.isFinite), `a loss row of ${numbers.join(', ')}`);
      lossRows.set(numbers, headRow * LOSS_ROW_WORDS);
      scatter.set([row, headRow, headRow + 1, 0], headRow * SEGMENT_WORDS);
      headOrder[headRow] = headRow;
      headRow++;
    }
    const tokenSegments = fillTokenSegments(
      rowTokens(batch, microBatch),
      table('tokenSegments'),
      table('tokenOrder'),
    );
    return { writes, tokenSegments };
  }
}

/** As policy_gradient.wgsl reads it. */
export function policyLossRow(sequence: TrainSequence, position: number): LossNumbers {
  const { weights, advantage, oldLogprobs, refLogprobs } = sequence;
  return [
    at(weights, position),
    typeof advantage === 'number' ? advantage : at(advantage, position),
    at(oldLogprobs, position),
    refLogprobs === null ? 0 : at(refLogprobs, position),
  ];
}

/** As value_loss.wgsl reads it. */
export function valueLossRow(sequence: ValueSequence, position: number): LossNumbers {
  const { weights, returns, oldValues } = sequence;
  return [at(weights, position), at(returns, position), at(oldValues, position), 0];
}

/** The token of each row. */
function rowTokens(batch: readonly WeightedSequence[], { sequences }: MicroBatch): number[] {
  return sequences.flatMap(({ index, rows }) => {
    const { tokens } = at(batch, index);
    return Array.from({ length: rows }, (_, position) => at(tokens, position));
  });
}

/** Sorts the rows by token (stably: equal ones stay in order), and writes a segment (token, start, end) for each run of equals. */
function fillTokenSegments(tokens: readonly number[], segments: Uint32Array, order: Uint32Array): number {
  const sorted = tokens.map((_, row) => row).sort((a, b) => at(tokens, a) - at(tokens, b));
  order.set(sorted);
  let count = 0;
  for (let start = 0, end = 0; start < sorted.length; start = end) {
    const token = at(tokens, at(sorted, start));
    while (end < sorted.length && tokens[at(sorted, end)] === token) end++;
    segments.set([token, start, end, 0], count * SEGMENT_WORDS);
    count++;
  }
  return count;
}
