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
 * Called when a sequence that is next in line lacks blocks: sends away caches of those without a slot until so many
 * more may be taken, or does nothing and says false.
 */
export type MakeRoom = (sequence: Sequence, blocks: number) => boolean;

const NO_ROOM: MakeRoom = () => false;

/**
 * Continuous batching (Orca, Yu et al., 2022): each step takes one decode row from every running sequence and fills
 * what is left of the batch with prefill rows, oldest sequence first. Fewer may be let run than there are slots. A
 * running sequence may be sent away, its slot and blocks freed, and return later, before any that never ran. One whose
 * environment thinks is parked: without a slot, its cache where it is for as long as nobody else needs the blocks. Pure
 * bookkeeping: no device, no clock.
 */
export class Batcher {
  /** Oldest first, all four. */
  readonly #waiting: Sequence[] = [];
  readonly #running: Sequence[] = [];
  readonly #away: Sequence[] = [];
  readonly #parked: Sequence[] = [];
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

  get parked(): readonly Sequence[] {
    return this.#parked;
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

  /** True when a sequence with so many tokens in the cache fits an empty engine at all. */
  canEverHold(tokensInCache: number): boolean {
    return blocksFor(tokensInCache) <= this.#blocks.total;
  }

  /** One that comes between two turns is parked at once, without a cache. */
  add(sequence: Sequence): void {
    sequence.arrival = this.#arrivals++;
    (sequence.turnEnd === null ? this.#waiting : this.#parked).push(sequence);
  }

  /** The next ragged batch, or an empty one when every running sequence is held or waits for the device. */
  plan(makeRoom = NO_ROOM): BatchEntry[] {
    this.#admit(makeRoom);
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

  /** Takes its slot from a running sequence, and its blocks from any that has some. */
  sendAway(sequence: Sequence): void {
    assert(sequence.blocks.length > 0, `sequence ${sequence.request.id} does not run and has no cache`);
    if (sequence.slot >= 0) move(sequence, this.#running, this.#away);
    this.#free(sequence);
  }

  /** Takes its slot from a sequence whose turn is over, and the blocks beyond its cache. */
  park(sequence: Sequence): void {
    move(sequence, this.#running.includes(sequence) ? this.#running : this.#away, this.#parked);
    this.#free(sequence, blocksFor(sequence.nextPosition));
  }

  /** A parked sequence whose turn has begun is to return. */
  unpark(sequence: Sequence): void {
    move(sequence, this.#parked, this.#away);
  }

  /**
   * Those that return now, oldest first, with a slot and blocks, those of their cache among them if it is still there.
   * One that is not ready holds nobody back: nothing but its own cache's way keeps it, and then it is the first. One
   * that does not fit holds back those behind it.
   */
  takeBack(isReady: (sequence: Sequence) => boolean, makeRoom = NO_ROOM): Sequence[] {
    const returned: Sequence[] = [];
    for (const sequence of [...this.#away]) {
      if (!isReady(sequence)) continue;
      if (!this.#enter(sequence, makeRoom)) break;
      move(sequence, this.#away, this.#running);
      returned.push(sequence);
    }
    return returned;
  }

  finish(sequence: Sequence, reason: FinishReason): void {
    assert(sequence.finished === null, `sequence ${sequence.request.id} finished twice`);
    const list = [this.#running, this.#away, this.#parked, this.#waiting].find((each) =>
      each.includes(sequence),
    );
    assert(list !== undefined, `sequence ${sequence.request.id} is not in the batcher`);
    sequence.finished = reason;
    list.splice(list.indexOf(sequence), 1);
    this.#free(sequence);
  }

  /** First come, first served: a sequence that does not fit yet, or has not returned, holds back those behind it. */
  #admit(makeRoom: MakeRoom): void {
    if (this.#away.length > 0) return;
    for (let next = this.#waiting[0]; next !== undefined; next = this.#waiting[0]) {
      if (!this.#enter(next, makeRoom)) return;
      move(next, this.#waiting, this.#running);
    }
  }

  /** Gives a sequence a slot and all the blocks its turn may need, or does nothing and says false. */
  #enter(sequence: Sequence, makeRoom: MakeRoom): boolean {
    if (this.#running.length >= this.#slotsMax) return false;
    const slot = this.#freeSlots.at(-1);
    if (slot === undefined) return false;
    const wanted = blocksFor(sequence.tokensInCacheMax) - sequence.blocks.length;
    const missing = wanted > 0 ? wanted - this.#blocksLeft : 0;
    if (missing > 0 && !makeRoom(sequence, missing)) return false;
    this.#freeSlots.pop();
    sequence.slot = slot;
    sequence.serial = ++this.#serial;
    sequence.blocks = [...sequence.blocks, ...this.#blocks.take(wanted)];
    return true;
  }

  /** Blocks that may be taken; fewer than none where more are in use than are allowed by now. */
  get #blocksLeft(): number {
    const inUse = this.#blocks.total - this.#blocks.freeCount;
    return Math.min(this.#blocks.freeCount, this.#blocksMax - inUse);
  }

  /** Takes the slot, and all blocks but the first `kept`, from a sequence that may have neither. */
  #free(sequence: Sequence, kept = 0): void {
    if (sequence.slot >= 0) this.#freeSlots.push(sequence.slot);
    this.#blocks.give(sequence.blocks.slice(kept));
    sequence.slot = -1;
    sequence.blocks = sequence.blocks.slice(0, kept);
  }
}

/** From one list to another, to its place in the order of arrival. */
function move(sequence: Sequence, from: Sequence[], to: Sequence[]): void {
  const index = from.indexOf(sequence);
  assert(index >= 0, `sequence ${sequence.request.id} is not where it should be`);
  from.splice(index, 1);
  const later = to.findIndex(({ arrival }) => arrival > sequence.arrival);
  to.splice(later < 0 ? to.length : later, 0, sequence);
}
