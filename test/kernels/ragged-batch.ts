import { BLOCK_TOKENS, blocksFor } from '#src/kernels/kv-cache.js';
import { at } from '#src/lib/assert.js';
import type { Random } from '#src/lib/prng.js';
import { shuffled } from '../helpers/arrays.js';

/** One sequence's part of a batch: its last `queries` tokens of a context of `tokens`. */
export interface Stretch {
  readonly tokens: number;
  readonly queries: number;
}

export interface RaggedBatch {
  readonly stretches: readonly Stretch[];
  readonly rows: number;
  /** First row of each stretch. */
  readonly rowStarts: readonly number[];
  readonly positions: readonly number[];
  /** Of each stretch: its place in the block table. */
  readonly slots: readonly number[];
  /** Row table as the shaders read it. */
  readonly rowTable: Uint32Array<ArrayBuffer>;
  readonly blockTable: Uint32Array<ArrayBuffer>;
  readonly blocksPerSlot: number;
  readonly blocks: number;
  /** Place of a stretch's token in the cache, in tokens. */
  readonly cacheEntry: (stretch: number, position: number) => number;
}

/**
 * Lays stretches out as a batcher would, one after the other, but with slots and blocks in random order and with
 * unused ones between them: a kernel that takes a row's index for its slot, or a position for a place in the
 * cache, reads the wrong data.
 */
export function raggedBatch(random: Random, stretches: readonly Stretch[]): RaggedBatch {
  const blocksPerSlot = Math.max(...stretches.map(({ tokens }) => blocksFor(tokens))) + random.int(0, 1);
  const slotOrder = shuffled(random, stretches.length + 2);
  const blocks = stretches.reduce((sum, { tokens }) => sum + blocksFor(tokens), 0) + 3;
  const blockOrder = shuffled(random, blocks);
  const blockTable = new Uint32Array(slotOrder.length * blocksPerSlot);
  const slots = stretches.map((_, index) => at(slotOrder, index));
  const rowStarts: number[] = [];
  const positions: number[] = [];
  const words: number[] = [];
  let blocksTaken = 0;
  stretches.forEach(({ tokens, queries }, index) => {
    const slot = at(slots, index);
    for (let block = 0; block < blocksFor(tokens); block++) {
      blockTable[slot * blocksPerSlot + block] = at(blockOrder, blocksTaken++);
    }
    rowStarts.push(positions.length);
    for (let position = tokens - queries; position < tokens; position++) {
      positions.push(position);
      words.push(slot, position, 0, 0);
    }
  });
  return {
    stretches,
    rows: positions.length,
    rowStarts,
    positions,
    slots,
    rowTable: Uint32Array.from(words),
    blockTable,
    blocksPerSlot,
    blocks,
    cacheEntry: (stretch, position) => {
      const block = at(blockTable, at(slots, stretch) * blocksPerSlot + Math.floor(position / BLOCK_TOKENS));
      return block * BLOCK_TOKENS + (position % BLOCK_TOKENS);
    },
  };
}
