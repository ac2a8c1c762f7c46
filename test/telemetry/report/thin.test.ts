import { expect, test } from 'vitest';
import { Random } from '#src/lib/prng.js';
import { thin, type Point } from '#src/telemetry/report/thin.js';

test('leaves few points as they are', () => {
  const points: Point[] = [
    [1, 5],
    [2, 3],
  ];
  expect(thin(points, 2)).toBe(points);
});

test('keeps the bound, the order, the extremes, and only real points', () => {
  for (let seed = 0; seed < 100; seed++) {
    const random = new Random(seed);
    const points = Array.from({ length: random.int(1, 1000) }, (_, x): Point => [x, random.normal()]);
    const max = random.int(2, 200);
    const kept = thin(points, max);
    const name = `seed ${seed}`;
    expect(kept.length, name).toBeLessThanOrEqual(max);
    expect(
      kept.every((point) => points.includes(point)),
      name,
    ).toBe(true);
    expect(
      kept.every(([x], index) => index === 0 || x > (kept[index - 1]?.[0] ?? Infinity)),
      name,
    ).toBe(true);
    const ys = (list: readonly Point[]): number[] => list.map(([, y]) => y);
    expect(Math.max(...ys(kept)), name).toBe(Math.max(...ys(points)));
    expect(Math.min(...ys(kept)), name).toBe(Math.min(...ys(points)));
  }
});
