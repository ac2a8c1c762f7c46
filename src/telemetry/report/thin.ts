import { assert } from '../../lib/assert.js';

export type Point = readonly [x: number, y: number];

/**
 * At most `pointsMax` points that draw the same picture: of each of equal runs of neighbours the lowest and the
 * highest stay, so no spike is lost.
 */
export function thin(points: readonly Point[], pointsMax: number): readonly Point[] {
  assert(pointsMax >= 2, `at most ${pointsMax} points`);
  if (points.length <= pointsMax) return points;
  const runs = Math.floor(pointsMax / 2);
  const kept: Point[] = [];
  for (let run = 0; run < runs; run++) {
    const from = Math.floor((run * points.length) / runs);
    const members = points.slice(from, Math.floor(((run + 1) * points.length) / runs));
    const low = members.reduce((a, b) => (b[1] < a[1] ? b : a));
    const high = members.reduce((a, b) => (b[1] > a[1] ? b : a));
    kept.push(...(low[0] === high[0] ? [low] : low[0] < high[0] ? [low, high] : [high, low]));
  }
  return kept;
}
