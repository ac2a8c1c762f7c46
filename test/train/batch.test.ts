import { describe, expect, it } from 'vitest';
import { UserError } from '#src/lib/errors.js';
import { Random } from '#src/lib/prng.js';
import { headRows, packMicroBatches, RAW_SAMPLING, type ScoreSequence } from '#src/train/batch.js';

function sequence(weights: readonly number[]): ScoreSequence {
  return { tokens: weights.map((_, i) => i), weights: Float32Array.from(weights), sampling: RAW_SAMPLING };
}

/** A sequence of `length` tokens whose last prediction counts. */
function ofLength(length: number): ScoreSequence {
  return sequence(Array.from({ length }, (_, i) => (i === length - 2 ? 1 : 0)));
}

describe('packMicroBatches', () => {
  it('takes the first micro-batch with room, in the given order', () => {
    // One row less than tokens: the last token is only predicted.
    const packed = packMicroBatches([6, 9, 4, 3, 8].map(ofLength), 10, 10);
    expect(packed.map(({ sequences }) => sequences.map(({ index }) => index))).toEqual([[0, 2, 3], [1], [4]]);
    expect(packed[0]?.sequences.map(({ firstRow }) => firstRow)).toEqual([0, 5, 8]);
    expect(packed.map(({ rows }) => rows)).toEqual([10, 8, 7]);
    expect(packed.map(({ contexts }) => contexts)).toEqual([
      [1, 2, 3, 4, 5, 1, 2, 3, 1, 2],
      [1, 2, 3, 4, 5, 6, 7, 8],
      [1, 2, 3, 4, 5, 6, 7],
    ]);
  });

  it('leaves out what nothing depends on: whole sequences, and tokens after the last weight', () => {
    const packed = packMicroBatches(
      [sequence([0, 0, 0]), sequence([0, 1, 0, 2, 0, 0, 0]), sequence([0])],
      10,
      10,
    );
    expect(packed).toEqual([
      {
        sequences: [{ index: 1, firstRow: 0, rows: 4, positions: [1, 3] }],
        rows: 4,
        headRows: 2,
        contexts: [1, 2, 3, 4],
      },
    ]);
    expect([...headRows(packed[0]!)]).toEqual([
      { slot: 0, sequence: 1, position: 1, row: 1 },
      { slot: 0, sequence: 1, position: 3, row: 3 },
    ]);
  });

  it('says which sequence does not fit', () => {
    expect(packMicroBatches([ofLength(11)], 10, 10)).toHaveLength(1);
    expect(() => packMicroBatches([ofLength(12)], 10, 10)).toThrow(UserError);
    expect(() => packMicroBatches([ofLength(12)], 10, 10)).toThrow(
      '12 tokens does not fit a micro-batch of 10',
    );
  });

  it.each([1, 2, 3, 4])('holds its limits, and every weight once (seed %i)', (seed) => {
    const random = new Random(seed);
    const batch = Array.from({ length: 60 }, () => {
      const length = random.int(1, 20);
      return sequence(Array.from({ length }, (_, i) => (i + 1 < length && random.uniform() < 0.5 ? 1 : 0)));
    });
    const [rowsMax, slotsMax] = [random.int(20, 60), random.int(1, 6)];
    const packed = packMicroBatches(batch, rowsMax, slotsMax);
    const label = `seed ${seed}`;
    for (const { rows, headRows: heads, sequences } of packed) {
      expect(rows, label).toBeLessThanOrEqual(rowsMax);
      expect(sequences.length, label).toBeLessThanOrEqual(slotsMax);
      expect(
        sequences.reduce((sum, { positions }) => sum + positions.length, 0),
        label,
      ).toBe(heads);
      let row = 0;
      for (const { firstRow, rows: own } of sequences) {
        expect(firstRow, label).toBe(row);
        row += own;
      }
      expect(row, label).toBe(rows);
    }
    const found = packed.flatMap((microBatch) =>
      [...headRows(microBatch)].map(({ sequence: s, position }) => `${s}:${position}`),
    );
    const wanted = batch.flatMap(({ weights }, s) =>
      [...weights].flatMap((weight, t) => (weight === 0 ? [] : [`${s}:${t}`])),
    );
    expect(found.toSorted(), label).toEqual(wanted.toSorted());
    expect(packMicroBatches(batch, rowsMax, slotsMax), label).toEqual(packed);
  });
});
