import { expect, test } from 'vitest';
import type { Span } from '#src/bench/compare/measured.js';
import { columnShares, stripes } from '#src/bench/compare/report/columns.js';

function span(fromMs: number, toMs: number, busy = 1): Span {
  return { lane: 0, job: 'a', kind: 'generation', fromMs, toMs, busy };
}

test('a column has the share of it that was busy', () => {
  const shares = columnShares([span(5, 20), span(20, 30, 0.5), span(38, 40)], 50, 5);
  expect([...shares]).toEqual([0.5, 1, 0.5, expect.closeTo(0.2, 12), 0]);
});

test('what reaches past the end is cut, and no column is more than full', () => {
  expect([...columnShares([span(0, 100), span(0, 100)], 10, 2)]).toEqual([1, 1]);
});

test('neighbours of one shade are one stripe', () => {
  expect(stripes(Float64Array.from([0, 1, 0.9, 0.25, 0.2, 0, 0.76]))).toEqual([
    { from: 1, to: 3, shade: 4 },
    { from: 3, to: 5, shade: 1 },
    { from: 6, to: 7, shade: 4 },
  ]);
  expect(stripes(new Float64Array(3))).toEqual([]);
});
