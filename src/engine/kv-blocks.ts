import { assert } from '../lib/assert.js';

/**
 * Hands out cache blocks. A sequence takes all it may ever need on admission, so nothing runs out half-way. Free blocks
 * are kept in order, so that those taken together tend to be neighbours, which move in one copy.
 */
export class KvBlocks {
  readonly #free: number[];

  constructor(readonly total: number) {
    this.#free = Array.from({ length: total }, (_, i) => i);
  }

  get freeCount(): number {
    return this.#free.length;
  }

  canTake(count: number): boolean {
    return count <= this.#free.length;
  }

  /** The blocks in ascending order. */
  take(count: number): number[] {
    assert(this.canTake(count), `${count} blocks wanted, ${this.#free.length} free`);
    return this.#free.splice(this.#free.length - count, count);
  }

  give(blocks: readonly number[]): void {
    this.#free.push(...blocks);
    this.#free.sort((a, b) => a - b);
    assert(this.#free.length <= this.total, 'more blocks given back than there are');
  }
}
