import type { Span } from '../measured.js';

/** Shades of a picture: a column is drawn in the lightest that its work fits. */
export const SHADES = 4;

/** A run of neighbouring columns of one shade, 1 to `SHADES`. */
export interface Stripe {
  readonly from: number;
  readonly to: number;
  readonly shade: number;
}

/** For each of `columns` equal parts of [0, endMs], the share of it in which the device worked. */
export function columnShares(spans: readonly Span[], endMs: number, columns: number): Float64Array {
  const shares = new Float64Array(columns);
  const columnMs = endMs / columns;
  for (const { fromMs, toMs, busy } of spans) {
    const first = Math.max(0, Math.floor(fromMs / columnMs));
    const last = Math.min(columns - 1, Math.floor(toMs / columnMs));
    for (let column = first; column <= last; column++) {
      const overlapMs = Math.min(toMs, (column + 1) * columnMs) - Math.max(fromMs, column * columnMs);
      shares[column] = Math.min(1, (shares[column] ?? 0) + (busy * Math.max(0, overlapMs)) / columnMs);
    }
  }
  return shares;
}

/** Columns with work in them, neighbours of one shade joined. */
export function stripes(shares: Float64Array): Stripe[] {
  const joined: Stripe[] = [];
  shares.forEach((share, column) => {
    const shade = Math.ceil(share * SHADES - 1e-9);
    if (shade < 1) return;
    const last = joined.at(-1);
    if (last?.to === column && last.shade === shade) {
      joined[joined.length - 1] = { ...last, to: column + 1 };
    } else {
      joined.push({ from: column, to: column + 1, shade });
    }
  });
  return joined;
}
