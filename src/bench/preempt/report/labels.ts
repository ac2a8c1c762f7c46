/** A point with a name beside it; shares of the drawing's width, and of its height from below. */
export interface Labelled {
  readonly x: number;
  readonly y: number;
  readonly text: string;
}

/** Where a label stands: its left end's and its middle's distance from the point, in pixels right and down. */
export interface LabelPlace {
  readonly right: number;
  readonly down: number;
}

/** Something that a label should not cover; the weight says how much that would matter, a dot's being 1. */
export interface Obstacle {
  readonly x: number;
  readonly y: number;
  readonly weight: number;
}

interface Box {
  readonly left: number;
  readonly top: number;
  readonly right: number;
  readonly bottom: number;
}

/** How large a drawing may be, in pixels. */
export interface Size {
  readonly width: number;
  readonly height: number;
}

const CHARACTER_WIDTH = 6.6;
const HEIGHT = 14;
const GAP = 8;
const DOT_RADIUS = 6;
/** For each pixel that a label is further up or down than its point: far ones are taken for those of other points. */
const DISTANCE_WEIGHT = 0.05;
const DOWNS = [15, 22, 30, 38];

/**
 * Places labels one after the other, each at the first of several places around its point at which it touches no label
 * and no obstacle and stays inside, at every one of the sizes; where there is none, at the one with least in its way.
 */
export function placeLabels(
  points: readonly Labelled[],
  obstacles: readonly Obstacle[],
  sizes: readonly Size[],
): LabelPlace[] {
  const placed: LabelPlace[] = [];
  for (const point of points) {
    const width = point.text.length * CHARACTER_WIDTH;
    const rows = DOWNS.flatMap((down) => [-down, down]);
    const candidates = [
      { right: GAP, down: 0 },
      { right: -GAP - width, down: 0 },
      ...rows.flatMap((down) => [-width / 2, 0, -width].map((right) => ({ right, down }))),
    ];
    const costs = candidates.map((candidate) =>
      cost(point, candidate, points.slice(0, placed.length), placed, obstacles, sizes),
    );
    const best = candidates[costs.indexOf(Math.min(...costs))];
    if (best) placed.push(best);
  }
  return placed;
}

/** What the label would touch, over all sizes, and how far it would be from its point. */
function cost(
  point: Labelled,
  candidate: LabelPlace,
  others: readonly Labelled[],
  placed: readonly LabelPlace[],
  obstacles: readonly Obstacle[],
  sizes: readonly Size[],
): number {
  let touched = DISTANCE_WEIGHT * Math.abs(candidate.down);
  for (const size of sizes) {
    const box = boxOf(point, candidate, size);
    if (box.left < 0 || box.right > size.width || box.top < 0 || box.bottom > size.height) touched += 3;
    for (const [index, other] of others.entries()) {
      const at = placed[index];
      if (at && touches(box, boxOf(other, at, size))) touched += 2;
    }
    for (const { x, y, weight } of obstacles) {
      const [left, top] = [x * size.width, (1 - y) * size.height];
      const dot = {
        left: left - DOT_RADIUS,
        right: left + DOT_RADIUS,
        top: top - DOT_RADIUS,
        bottom: top + DOT_RADIUS,
      };
      if (touches(box, dot)) touched += weight;
    }
  }
  return touched;
}

function boxOf({ x, y, text }: Labelled, { right, down }: LabelPlace, { width, height }: Size): Box {
  const left = x * width + right;
  const middle = (1 - y) * height + down;
  return {
    left,
    right: left + text.length * CHARACTER_WIDTH,
    top: middle - HEIGHT / 2,
    bottom: middle + HEIGHT / 2,
  };
}

function touches(a: Box, b: Box): boolean {
  return a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom;
}
