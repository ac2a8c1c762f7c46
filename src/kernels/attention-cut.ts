import { at } from '../lib/assert.js';

/** Keys of a row that a piece takes at the least, unless the row has fewer left. */
export const KEYS_MIN = 64;

/** Keys keyStart … keyEnd of the rows rowStart … rowEnd, as far as a row has so many; `keys` counts them. */
export interface AttentionPiece {
  readonly rowStart: number;
  readonly rowEnd: number;
  readonly keyStart: number;
  readonly keyEnd: number;
  readonly keys: number;
}

/**
 * The work of attention over rows that see different numbers of keys, cut into pieces. A piece takes a window of the
 * keys of all rows rather than all keys of some: a long context is a long sum, and fewer threads add it no faster.
 * Only where the narrowest window is too much are rows parted. Pieces of a row come in the order of its keys.
 */
export class AttentionCut {
  readonly #contexts: ArrayLike<number>;
  /** Of all rows together. */
  readonly keys: number;
  #last: { readonly wanted: number; readonly pieces: readonly AttentionPiece[] } | null = null;

  /** `contexts`: keys of each row. */
  constructor(contexts: ArrayLike<number>) {
    this.#contexts = contexts;
    this.keys = keysIn(contexts, 0, contexts.length, 0, Infinity);
  }

  /** About so many pieces. The last answer is kept: one layer after the other asks for the same. */
  into(wanted: number): readonly AttentionPiece[] {
    if (this.#last?.wanted !== wanted) {
      const keysMax = this.keys / Math.max(1, wanted);
      this.#last = { wanted, pieces: [...cutRows(this.#contexts, 0, this.#contexts.length, keysMax)] };
    }
    return this.#last.pieces;
  }
}

/**
 * Of each row of whole sequences, how many rows see its key: itself and those after it. A row whose context is one
 * longer than that of the row before goes on with the same sequence.
 */
export function laterRowsOf(contexts: ArrayLike<number>): number[] {
  const later = new Array<number>(contexts.length);
  for (let row = contexts.length - 1; row >= 0; row--) {
    const goesOn = contexts[row + 1] === at(contexts, row) + 1;
    later[row] = goesOn ? at(later, row + 1) + 1 : 1;
  }
  return later;
}

/** Pieces of at most `keysMax`, where they can be that small. */
function* cutRows(
  contexts: ArrayLike<number>,
  start: number,
  end: number,
  keysMax: number,
): Generator<AttentionPiece, void, void> {
  const keys = keysIn(contexts, start, end, 0, Infinity);
  const densest = keysIn(contexts, start, end, 0, KEYS_MIN);
  if (keys > keysMax && densest > keysMax && end - start > 1) {
    const middle = Math.floor((start + end) / 2);
    yield* cutRows(contexts, start, middle, keysMax);
    yield* cutRows(contexts, middle, end, keysMax);
    return;
  }
  for (let keyStart = 0, left = keys; left > 0;) {
    let width = KEYS_MIN;
    let taken = keysIn(contexts, start, end, keyStart, keyStart + width);
    while (taken < left) {
      const wider = keysIn(contexts, start, end, keyStart, keyStart + 2 * width);
      if (wider > keysMax) break;
      width *= 2;
      taken = wider;
    }
    yield { rowStart: start, rowEnd: end, keyStart, keyEnd: keyStart + width, keys: taken };
    keyStart += width;
    left -= taken;
  }
}

/** How many keys from keyStart to keyEnd the rows have. */
function keysIn(
  contexts: ArrayLike<number>,
  start: number,
  end: number,
  keyStart: number,
  keyEnd: number,
): number {
  let keys = 0;
  for (let row = start; row < end; row++) {
    keys += Math.max(0, Math.min(at(contexts, row), keyEnd) - keyStart);
  }
  return keys;
}
