import { assert, at } from '../lib/assert.js';
import type { Buckets, ParamLayout } from '../model/layout.js';

/** Versions held at once: the newest can be read while the next is written, and a slow reader has one to spare. */
const SLOTS = 3;
/** A reader that is overtaken this often in a row is looking at a bug, not at bad luck. */
const PULL_TRIES_MAX = 8;

const NEWEST = 0;
const HEADER_WORDS = 1 + SLOTS * 3;

/** What crosses threads: shared memory and how to read it. */
export interface SharedStore {
  readonly layout: ParamLayout;
  readonly header: SharedArrayBuffer;
  readonly slots: readonly SharedArrayBuffer[];
}

/**
 * Versioned weights in shared memory: one publisher, any number of readers, no locks. A slot's sequence number is
 * odd while it is written (a seqlock); a checksum over the contents is stored with the version, so a torn or stale
 * slot is never taken for a version. Readers take the newest version only: those in between are never copied.
 */
export class WeightStore {
  readonly #header: Int32Array;

  private constructor(readonly shared: SharedStore) {
    this.#header = new Int32Array(shared.header);
  }

  static create(layout: ParamLayout): WeightStore {
    const bytes = layout.bucketElements.reduce((sum, elements) => sum + elements * 4, 0);
    const header = new SharedArrayBuffer(HEADER_WORDS * 4);
    new Int32Array(header)[NEWEST] = -1;
    return new WeightStore({
      layout,
      header,
      slots: Array.from({ length: SLOTS }, () => new SharedArrayBuffer(bytes)),
    });
  }

  static attach(shared: SharedStore): WeightStore {
    return new WeightStore(shared);
  }

  /** Bytes of one version. */
  get bytes(): number {
    return at(this.shared.slots, 0).byteLength;
  }

  /** The newest version that can be pulled; −1 before the first. */
  get newestVersion(): number {
    const slot = Atomics.load(this.#header, NEWEST);
    return slot < 0 ? -1 : Atomics.load(this.#header, versionWord(slot));
  }

  /** Makes `version` the newest. Versions only rise; one thread publishes. */
  publish(version: number, buckets: Buckets): void {
    assert(version > this.newestVersion, `version ${version} after ${this.newestVersion}`);
    const elements = buckets.reduce((sum, bucket) => sum + bucket.length, 0);
    assert(elements * 4 === this.bytes, `${elements} elements published, ${this.bytes / 4} expected`);
    const slot = (Atomics.load(this.#header, NEWEST) + 1) % SLOTS;
    Atomics.add(this.#header, sequenceWord(slot), 1);
    const words = new Int32Array(at(this.shared.slots, slot));
    let offset = 0;
    let checksum = version;
    for (const bucket of buckets) {
      const source = new Int32Array(bucket.buffer, bucket.byteOffset, bucket.length);
      words.set(source, offset);
      checksum = mix(checksum, source);
      offset += source.length;
    }
    Atomics.store(this.#header, versionWord(slot), version);
    Atomics.store(this.#header, checksumWord(slot), checksum);
    Atomics.add(this.#header, sequenceWord(slot), 1);
    Atomics.store(this.#header, NEWEST, slot);
  }

  /**
   * A private copy of the newest version (device uploads must not read shared memory).
   *
   * @throws Error when no try in a row gave a whole version: the memory is damaged, or the publisher never rests.
   */
  pull(): { version: number; buckets: Buckets } {
    let damaged = 0;
    for (let attempt = 0; attempt < PULL_TRIES_MAX; attempt++) {
      const slot = Atomics.load(this.#header, NEWEST);
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

const sequenceWord = (slot: number): number => 1 + slot * 3;
const versionWord = (slot: number): number => 2 + slot * 3;
const checksumWord = (slot: number): number => 3 + slot * 3;

/** A running 32-bit checksum in which order matters (the multiplier is FNV-1a's prime). */
function mix(start: number, words: Int32Array): number {
  let checksum = start | 0;
  for (const word of words) checksum = Math.imul(checksum ^ word, 0x01000193);
  return checksum;
}
