/**
 * The timeline's arithmetic and drawing. These functions run in the page: the report embeds their source text, so that
 * what readers run is what the compiler and the tests have seen. Therefore each of them may use only what is named
 * in TIMELINE_FUNCTIONS below and what every browser has: no imports, no constants of this module.
 */

/** The part of the run in sight, in microseconds from its start. */
export interface View {
  readonly fromUs: number;
  readonly toUs: number;
}

/** Spans of one row: as columns, ascending and apart. */
export interface Row {
  readonly name: string;
  readonly resident: string;
  readonly starts: Float64Array;
  readonly ends: Float64Array;
  readonly slices: Float64Array;
  /** Share of the span in which a slice ran, 0…1. */
  readonly busy: Float64Array;
}

/** Undoes the encoding of TimelineRow.spans. */
export function decodeRow(row: { name: string; resident: string; spans: readonly number[] }): Row {
  const count = row.spans.length / 4;
  const [starts, ends] = [new Float64Array(count), new Float64Array(count)];
  const [slices, busy] = [new Float64Array(count), new Float64Array(count)];
  let at = 0;
  for (let i = 0; i < count; i++) {
    const [gap = 0, length = 0, spanSlices = 0, idle = 0] = row.spans.slice(4 * i, 4 * i + 4);
    starts[i] = at + gap;
    ends[i] = at + gap + length;
    slices[i] = spanSlices;
    busy[i] = 1 - idle / 1000;
    at += gap + length;
  }
  return { name: row.name, resident: row.resident, starts, ends, slices, busy };
}

/** Index of the first value that is at least `wanted`; the length if there is none. */
export function firstAtLeast(ascending: Float64Array, wanted: number): number {
  let [low, high] = [0, ascending.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if ((ascending[middle] ?? 0) < wanted) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** For each of `columns` equal parts of the view, the share of it in which a slice ran. */
export function columnShares(row: Row, view: View, columns: number): Float64Array {
  const shares = new Float64Array(columns);
  const columnUs = (view.toUs - view.fromUs) / columns;
  for (let i = firstAtLeast(row.ends, view.fromUs); i < row.starts.length; i++) {
    const [start = 0, end = 0, busy = 0] = [row.starts[i], row.ends[i], row.busy[i]];
    if (start >= view.toUs) break;
    const first = Math.max(0, Math.floor((start - view.fromUs) / columnUs));
    const last = Math.min(columns - 1, Math.floor((end - view.fromUs) / columnUs));
    for (let column = first; column <= last; column++) {
      const columnFrom = view.fromUs + column * columnUs;
      const overlap = Math.min(end, columnFrom + columnUs) - Math.max(start, columnFrom);
      shares[column] = Math.min(1, (shares[column] ?? 0) + (busy * Math.max(0, overlap)) / columnUs);
    }
  }
  return shares;
}

/** A view within the run: at least 20 µs wide, moved and cut to fit. */
export function fitted(fromUs: number, toUs: number, endUs: number): View {
  const width = Math.min(endUs, Math.max(20, toUs - fromUs));
  const from = Math.max(0, Math.min(endUs - width, fromUs));
  return { fromUs: from, toUs: from + width };
}

/** Zooms by `factor` (below 1 is closer) around the moment `atUs`, which keeps its place on the screen. */
export function zoomed(view: View, factor: number, atUs: number, endUs: number): View {
  return fitted(atUs - (atUs - view.fromUs) * factor, atUs + (view.toUs - atUs) * factor, endUs);
}

/** 1, 2 or 5 times a power of ten microseconds, so that at most `ticksMax` labels fit the view. */
export function tickStepUs(view: View, ticksMax: number): number {
  const wanted = Math.max(1, (view.toUs - view.fromUs) / ticksMax);
  const power = 10 ** Math.floor(Math.log10(wanted));
  return power * ([1, 2, 5, 10].find((lead) => lead * power >= wanted) ?? 10);
}

/** A moment of the run, as finely as labels `stepUs` apart need it. */
export function momentText(us: number, stepUs: number): string {
  const digits = Math.max(0, 6 - Math.floor(Math.log10(stepUs)));
  return `${(us / 1e6).toFixed(digits)} s`;
}

/** A length of time in the unit that suits it. */
export function lengthText(us: number): string {
  if (us < 1000) return `${Math.round(us)} µs`;
  if (us < 1e6) return `${Number((us / 1000).toPrecision(3))} ms`;
  return `${Number((us / 1e6).toPrecision(3))} s`;
}

/** What a row holds at a moment, in words; empty if nothing within `reachUs` of it. */
export function rowText(row: Row, atUs: number, reachUs: number): string {
  const i = firstAtLeast(row.ends, atUs - reachUs);
  const [start = Infinity, end = 0, slices = 0, busy = 0] = [
    row.starts[i],
    row.ends[i],
    row.slices[i],
    row.busy[i],
  ];
  if (start > atUs + reachUs) return '';
  if (slices === 1) return `one slice of ${row.name}: ${lengthText(end - start)}`;
  return `${slices} slices of ${row.name} within ${lengthText(end - start)}, ${Math.round(100 * busy)} % of it busy`;
}

/** The functions the page needs, in any order: they find each other by name. */
export const TIMELINE_FUNCTIONS = [
  decodeRow,
  firstAtLeast,
  columnShares,
  fitted,
  zoomed,
  tickStepUs,
  momentText,
  lengthText,
  rowText,
] as const;
