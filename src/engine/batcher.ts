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
 * what is left of the batch with prefill rows, oldest sequence first. Fewer may be let run than there are slots. A running sequence may be sent away, its slot and
 * blocks freed, and return later, before any that never ran. Pure bookkeeping: no device, no clock.
 */
export class Batcher {
  /** Oldest first, all three. */
  readonly #waiting: Sequence[] = [];
  readonly #running: Sequence[] = [];
  readonly #away: Sequence[] = [];
  readonly #freeSlots: number[];
  readonly #blocks: KvBlocks;
  #blocksMax = Infinity;
  #slotsMax: number;
  #serial = 0;
  #arrivals = 0;
  #rowsRepeated = 0;

  constructor(readonly limits: BatcherLimits) {
    assert(limits.batchTokensMax >= limits.slots, 'a batch must hold a row for every slot');
    this.#slotsMax = limits.slots;
    this.#freeSlots = Array.from({ length: limits.slots }, (_, i) => limits.slots - 1 - i);
    this.#blocks = new KvBlocks(limits.kvBlocks);
  }

  get running(): readonly Sequence[] {
    return this.#running;
  }

  get away(): readonly Sequence[] {
    return this.#away;
  }

  get waitingCount(): number {
    return this.#waiting.length;
  }

  get freeBlocks(): number {
    return this.#blocks.freeCount;
  }

  /** Nobody is admitted or returns beyond so many blocks in use; those that run keep what they have. */
  limitBlocks(blocksMax: number): void {
    this.#blocksMax = blocksMax;
  }

  /** How many sequences get rows at once. */
  get slotsMax(): number {
    return this.#slotsMax;
  }

  /**
   * Only the oldest `slots` that run get rows from now on, and nobody is admitted or returns beyond so many. The rest
   * are held: they keep slot and blocks, and go on with their very next row once there is room again.
   */
  limitSlots(slots: number): void {
    assert(Number.isInteger(slots) && slots >= 0, `${slots} slots`);
    this.#slotsMax = Math.min(slots, this.limits.slots);
  }

  /** Rows that were put in a batch though they had been in one before, since the last call. */
  takeRowsRepeated(): number {
    const rows = this.#rowsRepeated;
    this.#rowsRepeated = 0;
    return rows;
  }

  /** True when the sequence fits an empty engine at all. */
  canEverHold(sequence: Sequence): boolean {
    return blocksFor(sequence.tokensInCacheMax) <= this.#blocks.total;
  }

  add(sequence: Sequence): void {
    sequence.arrival = this.#arrivals++;
    this.#waiting.push(sequence);
  }

  /** The next ragged batch, or an empty one when every running sequence is held or waits for the device. */
  plan(): BatchEntry[] {
    this.#admit();
    const entries: BatchEntry[] = [];
    let rowsLeft = this.limits.batchTokensMax;
    const unheld = this.#running.slice(0, this.#slotsMax);
    for (const sequence of unheld) {
      if (sequence.prefillRowsLeft > 0 || sequence.rowsLeft === 0) continue;
      entries.push({ sequence, start: sequence.nextPosition, count: 1, samples: true });
      rowsLeft--;
    }
    for (const sequence of unheld) {
      const count = Math.min(sequence.prefillRowsLeft, rowsLeft);
      if (count === 0) continue;
      const samples = count === sequence.prefillRowsLeft;
      entries.push({ sequence, start: sequence.nextPosition, count, samples });
      rowsLeft -= count;
    }
    for (const { sequence, count, samples } of entries) {
      this.#rowsRepeated += sequence.advance(count);
      if (samples) sequence.drawsInFlight++;
    }
    return entries;
  }

  /** Takes a running sequence's slot and blocks from it. */
  sendAway(sequence: Sequence): void {
    const running = this.#running.indexOf(sequence);
    assert(running >= 0, `sequence ${sequence.request.id} does not run`);
    this.#running.splice(running, 1);
    this.#free(sequence);
    insertByArrival(this.#away, sequence);
  }

  /**
   * Those that return now, oldest first, with a slot and blocks; where each goes on is for the caller to say. One that
   * is not ready holds nobody back: those away once ran together, so there is room for all of them. One that does not
   * fit, because blocks are limited, holds back those behind it.
   */
  takeBack(isReady: (sequence: Sequence) => boolean): Sequence[] {
    const returned: Sequence[] = [];
    for (const sequence of [...this.#away]) {
      if (!isReady(sequence)) continue;
      if (!this.#enter(sequence)) break;
      this.#away.splice(this.#away.indexOf(sequence), 1);
      returned.push(sequence);
    }
    return returned;
  }

  finish(sequence: Sequence, reason: FinishReason): void {
    assert(sequence.finished === null, `sequence ${sequence.request.id} finished twice`);
    const list = [this.#running, this.#away, this.#waiting].find((each) => each.includes(sequence));
    assert(list !== undefined, `sequence ${sequence.request.id} is not in the batcher`);
    sequence.finished = reason;
    list.splice(list.indexOf(sequence), 1);
    if (list === this.#running) this.#free(sequence);
  }

  /** First come, first served: a sequence that does not fit yet, or has not returned, holds back those behind it. */
  #admit(): void {
    if (this.#away.length > 0) return;
    for (let next = this.#waiting[0]; next !== undefined; next = this.#waiting[0]) {
      if (!this.#enter(next)) return;
      this.#waiting.shift();
    }
  }

  /** Gives a sequence a slot and all the blocks it may ever need, or does nothing and says false. */
  #enter(sequence: Sequence): boolean {
    if (this.#running.length >= this.#slotsMax) return false;
    const wanted = blocksFor(sequence.tokensInCacheMax);
    const inUse = this.#blocks.total - this.#blocks.freeCount;
    const slot = this.#freeSlots.at(-1);
    if (slot === undefined || !this.#blocks.canTake(wanted) || inUse + wanted > this.#blocksMax) return false;
    this.#freeSlots.pop();
    sequence.slot = slot;
    sequence.serial = ++this.#serial;
    sequence.blocks = this.#blocks.take(wanted);
    insertByArrival(this.#running, sequence);
    return true;
  }

  #free(sequence: Sequence): void {
    this.#freeSlots.push(sequence.slot);
    this.#blocks.give(sequence.blocks);
    sequence.slot = -1;
    sequence.blocks = [];
  }
}

function insertByArrival(list: Sequence[], sequence: Sequence): void {
  const later = list.findIndex(({ arrival }) => arrival > sequence.arrival);
  list.splice(later < 0 ? list.length : later, 0, sequence);
}
