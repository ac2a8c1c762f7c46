import { assert, at } from '../lib/assert.js';
import type { KvOnPreempt } from './engine.js';
import type { Prices } from './kv-costs.js';

/** How much a sequence misses its cache: while its environment thinks, while it waits for a slot, while it runs. */
export const URGENCIES = [0, 1, 2] as const;
export type Urgency = (typeof URGENCIES)[number];

/** A sequence that has blocks as the choice sees it. */
export interface Candidate {
  readonly urgency: Urgency;
  /** Blocks it would give up. */
  readonly blocks: number;
  /** Rows it would have to compute again if it were dropped; 0 when nothing in its cache will be read again. */
  readonly rows: number;
  /** Bytes it would move, one way, if it were spilled. */
  readonly bytes: number;
}

/** Those that leave, oldest first in each list; whoever is in none of them stays. */
export interface Leaving<T> {
  /** They have nothing to lose. */
  readonly unburdened: readonly T[];
  readonly spilled: readonly T[];
  readonly dropped: readonly T[];
}

/** Blocks that may stay in use. */
export function blocksMaxOf(kv: KvOnPreempt): number {
  switch (kv.kind) {
    case 'held':
      return Infinity;
    case 'spilled':
    case 'dropped':
      return 0;
    case 'pressure':
      return kv.blocksMax;
    default:
      return kv satisfies never;
  }
}

/**
 * Who leaves, and how. Those with nothing to lose go first, then the less urgent before the more urgent: nobody notices
 * that a cache is gone while its environment thinks. Of equals as few go as will do, for each that leaves pays a round
 * trip and its owner a pause; among sets of that size the cheaper to bring back go, and at the same price
 * the newer, so that the oldest come to their end. (vLLM preempts the newest; with caches of all lengths that can
 * empty many short ones where one long one would do.) Under pressure each goes the cheaper way. What no longer fits
 * `spillBytes` is dropped: room goes to those for which moving saves most.
 *
 * @param candidates the sequences that have blocks, oldest first
 * @param spillBytes room on the host
 */
export function chooseVictims<T extends Candidate>(
  candidates: readonly T[],
  kv: KvOnPreempt,
  spillBytes: number,
  prices: Prices,
): Leaving<T> {
  const blocksMax = blocksMaxOf(kv);
  assert(blocksMax >= 0, `${blocksMax} blocks may stay`);
  const priceMs = ({ bytes, rows }: T): number => Math.min(prices.moveMs(bytes), prices.recomputeMs(rows));
  const leaving = fewest(candidates, blocksOf(candidates) - blocksMax, priceMs);
  const victims = candidates.filter((each) => leaving.has(each));
  const burdened = victims.filter(({ rows }) => rows > 0);
  const savingMs = ({ bytes, rows }: T): number => prices.recomputeMs(rows) - prices.moveMs(bytes);
  const movable =
    kv.kind === 'dropped' ? [] : burdened.filter((each) => kv.kind === 'spilled' || savingMs(each) > 0);
  const spilled = new Set<T>();
  let roomBytes = spillBytes;
  for (const each of movable.toSorted((a, b) => savingMs(b) - savingMs(a))) {
    if (each.bytes > roomBytes) continue;
    roomBytes -= each.bytes;
    spilled.add(each);
  }
  return {
    unburdened: victims.filter(({ rows }) => rows === 0),
    spilled: burdened.filter((each) => spilled.has(each)),
    dropped: burdened.filter((each) => !spilled.has(each)),
  };
}

/** Those with nothing to lose as long as blocks are missing, then the smallest number of others that make up for it. */
function fewest<T extends Candidate>(
  candidates: readonly T[],
  blocksMissing: number,
  priceMs: (candidate: T) => number,
): Set<T> {
  const victims = new Set<T>();
  let missing = blocksMissing;
  const take = (victim: T): void => {
    victims.add(victim);
    missing -= victim.blocks;
  };
  for (const each of candidates) if (missing > 0 && each.rows === 0) take(each);
  for (const urgency of URGENCIES) {
    const equals = candidates.filter((each) => each.rows > 0 && each.urgency === urgency);
    for (const each of fewestOf(equals, missing, priceMs)) take(each);
  }
  return victims;
}

/** The smallest number of equals that make up for the blocks missing, or all if they cannot. */
function fewestOf<T extends Candidate>(
  equals: readonly T[],
  blocksMissing: number,
  priceMs: (candidate: T) => number,
): readonly T[] {
  if (blocksOf(equals) <= blocksMissing) return equals;
  const victims: T[] = [];
  let missing = blocksMissing;
  let bySize = equals.toSorted((a, b) => b.blocks - a.blocks);
  let byPrice = equals.toReversed().toSorted((a, b) => priceMs(a) - priceMs(b));
  for (let count = fewestThatFree(bySize, missing); count > 0; count--) {
    // The cheapest with which the largest of the rest still free enough.
    const largest = blocksOf(bySize.slice(0, count));
    const last = at(bySize, count - 1);
    const among = new Set(bySize.slice(0, count));
    const enough = (each: T): boolean =>
      (among.has(each) ? largest : largest - last.blocks + each.blocks) >= missing;
    const chosen = byPrice.find(enough);
    assert(chosen !== undefined, 'no victim frees enough');
    victims.push(chosen);
    missing -= chosen.blocks;
    bySize = bySize.filter((each) => each !== chosen);
    byPrice = byPrice.filter((each) => each !== chosen);
  }
  return victims;
}

function blocksOf(candidates: readonly Candidate[]): number {
  return candidates.reduce((sum, { blocks }) => sum + blocks, 0);
}

function fewestThatFree(bySize: readonly Candidate[], blocks: number): number {
  let freed = 0;
  let count = 0;
  while (freed < blocks) freed += at(bySize, count++).blocks;
  return count;
}
