import { expect, it } from 'vitest';
import { cut, cutBoth, groups } from '#src/kernels/launch.js';
import { Random } from '#src/lib/prng.js';

it.each([1, 2, 3])('cut covers everything once, in pieces that start at whole units (seed %i)', (seed) => {
  const random = new Random(seed);
  for (let i = 0; i < 200; i++) {
    const [total, unit, wanted] = [random.int(1, 300), random.int(1, 20), random.int(1, 40)];
    const label = `seed ${seed}: ${total} in ${wanted} by ${unit}`;
    const pieces = [...cut(total, unit, wanted)];
    expect(pieces.length, label).toBeLessThanOrEqual(wanted);
    let next = 0;
    for (const [start, count] of pieces) {
      expect(start, label).toBe(next);
      expect(start % unit, label).toBe(0);
      expect(count, label).toBeGreaterThan(0);
      next += count;
    }
    expect(next, label).toBe(total);
  }
});

it('cut gives the largest number of pieces there is when asked for more, and none of nothing', () => {
  expect([...cut(10, 4, Infinity)]).toEqual([
    [0, 4],
    [4, 4],
    [8, 2],
  ]);
  expect([...cut(10, 4, 0)]).toEqual([[0, 10]]);
  expect([...cut(0, 4, 3)]).toEqual([]);
});

it('cut keeps every piece within the reach of a grid', () => {
  const pieces = [...cut(200_000, 1, 1)];
  expect(Math.max(...pieces.map(([, count]) => count))).toBe(65_535);
  expect(pieces.reduce((sum, [, count]) => sum + count, 0)).toBe(200_000);
});

it('cutBoth cuts the second axis only where the first gives too few pieces, and covers every unit once', () => {
  const [first, second] = [
    { total: 10, unit: 4 },
    { total: 5, unit: 2 },
  ];
  expect([...cutBoth(first, second, 1)]).toEqual([
    [
      [0, 10],
      [0, 5],
    ],
  ]);
  expect([...cutBoth(first, second, 3)].map(([, inner]) => inner)).toEqual([
    [0, 5],
    [0, 5],
    [0, 5],
  ]);
  expect([...cutBoth(first, second, 4)]).toHaveLength(6);
  const covered = [...cutBoth(first, second, Infinity)].flatMap(([[row, rows], [column, columns]]) =>
    Array.from({ length: rows * columns }, (_, i) =>
      [row + Math.floor(i / columns), column + (i % columns)].join(),
    ),
  );
  expect(covered).toHaveLength(50);
  expect(new Set(covered).size).toBe(50);
});

it('groups of 64 threads', () => {
  expect([1, 63, 64, 65, 128].map(groups)).toEqual([1, 1, 1, 2, 2]);
});
