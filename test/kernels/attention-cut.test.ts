import { expect, it } from 'vitest';
import { AttentionCut, KEYS_MIN, laterRowsOf } from '#src/kernels/attention-cut.js';
import { at } from '#src/lib/assert.js';
import { Random } from '#src/lib/prng.js';

it.each([1, 2, 3])(
  'covers each key of each row once and in order, in pieces no larger than asked (seed %i)',
  (seed) => {
    const random = new Random(seed);
    for (let i = 0; i < 100; i++) {
      const contexts = Array.from({ length: random.int(1, 40) }, () =>
        random.pick([1, random.int(1, 64), random.int(65, 3000)]),
      );
      const wanted = random.pick([1, 2, random.int(3, 200), Infinity]);
      const attention = new AttentionCut(contexts);
      const label = `seed ${seed}: ${contexts.join()} in ${wanted}`;
      const total = contexts.reduce((sum, context) => sum + context, 0);
      expect(attention.keys, label).toBe(total);
      const next = contexts.map(() => 0);
      for (const { rowStart, rowEnd, keyStart, keyEnd, keys } of attention.into(wanted)) {
        let taken = 0;
        for (let row = rowStart; row < rowEnd; row++) {
          const end = Math.min(keyEnd, at(contexts, row));
          if (keyStart >= end) continue;
          expect(keyStart, label).toBe(next[row]);
          next[row] = end;
          taken += end - keyStart;
        }
        expect(keys, label).toBe(taken);
        expect(keys, label).toBeGreaterThan(0);
        const smallest = rowEnd - rowStart === 1 && keyEnd - keyStart === KEYS_MIN;
        if (!smallest) expect(keys, label).toBeLessThanOrEqual(total / wanted);
      }
      expect(next, label).toEqual(contexts);
    }
  },
);

it('is one piece when one is asked for, and keeps its last answer', () => {
  const attention = new AttentionCut([3000, 1, 70]);
  expect(attention.into(1)).toMatchObject([{ rowStart: 0, rowEnd: 3, keyStart: 0, keys: 3071 }]);
  expect(attention.into(1)).toBe(attention.into(1));
  expect(attention.into(4)).not.toBe(attention.into(1));
});

it('windows a long context over all rows before it parts the rows', () => {
  const contexts = Array.from({ length: 16 }, (_, row) => 4000 + row);
  const ends = new AttentionCut(contexts).into(8).map(({ rowStart, rowEnd }) => rowEnd - rowStart);
  expect(new Set(ends)).toEqual(new Set([16]));
});

it('counts the rows that see each key', () => {
  expect(laterRowsOf([1, 2, 3, 1, 1, 2])).toEqual([3, 2, 1, 1, 2, 1]);
  expect(laterRowsOf([])).toEqual([]);
});
