import { nearestRank } from '#src/telemetry/quantiles.js';

/** Compiled shaders, grown heaps and allocator arenas settle first. */
const WARM_UP_SHARE = 0.2;
/** In each third; with fewer a median says nothing. */
const VALUES_MIN = 3;

/** How far the last third of the values may lie above the first one. */
export interface Allowance {
  readonly absolute: number;
  /** Of the first third's median. */
  readonly share: number;
}

export interface Trend {
  /** Medians of the first and of the last third, the warm-up left out. */
  readonly first: number;
  readonly last: number;
  /** `last` at most, to be called flat. */
  readonly allowed: number;
  readonly isFlat: boolean;
}

/** Null when there are too few values to tell. */
export function trend(values: readonly number[], { absolute, share }: Allowance): Trend | null {
  const settled = values.slice(Math.ceil(WARM_UP_SHARE * values.length));
  const third = Math.floor(settled.length / 3);
  if (third < VALUES_MIN) return null;
  const first = median(settled.slice(0, third));
  const last = median(settled.slice(-third));
  if (first === null || last === null) return null;
  const allowed = first * (1 + share) + absolute;
  return { first, last, allowed, isFlat: last <= allowed };
}

function median(values: readonly number[]): number | null {
  return nearestRank(Float64Array.from(values).sort(), 0.5);
}
