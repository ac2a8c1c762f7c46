import { once } from 'node:events';
import { Worker } from 'node:worker_threads';
import { describe, expect, it } from 'vitest';
import { at } from '#src/lib/assert.js';
import { Random } from '#src/lib/prng.js';
import type { Buckets, ParamLayout } from '#src/model/layout.js';
import { WeightStore } from '#src/weights/store.js';

/** Versions each reader must have pulled before the fire ends. */
const DISTINCT_WANTED = 60;
const layout = (...bucketElements: number[]): ParamLayout => ({ tensors: [], bucketElements });

function filled({ bucketElements }: ParamLayout, value: number): Buckets {
  return bucketElements.map((elements) => new Float32Array(elements).fill(value));
}

interface Report {
  readonly role: 'publisher' | 'reader';
  readonly newest: number;
  readonly distinct: number;
  readonly problems: readonly string[];
}

describe('WeightStore', () => {
  it('gives back the newest version, bit for bit, in private memory', () => {
    const random = new Random(1100);
    const shape = layout(64, 128, 64);
    const store = WeightStore.create(shape);
    expect(store.newestVersion).toBe(-1);
    expect(() => store.pull()).toThrow('before the first publish');
    expect(store.bytes).toBe(1024);
    for (const version of [0, 1, 2, 5, 9]) {
      const buckets = shape.bucketElements.map((elements) =>
        Float32Array.from({ length: elements }, () => random.pick([random.normal(), -0, NaN, Infinity])),
      );
      store.publish(version, buckets);
      const reader = WeightStore.attach(structuredClone(store.shared));
      expect(reader.newestVersion).toBe(version);
      const pulled = reader.pull();
      expect(pulled.version).toBe(version);
      pulled.buckets.forEach((bucket, i) => {
        expect(bucket.buffer).toBeInstanceOf(ArrayBuffer);
        expect(new Uint8Array(bucket.buffer)).toEqual(new Uint8Array(at(buckets, i).buffer));
      });
    }
  });

  it('takes buckets that are part of a larger buffer', () => {
    const store = WeightStore.create(layout(64));
    const large = Float32Array.from({ length: 256 }, (_, i) => i);
    store.publish(0, [large.subarray(64, 128)]);
    expect([...at(store.pull().buckets, 0)]).toEqual([...large.subarray(64, 128)]);
  });

  it('takes rising versions of the right size only, and is none the worse for having refused one', () => {
    const shape = layout(64, 64);
    const store = WeightStore.create(shape);
    store.publish(4, filled(shape, 4));
    expect(() => store.publish(4, filled(shape, 5))).toThrow('version 4 after 4');
    expect(() => store.publish(3, filled(shape, 5))).toThrow('version 3 after 4');
    expect(() => store.publish(5, filled(layout(64), 5))).toThrow('64 elements published, 128 expected');
    expect(() => store.publish(5, filled(layout(64, 128), 5))).toThrow('192 elements published');
    expect(store.pull()).toEqual({ version: 4, buckets: filled(shape, 4) });
    store.publish(5, filled(shape, 6));
    expect(store.pull()).toEqual({ version: 5, buckets: filled(shape, 6) });
  });

  it('notices a slot that is damaged, wherever it is', () => {
    const random = new Random(1101);
    const shape = layout(64, 192);
    for (let round = 0; round < 40; round++) {
      const store = WeightStore.create(shape);
      for (let version = 0; version <= round % 5; version++) store.publish(version, filled(shape, version));
      const slot = at(store.shared.slots, (round % 5) % store.shared.slots.length);
      const words = new Uint32Array(slot);
      const index = random.int(0, words.length - 1);
      words[index] = (at(words, index) ^ (1 << random.int(0, 31))) >>> 0;
      expect(() => store.pull(), `seed 1101, round ${round}`).toThrow('did not match their checksum');
    }
  });

  it('is never torn, and versions only rise, while one thread publishes and others pull without rest', async () => {
    const store = WeightStore.create(layout(4096, 8192, 64));
    const stop = new SharedArrayBuffer(4);
    const report = async (role: Report['role'], distinctWanted: number): Promise<Report> => {
      const workerData = { role, shared: store.shared, stop, distinctWanted };
      const worker = new Worker(new URL('./thread.mjs', import.meta.url), { workerData });
      const [told] = (await once(worker, 'message')) as [Report];
      return told;
    };
    const publisher = report('publisher', Infinity);
    const readers = await Promise.all([1, 2].map(() => report('reader', DISTINCT_WANTED)));
    Atomics.store(new Int32Array(stop), 0, 1);
    for (const { problems, distinct, newest } of readers) {
      expect(problems).toEqual([]);
      expect(distinct).toBe(DISTINCT_WANTED);
      expect(newest).toBeLessThanOrEqual((await publisher).newest);
    }
  });
});
