import type { SamplingParams } from '../kernels/output-head.js';
import { assert, at } from '../lib/assert.js';
import { UserError } from '../lib/errors.js';

/** The model's own distribution: temperature 1, no filters. */
export const RAW_SAMPLING: SamplingParams = { temperature: 1, topK: 0, topP: 1, minP: 0 };

/** A sequence of which some positions count: all that packing and the layers know of one. */
export interface WeightedSequence {
  /** Prompt and completion. */
  readonly tokens: ArrayLike<number>;
  /** As long as `tokens`: weights[t] belongs to predicting tokens[t + 1] at position t. 0 leaves it out; the last is 0. */
  readonly weights: Float32Array;
}

/** A sequence whose tokens are to be scored. */
export interface ScoreSequence extends WeightedSequence {
  /** The distribution its completion was drawn from. */
  readonly sampling: SamplingParams;
}

/** A sequence to train on; the lists of log-probabilities are aligned as `weights`, and not read where that is 0. */
export interface TrainSequence extends ScoreSequence {
  /** How much better than its group this rollout did; or, aligned as `weights`, than expected at each token. */
  readonly advantage: number | Float32Array;
  /** Under the policy that generated it. */
  readonly oldLogprobs: Float32Array;
  /** Under the reference policy; null where the loss has no KL term. */
  readonly refLogprobs: Float32Array | null;
}

/** A sequence to fit values to; both lists are aligned as `weights`, and not read where that is 0. */
export interface ValueSequence extends WeightedSequence {
  /** What the value at each position should have been. */
  readonly returns: Float32Array;
  /** The critic's values when the batch was made: the clip is around them. */
  readonly oldValues: Float32Array;
}

/** A sequence for supervised cross-entropy. */
export function supervisedSequence(tokens: ArrayLike<number>, weights: Float32Array): TrainSequence {
  return {
    tokens,
    weights,
    sampling: RAW_SAMPLING,
    advantage: 0,
    oldLogprobs: new Float32Array(tokens.length),
    refLogprobs: null,
  };
}

/** A sequence's place in a micro-batch; its slot is its index there. */
export interface PackedSequence {
  /** Index into the batch. */
  readonly index: number;
  /** Its first row in the micro-batch. */
  readonly firstRow: number;
  /** Tokens that go through the layers: all up to the last position with a weight. */
  readonly rows: number;
  /** Positions with a weight, ascending: they need logits. */
  readonly positions: readonly number[];
}

/** Whole sequences that go through the model together. */
export interface MicroBatch {
  readonly sequences: readonly PackedSequence[];
  readonly rows: number;
  /** Rows that need logits. */
  readonly headRows: number;
  /** position + 1 of each row. */
  readonly contexts: readonly number[];
}

interface Bin {
  readonly sequences: PackedSequence[];
  rows: number;
  headRows: number;
  readonly contexts: number[];
}

/**
 * Packs sequences into micro-batches of at most `rowsMax` rows and `slotsMax` sequences, first fit in the given
 * order: the same batch is always packed the same way. A sequence without any weight is left out.
 *
 * @throws UserError when a sequence alone has more than `rowsMax` rows.
 */
export function packMicroBatches(
  batch: readonly WeightedSequence[],
  rowsMax: number,
  slotsMax: number,
): MicroBatch[] {
  const bins: Bin[] = [];
  batch.forEach((sequence, index) => {
    checkSequence(sequence, index);
    const positions = weightedPositions(sequence);
    const rows = (positions.at(-1) ?? -1) + 1;
    if (rows === 0) return;
    if (rows > rowsMax) {
      throw new UserError(
        `a sequence of ${sequence.tokens.length} tokens does not fit a micro-batch of ${rowsMax}: allow larger micro-batches or shorter sequences`,
      );
    }
    let bin = bins.find((open) => open.rows + rows <= rowsMax && open.sequences.length < slotsMax);
    if (bin === undefined) bins.push((bin = { sequences: [], rows: 0, headRows: 0, contexts: [] }));
    bin.sequences.push({ index, firstRow: bin.rows, rows, positions });
    bin.rows += rows;
    bin.headRows += positions.length;
    for (let context = 1; context <= rows; context++) bin.contexts.push(context);
  });
  return bins;
}

function weightedPositions({ weights }: WeightedSequence): number[] {
  const positions: number[] = [];
  weights.forEach((weight, position) => {
    if (weight !== 0) positions.push(position);
  });
  return positions;
}

function checkSequence({ tokens, weights }: WeightedSequence, index: number): void {
  assert(tokens.length > 0, `sequence ${index} is empty`);
  assert(
    weights.length === tokens.length,
    `sequence ${index}: ${weights.length} weights, ${tokens.length} tokens`,
  );
  assert(weights.every(Number.isFinite), `sequence ${index} has a weight that is not finite`);
  assert(at(weights, weights.length - 1) === 0, `sequence ${index}: its last token has nothing to predict`);
}

/** A row of the head's tables. */
export interface HeadRow {
  readonly slot: number;
  /** Index into the batch. */
  readonly sequence: number;
  readonly position: number;
  /** Its row in the micro-batch. */
  readonly row: number;
}

/** The rows that need logits, in the order of the head's tables. */
export function* headRows({ sequences }: MicroBatch): Generator<HeadRow, void, void> {
  for (const [slot, { index, firstRow, positions }] of sequences.entries()) {
    for (const position of positions) yield { slot, sequence: index, position, row: firstRow + position };
  }
}
