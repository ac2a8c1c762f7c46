import { assert, at } from '../lib/assert.js';
import { layoutBytes, type Buckets, type ParamLayout } from '../model/layout.js';

/** Versions held at once: the newest can be read while the next is written, and a slow reader has one to spare. */
const SLOTS = 3;
/** A reader that is overtaken this often in a row is looking at a bug, not at bad luck. */
const PULL_TRIES_MAX = 8;

/** The header's first word: the epoch that may publish, and the slot of the newest version. */
const NEWEST = 0;
const SLOT_WORDS = 4;
const HEADER_WORDS = 1 + SLOTS * SLOT_WORDS;
/** Of the first word: 0 before the first version, then slot + 1. */
const SLOT_BITS = 2;
export const EPOCH_MAX = 2 ** (30 - SLOT_BITS);

/** What crosses threads: shared memory and how to read it. */
export interface SharedStore {
  readonly layout: ParamLayout;
  readonly header: SharedArrayBuffer;
  readonly slots: readonly SharedArrayBuffer[];
}

/**
 * Versioned weights in shared memory: one publisher at a time, any number of readers, no locks. A slot's sequence
 * number is odd while it is written (a seqlock); a checksum over the contents is stored with the version, so a torn
 * or stale slot is never taken for a version. Readers take the newest version only: those in between are never copied.
 *
 * A publisher may die half-way, and nobody can tell whether its thread will write once more. So each has an epoch
 * (a fencing token, as in Chubby), and a version becomes the newest in one exchange of a word that holds the epoch: a
 * publisher that was replaced meanwhile cannot. What it left half written is never the newest version, and its
 * successor writes over it.
 */
export class WeightStore {
  readonly #header: Int32Array;

  private constructor(
    readonly shared: SharedStore,
    /** As which this end publishes; readers need none. */
    private readonly epoch: number,
  ) {
    this.#header = new Int32Array(shared.header);
  }

  static create(layout: ParamLayout): WeightStore {
    const bytes = layoutBytes(layout);
    const header = new SharedArrayBuffer(HEADER_WORDS * 4);
    const slots = Array.from({ length: SLOTS }, () => new SharedArrayBuffer(bytes));
    return new WeightStore({ layout, header, slots }, 0);
  }

  static attach(shared: SharedStore, epoch = 0): WeightStore {
    return new WeightStore(shared, epoch);
  }

  /** Bytes of one version. */
  get bytes(): number {
    return at(this.shared.slots, 0).byteLength;
  }

