import { expect, test } from 'vitest';
import { type LabelPlace, type Labelled, placeLabels } from '#src/bench/preempt/report/labels.js';
import { Random } from '#src/lib/prng.js';

const SIZES = [
  { width: 500, height: 340 },
  { width: 1010, height: 340 },
];
const WIDTH = 6.6;

function box({ x, y, text }: Labelled, { right, down }: LabelPlace, size: { width: number; height: number }) {
  const left = x * size.width + right;
  const middle = (1 - y) * size.height + down;
  return { left, right: left + WIDTH * text.length, top: middle - 7, bottom: middle + 7 };
}

/** How many pairs of labels overlap at some size. */
function overlaps(points: readonly Labelled[], places: readonly LabelPlace[]): number {
  let count = 0;
  for (const size of SIZES) {
    const boxes = points.map((point, index) => box(point, places[index] ?? { right: 0, down: 0 }, size));
    boxes.forEach((a, i) => {
      for (const b of boxes.slice(i + 1)) {
        if (a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom) count++;
      }
    });
  }
  return count;
}

test('a label alone stands to the right of its point, or to the left where the drawing ends', () => {
  const place = (x: number): LabelPlace | undefined =>
    placeLabels([{ x, y: 0.5, text: 'drain' }], [], SIZES)[0];
  expect(place(0.2)).toEqual({ right: 8, down: 0 });
  expect(place(0.99)).toEqual({ right: -8 - 5 * WIDTH, down: 0 });
});

test('keeps names apart and inside, however points are crowded', () => {
  for (let seed = 1; seed <= 40; seed++) {
    const random = new Random(seed);
    const texts = ['drain', 'one slice', 'second device', 'abort and retry', 'unlimited', 'spilled'];
    const points = texts.map((text) => ({ x: random.uniform(), y: 0.15 + 0.7 * random.uniform(), text }));
    const places = placeLabels(
      points,
      points.map(({ x, y }) => ({ x, y, weight: 1 })),
      SIZES,
    );
    expect(places, `seed ${seed}`).toHaveLength(points.length);
    expect(overlaps(points, places), `seed ${seed}`).toBe(0);
    for (const size of SIZES) {
      points.forEach((point, index) => {
        const { left, right } = box(point, places[index] ?? { right: 0, down: 0 }, size);
        expect(left, `seed ${seed}`).toBeGreaterThanOrEqual(0);
        expect(right, `seed ${seed}`).toBeLessThanOrEqual(size.width);
      });
    }
  }
});
