import { blocksFor } from '../kernels/kv-cache.js';
import { assert } from '../lib/assert.js';
import { KvBlocks } from './kv-blocks.js';
import type { FinishReason, Sequence } from './sequence.js';

/** A stretch of one sequence's positions in a ragged batch; the last row samples when `samples` is true. */
export interface BatchEntry {
  readonly sequence: Sequence;
  readonly start: number;
  readonly count: number;
  readonly samples: boolean;
}

export interface BatcherLimits {
  /** Sequences that run at once. */
  readonly slots: number;
  /** Rows (tokens) of one ragged batch at most; at least `slots`. */
  readonly batchTokensMax: number;
  readonly kvBlocks: number;
}

/**
 * Continuous batching (Orca, Yu et al., 2022): each step takes one decode row from every running sequence and fills
 * what is left of the batch with prefill rows, oldest sequence first. Pure bookkeeping: no device, no clock.
 */
export class Batcher {
  readonly #waiting: Sequence[] = [];
  readonly #running: Sequence[] = [];
  readonly #freeSlots: number[];
  readonly #blocks: KvBlocks;
  #serial = 0;

  constructor(readonly limits: BatcherLimits) {
    assert(limits.batchTokensMax >= limits.slots, 'a batch must hold a row for every slot');
    this.#freeSlots = Array.from({ length: limits.slots }, (_, i) => limits.slots - 1 - i);
    this.#blocks = new KvBlocks(limits.kvBlocks);
  }

  get running(): readonly Sequence[] {
    return this.#running;
  }

  get waitingCount(): number {
    return this.#waiting.length;
  }

  get freeBlocks(): number {
    return this.#blocks.freeCount;
  }

  /** True when the sequence fits an empty engine at all. */
  canEverHold(sequence: Sequence): boolean {
    return blocksFor(sequence.tokensInCacheMax) <= this.#blocks.total;
  }

  add(sequence: Sequence): void {
    this.#waiting.push(sequence);
  }

  /** The next ragged batch, or an empty one when every running sequence waits for the device. */
  plan(): BatchEntry[] {
    this.#admit();
    const entries: BatchEntry[] = [];
    let rowsLeft = this.limits.batchTokensMax;
    for (const sequence of this.#running) {
      if (sequence.prefillRowsLeft > 0 || sequence.rowsLeft === 0) continue;
      entries.push({ sequence, start: sequence.nextPosition, count: 1, samples: true });
      rowsLeft--;
    }
    for (const sequence of this.#running) {
      const count = Math.min(sequence.prefillRowsLeft, rowsLeft);
      if (count === 0) continue;
      const samples = count === sequence.prefillRowsLeft;
      entries.push({ sequence, start: sequence.nextPosition, count, samples });
      rowsLeft -= count;
    }
    for (const { sequence, count } of entries) sequence.nextPosition += count;
    return entries;
  }

  finish(sequence: Sequence, reason: FinishReason): void {
    assert(sequence.finished === null, `sequence ${sequence.request.id} finished twice`);
    sequence.finished = reason;
    const running = this.#running.indexOf(sequence);
    if (running >= 0) {
      this.#running.splice(running, 1);
      this.#freeSlots.push(sequence.slot);
      this.#blocks.give(sequence.blocks);
      return;
    }
    const waiting = this.#waiting.indexOf(sequence);
    assert(waiting >= 0, `sequence ${sequence.request.id} is not in the batcher`);
    this.#waiting.splice(waiting, 1);
  }

  /** First come, first served: a sequence that does not fit yet holds back those behind it. */
  #admit(): void {
    for (let next = this.#waiting[0]; next !== undefined; next = this.#waiting[0]) {
      const blocks = blocksFor(next.tokensInCacheMax);
      const slot = this.#freeSlots.at(-1);
      if (slot === undefined || !this.#blocks.canTake(blocks)) return;
      this.#freeSlots.pop();
      this.#waiting.shift();
      next.slot = slot;
      next.serial = ++this.#serial;
      next.blocks = this.#blocks.take(blocks);
      this.#running.push(next);
    }
  }
}
