import { BLOCK_TOKENS, blocksFor } from '../kernels/kv-cache.js';
import { assert } from '../lib/assert.js';
import { advancing, segmentHasRoom, type Admission, type Resident } from './admission.js';
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
 * environment thinks is parked: without a slot, its cache where it is for as long as nobody else needs the blocks.
 * A sequence takes all the blocks its turn may need when it is admitted, or, under a rule of admission, as it grows.
 * Pure bookkeeping: no device, no clock.
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
  #admission: Admission | null = null;
  /** Blocks the rule of admission leaves to all. */
  #admissionBlocks = Infinity;
  #evictions = 0;
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

  /**
   * From now on sequences take blocks as they grow, and are admitted and advance as the rule says; null takes it back.
   * Whoever runs keeps what it has.
   *
   * @param blocksMin what the longest sequence needs: the rule leaves no fewer
   */
  limitAdmission(admission: Admission | null, blocksMin: number): void {
    this.#admission = admission;
    const blocks = admission === null ? Infinity : Math.floor(admission.kvTokensMax / BLOCK_TOKENS);
    this.#admissionBlocks = Math.max(blocks, blocksMin);
  }

  /** Sequences sent away without their cache because those admitted before them grew, since the last call. */
  takeEvictions(): number {
    const evictions = this.#evictions;
    this.#evictions = 0;
    return evictions;
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
    const unheld = this.#unheld(makeRoom);
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

  /** Those that get rows: each has the blocks for its next one. */
  #unheld(makeRoom: MakeRoom): Sequence[] {
    const inOrder = this.#inOrderOfAdmission();
    const admission = this.#admission;
    const may = admission === null ? null : advancing(admission, inOrder.map(residentOf), this.#inLine);
    const chosen =
      may === null
        ? this.#running.slice(0, this.#slotsMax)
        : inOrder.filter((_, index) => may[index]).slice(0, this.#slotsMax);
    return chosen.filter((sequence) => sequence.slot >= 0 && this.#grow(sequence, makeRoom));
  }

  /**
   * Gives a sequence the blocks for its next row: those that are free, then those of others without a slot, then those
   * of whoever was admitted last (as vLLM does), at worst its own. The one admitted first keeps what it has, so that it
   * comes to its end. False when there are none, or it has been sent away itself.
   */
  #grow(sequence: Sequence, makeRoom: MakeRoom): boolean {
    if (sequence.rowsLeft === 0) return true;
    const missing = (): number => blocksFor(sequence.nextPosition + 1) - sequence.blocks.length;
    while (missing() > 0 && missing() > this.#blocksLeft) {
      if (makeRoom(sequence, missing() - this.#blocksLeft)) break;
      const victim = this.#inOrderOfAdmission().slice(1).at(-1);
      if (victim === undefined) return false;
      victim.loseCache();
      this.sendAway(victim);
      this.#evictions++;
      if (victim === sequence) return false;
    }
    if (missing() > 0) sequence.blocks = [...sequence.blocks, ...this.#blocks.take(missing())];
    return true;
  }

  /** How many wait to be admitted or to return. */
  get #inLine(): number {
    return this.#waiting.length + this.#away.length;
  }

  #inOrderOfAdmission(): Sequence[] {
    return this.#running.toSorted((a, b) => a.serial - b.serial);
  }

  /** Blocks to be admitted with: all its turn may need, or those for what it has, its next token and that of all others. */
  #wanted(sequence: Sequence): { readonly blocks: number; readonly spare: number } {
    if (this.#admission === null) return { blocks: blocksFor(sequence.tokensInCacheMax), spare: 0 };
    const blocks = blocksFor(Math.min(sequence.tokensInCacheMax, sequence.tokenCount + 1));
    const isFull = ({ nextPosition, blocks: own }: Sequence): boolean =>
      blocksFor(nextPosition + 1) > own.length;
    return { blocks, spare: this.#running.filter(isFull).length };
  }

  /** Gives a sequence a slot and the blocks to begin with, or does nothing and says false. */
  #enter(sequence: Sequence, makeRoom: MakeRoom): boolean {
    if (this.#running.length >= this.#slotsMax) return false;
    const slot = this.#freeSlots.at(-1);
    if (slot === undefined) return false;
    const admission = this.#admission;
    const residents = admission === null ? [] : this.#running.map(residentOf);
    if (admission !== null && !segmentHasRoom(admission, residents, residentOf(sequence).tokens))
      return false;
    const { blocks, spare } = this.#wanted(sequence);
    const wanted = Math.max(0, blocks - sequence.blocks.length);
    const missing = wanted > 0 ? wanted + spare - this.#blocksLeft : 0;
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
    return Math.min(this.#blocks.freeCount, Math.min(this.#blocksMax, this.#admissionBlocks) - inUse);
  }

  /** Takes the slot, and all blocks but the first `kept`, from a sequence that may have neither. */
  #free(sequence: Sequence, kept = 0): void {
    if (sequence.slot >= 0) this.#freeSlots.push(sequence.slot);
    this.#blocks.give(sequence.blocks.slice(kept));
    sequence.slot = -1;
    sequence.blocks = sequence.blocks.slice(0, kept);
  }
}

function residentOf(sequence: Sequence): Resident {
  const { generated, drawsInFlight, tokensInCacheMax } = sequence;
  return {
    tokens: generated.tokenIds.length + drawsInFlight,
    kvTokensMax: blocksFor(tokensInCacheMax) * BLOCK_TOKENS,
  };
}

/** From one list to another, to its place in the order of arrival. */
function move(sequence: Sequence, from: Sequence[], to: Sequence[]): void {
  const index = from.indexOf(sequence);
  assert(index >= 0, `sequence ${sequence.request.id} is not where it should be`);
  from.splice(index, 1);
  const later = to.findIndex(({ arrival }) => arrival > sequence.arrival);
  to.splice(later < 0 ? to.length : later, 0, sequence);
}
