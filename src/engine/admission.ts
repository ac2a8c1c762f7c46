import { assert, at } from '../lib/assert.js';

/** From so many sampled tokens on until the next segment's, at most so many sequences of an engine advance at once. */
export interface Segment {
  readonly fromTokens: number;
  readonly sequencesMax: number;
}

/**
 * Who may run in an engine whose sequences take cache as they grow. Without such a rule a sequence takes all it may
 * ever need when it is admitted; with one it takes what it has, more are admitted, and one that finds no room to grow
 * drops the cache of the sequence admitted last. Segments keep that rare: they are those of Nested WAIT (Ao, Luo,
 * Simchi-Levi and Wang, 2025), whose survivors wait at a boundary, caches kept, while the segment beyond is full. What
 * holds here is its cap of a segment's population; its lower thresholds, which would hold sequences back until enough
 * have gathered, cost more than they give in batches as small as one device runs. Plain data.
 */
export interface Admission {
  /** Tokens in the cache of all sequences together; at least those of the longest sequence. */
  readonly kvTokensMax: number;
  /** Ascending, the first from 0 tokens on; none caps nothing. */
  readonly segments: readonly Segment[];
}

/** A sequence that has cache on the device. */
export interface Resident {
  /** Sampled so far, over all turns. */
  readonly tokens: number;
  /** Most tokens its cache may come to hold. */
  readonly kvTokensMax: number;
}

/** Sampled tokens at which a sequence comes to its next segment; Infinity in the last. */
export function boundaryAfter({ segments }: Admission, tokens: number): number {
  return segments.find(({ fromTokens }) => fromTokens > tokens)?.fromTokens ?? Infinity;
}

/**
 * Which of an engine's sequences may advance: in each segment those admitted first, up to its cap. The one admitted
 * first of all always may, and is never evicted, so there is always progress. When nobody waits to be admitted and all
 * fit to their very ends, caps would only idle the device: then all may.
 *
 * @param residents in the order in which they were admitted
 * @param waiting sequences that wait to be admitted
 */
export function advancing(admission: Admission, residents: readonly Resident[], waiting: number): boolean[] {
  const { segments, kvTokensMax } = admission;
  const isLoose = segments.length === 0 || (waiting === 0 && totalMax(residents) <= kvTokensMax);
  if (isLoose) return residents.map(() => true);
  const room = segments.map(({ sequencesMax }) => sequencesMax);
  return residents.map(({ tokens }) => {
    const segment = segmentOf(segments, tokens);
    const left = at(room, segment);
    room[segment] = left - 1;
    return left > 0;
  });
}

/**
 * Whether the next in line is admitted: its segment has room, and its cache fits with one more token of everybody. Into an empty engine anybody is.
 *
 * @param tokens those the newcomer has sampled
 * @param kvTokens in its cache, once it is here
 * @param kvTokensUsed by the residents now
 */
export function mayEnter(
  admission: Admission,
  residents: readonly Resident[],
  newcomer: { readonly tokens: number; readonly kvTokens: number },
  kvTokensUsed: number,
): boolean {
  const fits = kvTokensUsed + newcomer.kvTokens + residents.length + 1 <= admission.kvTokensMax;
  return residents.length === 0 || (fits && segmentHasRoom(admission, residents, newcomer.tokens));
}

/** Whether the segment of so many tokens has room after as many as wait at boundaries have been counted in it. */
export function segmentHasRoom(
  { segments }: Admission,
  residents: readonly Resident[],
  tokens: number,
): boolean {
  if (segments.length === 0 || residents.length === 0) return true;
  const counts = segments.map(() => 0);
  for (const each of residents) {
    const segment = segmentOf(segments, each.tokens);
    counts[segment] = at(counts, segment) + 1;
  }
  const excess = segments.reduce(
    (sum, { sequencesMax }, k) => sum + Math.max(0, at(counts, k) - sequencesMax),
    0,
  );
  const segment = segmentOf(segments, tokens);
  return at(counts, segment) + excess < at(segments, segment).sequencesMax;
}

/** What is wrong with a rule, in words; null if nothing is. */
export function flawOf({ kvTokensMax, segments }: Admission): string | null {
  if (!isWhole(kvTokensMax, 1)) return `a cache of ${kvTokensMax} tokens`;
  for (const [index, { fromTokens, sequencesMax }] of segments.entries()) {
    if (!isWhole(sequencesMax, 1)) return `a segment of ${sequencesMax} sequences`;
    const before = segments[index - 1];
    const isNext = before === undefined ? fromTokens === 0 : fromTokens > before.fromTokens;
    if (!isWhole(fromTokens, 0) || !isNext) return `segment ${index} from ${fromTokens} tokens on`;
  }
  return null;
}

export function isSameAdmission(a: Admission | null, b: Admission | null): boolean {
  if (a === null || b === null) return a === b;
  return (
    a.kvTokensMax === b.kvTokensMax &&
    a.segments.length === b.segments.length &&
    a.segments.every((segment, k) => {
      const other = at(b.segments, k);
      return segment.fromTokens === other.fromTokens && segment.sequencesMax === other.sequencesMax;
    })
  );
}

function segmentOf(segments: readonly Segment[], tokens: number): number {
  const segment = segments.findLastIndex(({ fromTokens }) => fromTokens <= tokens);
  assert(segment >= 0, `no segment for ${tokens} tokens`);
  return segment;
}

function totalMax(residents: readonly Resident[]): number {
  return residents.reduce((sum, { kvTokensMax }) => sum + kvTokensMax, 0);
}

function isWhole(value: number, min: number): boolean {
  return Number.isSafeInteger(value) && value >= min;
}