  /** The newest version that can be pulled; −1 before the first. */
  get newestVersion(): number {
    const slot = slotOf(Atomics.load(this.#header, NEWEST));
    return slot < 0 ? -1 : Atomics.load(this.#header, versionWord(slot));
  }

  /** From now on only who publishes as `epoch` may: whoever did before is fenced off, in the middle of a version too. */
  claim(epoch: number): void {
    assert(Number.isInteger(epoch) && epoch >= 0 && epoch < EPOCH_MAX, `a publisher of epoch ${epoch}`);
    for (;;) {
      const before = Atomics.load(this.#header, NEWEST);
      assert(epoch >= epochOf(before), `epoch ${epoch} claims what ${epochOf(before)} has`);
      const after = packed(epoch, slotOf(before));
      if (Atomics.compareExchange(this.#header, NEWEST, before, after) === before) return;
    }
  }

  /**
   * Makes `version` the newest. Versions only rise; but a publisher may publish again what the one before it did, since
   * a step that is taken again gives the same weights. `onPart` is called after each bucket.
   *
   * @throws Error when another publisher has taken over: the version is not visible then.
   */
  publish(version: number, buckets: Buckets, onPart: () => void = () => undefined): void {
    const newest = Atomics.load(this.#header, NEWEST);
    assert(epochOf(newest) === this.epoch, replacedText(version, this.epoch));
    this.#checkRises(version, slotOf(newest));
    const elements = buckets.reduce((sum, bucket) => sum + bucket.length, 0);
    assert(elements * 4 === this.bytes, `${elements} elements published, ${this.bytes / 4} expected`);
    const slot = this.#slotToWrite(slotOf(newest));
    const before = Atomics.load(this.#header, sequenceWord(slot));
    const writing = before + (before % 2 === 0 ? 1 : 2);
    Atomics.store(this.#header, sequenceWord(slot), writing);
    const words = new Int32Array(at(this.shared.slots, slot));
    let offset = 0;
    let checksum = version;
    for (const bucket of buckets) {
      const source = new Int32Array(bucket.buffer, bucket.byteOffset, bucket.length);
      words.set(source, offset);
      checksum = mix(checksum, source);
      offset += source.length;
      onPart();
    }
    Atomics.store(this.#header, versionWord(slot), version);
    Atomics.store(this.#header, checksumWord(slot), checksum);
    Atomics.store(this.#header, epochWord(slot), this.epoch);
    Atomics.compareExchange(this.#header, sequenceWord(slot), writing, writing + 1);
    const after = packed(this.epoch, slot);
    const isMine = Atomics.compareExchange(this.#header, NEWEST, newest, after) === newest;
    assert(isMine, replacedText(version, this.epoch));
  }

  /**
   * A private copy of the newest version (device uploads must not read shared memory).
   *
   * @throws Error when no try in a row gave a whole version: the memory is damaged, or the publisher never rests.
   */
  pull(): { version: number; buckets: Buckets } {
    let damaged = 0;
    for (let attempt = 0; attempt < PULL_TRIES_MAX; attempt++) {
      const slot = slotOf(Atomics.load(this.#header, NEWEST));
      assert(slot >= 0, 'pull before the first publish');
      const before = Atomics.load(this.#header, sequenceWord(slot));
      if (before % 2 !== 0) continue;
      const version = Atomics.load(this.#header, versionWord(slot));
      const wanted = Atomics.load(this.#header, checksumWord(slot));
      const { buckets, checksum } = this.#copy(slot, version);
      if (Atomics.load(this.#header, sequenceWord(slot)) !== before) continue;
      if (checksum === wanted) return { version, buckets };
      // A processor may order plain reads later than the atomic one that follows: such a copy is just taken again.
      damaged++;
    }
    const why =
      damaged > 0 ? `${damaged} did not match their checksum` : 'all were overtaken by newer versions';
    throw new Error(`assertion failed: of ${PULL_TRIES_MAX} pulls in a row ${why}`);
  }

  #checkRises(version: number, newestSlot: number): void {
    const newest = newestSlot < 0 ? -1 : Atomics.load(this.#header, versionWord(newestSlot));
    const isAgain = version === newest && Atomics.load(this.#header, epochWord(newestSlot)) < this.epoch;
    assert(version > newest || isAgain, `version ${version} after ${newest}`);
  }

  /** The oldest slot; one that a dead publisher left half written only where there is no other: it may not be dead. */
  #slotToWrite(newest: number): number {
    const next = (newest + 1) % SLOTS;
    const other = (newest + 2) % SLOTS;
    const isWhole = (slot: number): boolean => Atomics.load(this.#header, sequenceWord(slot)) % 2 === 0;
    return isWhole(next) || !isWhole(other) ? next : other;
  }

  #copy(slot: number, version: number): { buckets: Buckets; checksum: number } {
    const words = new Int32Array(at(this.shared.slots, slot));
    let offset = 0;
    let checksum = version;
    const buckets = this.shared.layout.bucketElements.map((elements) => {
      const copy = new Int32Array(elements);
      copy.set(words.subarray(offset, offset + elements));
      checksum = mix(checksum, copy);
      offset += elements;
      return new Float32Array(copy.buffer);
    });
    return { buckets, checksum };
  }
}

const packed = (epoch: number, slot: number): number => (epoch << SLOT_BITS) | (slot + 1);
const epochOf = (newest: number): number => newest >> SLOT_BITS;
const slotOf = (newest: number): number => (newest & ((1 << SLOT_BITS) - 1)) - 1;

const sequenceWord = (slot: number): number => 1 + slot * SLOT_WORDS;
const versionWord = (slot: number): number => 2 + slot * SLOT_WORDS;
const checksumWord = (slot: number): number => 3 + slot * SLOT_WORDS;
const epochWord = (slot: number): number => 4 + slot * SLOT_WORDS;

function replacedText(version: number, epoch: number): string {
  return `version ${version} is refused: the publisher of epoch ${epoch} has been replaced`;
}

/** A running 32-bit checksum in which order matters (the multiplier is FNV-1a's prime). */
function mix(start: number, words: Int32Array): number {
  let checksum = start | 0;
  for (const word of words) checksum = Math.imul(checksum ^ word, 0x01000193);
  return checksum;
}
