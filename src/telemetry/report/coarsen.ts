import { assert } from '../../lib/assert.js';

/** One or more slices of one resident that are drawn as one. Whole microseconds. */
export interface Span {
  readonly startUs: number;
  readonly endUs: number;
  readonly slices: number;
  /** Time within the span in which a slice ran. */
  readonly busyUs: number;
}

/** A part of the run whose slices should stay apart. */
export interface Stretch {
  readonly fromUs: number;
  readonly toUs: number;
}

/**
 * At most `spansMax` spans that cover the same slices: neighbours are joined into spans of at most some length, the
 * shortest that is enough, found by doubling. Slices that touch a `detail` stretch stay single while that can be
 * afforded. No slice and no busy microsecond is lost.
 */
export function coarsen(spans: readonly Span[], spansMax: number, detail: readonly Stretch[]): Span[] {
  assert(spansMax >= 1, `at most ${spansMax} spans`);
  const ordered = spans.toSorted((a, b) => a.startUs - b.startUs);
  const wholeUs = (ordered.at(-1)?.endUs ?? 0) - (ordered[0]?.startUs ?? 0);
  let kept = ordered;
  for (let lengthUs = 1; kept.length > spansMax && lengthUs < 2 * wholeUs; lengthUs *= 2) {
    kept = joinUpTo(ordered, lengthUs, detail);
  }
  return kept.length > spansMax ? joinUpTo(ordered, Infinity, []) : kept;
}

/** Joins ordered neighbours while the result is no longer than `lengthUs`. */
function joinUpTo(ordered: readonly Span[], lengthUs: number, detail: readonly Stretch[]): Span[] {
  const joined: Span[] = [];
  let lastIsDetail = false;
  for (const span of ordered) {
    const last = joined.at(-1);
    const isDetail = detail.some(({ fromUs, toUs }) => span.startUs <= toUs && span.endUs >= fromUs);
    if (last && !isDetail && !lastIsDetail && span.endUs - last.startUs <= lengthUs) {
      joined[joined.length - 1] = {
        startUs: last.startUs,
        endUs: Math.max(last.endUs, span.endUs),
        slices: last.slices + span.slices,
        busyUs: last.busyUs + span.busyUs,
      };
    } else {
      joined.push(span);
    }
    lastIsDetail = isDetail;
  }
  return joined;
}
