/** A stop text found in a stretch of text: where it begins and where it ends. */
interface Match {
  readonly start: number;
  readonly end: number;
}

/**
 * Text on its way out, up to a stop text that may arrive in pieces. What could still turn out to be the beginning of
 * a stop text is held back until it is decided. Of several stop texts the one that is complete first counts, and of
 * those that end together the longest, so the result does not depend on the pieces.
 */
export class StopText {
  #held = '';
  #stopped = false;

  constructor(private readonly stops: readonly string[]) {}

  /** True once a stop text is complete; nothing comes out after it. */
  get stopped(): boolean {
    return this.#stopped;
  }

  /** The text that is certain now. */
  push(piece: string): string {
    if (this.#stopped) return '';
    const text = this.#held + piece;
    const match = this.#firstMatch(text);
    if (match !== undefined) {
      this.#stopped = true;
      this.#held = '';
      return text.slice(0, match.start);
    }
    const certain = text.length - this.#undecided(text);
    this.#held = text.slice(certain);
    return text.slice(0, certain);
  }

  /** What was held back: no more text comes, so it is no stop text. */
  end(): string {
    const rest = this.#held;
    this.#held = '';
    return rest;
  }

  #firstMatch(text: string): Match | undefined {
    let first: Match | undefined;
    for (const stop of this.stops) {
      const start = text.indexOf(stop);
      if (start < 0) continue;
      const end = start + stop.length;
      const isFirst = first === undefined || end < first.end || (end === first.end && start < first.start);
      if (isFirst) first = { start, end };
    }
    return first;
  }

  /** Length of the longest end of `text` that begins a stop text. */
  #undecided(text: string): number {
    let longest = 0;
    for (const stop of this.stops) {
      const lengthMax = Math.min(stop.length - 1, text.length);
      for (let length = lengthMax; length > longest; length--) {
        if (stop.startsWith(text.slice(-length))) longest = length;
      }
    }
    return longest;
  }
}
