import { once } from 'node:events';
import { Worker } from 'node:worker_threads';
import { describe, expect, it } from 'vitest';
import { at } from '#src/lib/assert.js';
import { Random } from '#src/lib/prng.js';
import type { Buckets, ParamLayout } from '#src/model/layout.js';
import { WeightStore } from '#src/weights/store.js';
import { seeds } from '../helpers/seeds.js';

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

/** Publishes a version and dies after the first of its two buckets. */
function dieMidway(store: WeightStore, shape: ParamLayout, version: number): void {
  const death = (): void => {
    throw new Error('dead');
  };
  expect(() => store.publish(version, filled(shape, version), death)).toThrow('dead');
}

describe('WeightStore when its publisher dies', () => {
  const shape = layout(64, 64);

  it('shows nothing of a version half written, and takes the next as if nothing had been', () => {
    const host = WeightStore.create(shape);
    host.publish(0, filled(shape, 0));
    // More deaths than slots: each is left half written at least once.
    for (let epoch = 1; epoch <= 7; epoch++) {
      host.claim(epoch);
      const publisher = WeightStore.attach(host.shared, epoch);
      dieMidway(publisher, shape, epoch);
      expect(host.newestVersion).toBe(epoch - 1);
      expect(host.pull()).toEqual({ version: epoch - 1, buckets: filled(shape, epoch - 1) });
      host.claim(epoch);
      publisher.publish(epoch, filled(shape, epoch));
      expect(host.pull()).toEqual({ version: epoch, buckets: filled(shape, epoch) });
    }
  });

  it('finds room when both slots beside the newest are left half written', () => {
    const host = WeightStore.create(shape);
    host.publish(0, filled(shape, 0));
    dieMidway(host, shape, 1);
    dieMidway(host, shape, 1);
    expect(host.pull()).toEqual({ version: 0, buckets: filled(shape, 0) });
    host.publish(1, filled(shape, 1));
    host.publish(2, filled(shape, 2));
    expect(host.pull()).toEqual({ version: 2, buckets: filled(shape, 2) });
  });

  it('refuses one that was replaced in the middle of a version, and one that comes late', () => {
    const host = WeightStore.create(shape);
    host.publish(0, filled(shape, 0));
    const late = WeightStore.attach(host.shared, 0);
    let parts = 0;
    const replaced = (): void => {
      if (++parts > 1) return;
      host.claim(1);
      WeightStore.attach(host.shared, 1).publish(1, filled(shape, 10));
    };
    expect(() => late.publish(1, filled(shape, 1), replaced)).toThrow('epoch 0 has been replaced');
    expect(host.pull()).toEqual({ version: 1, buckets: filled(shape, 10) });
    expect(() => late.publish(2, filled(shape, 2))).toThrow('epoch 0 has been replaced');
    expect(() => host.claim(0)).toThrow('epoch 0 claims what 1 has');
  });

  it('lets a successor publish again what the one before it did, and nobody else', () => {
    const host = WeightStore.create(shape);
    host.publish(3, filled(shape, 3));
    host.claim(1);
    const successor = WeightStore.attach(host.shared, 1);
    expect(() => successor.publish(2, filled(shape, 2))).toThrow('version 2 after 3');
    successor.publish(3, filled(shape, 3));
    expect(() => successor.publish(3, filled(shape, 3))).toThrow('version 3 after 3');
    expect(host.pull()).toEqual({ version: 3, buckets: filled(shape, 3) });
  });

  for (const seed of seeds()) {
    it(`is never torn while publishers die and others pull without rest (seed ${seed})`, async () => {
      const random = new Random(1102 + seed);
      const large = layout(2048, 4096, 64);
      const host = WeightStore.create(large);
      const stop = new SharedArrayBuffer(4);
      const readers = [1, 2].map(async () => {
        const workerData = { role: 'reader', shared: host.shared, stop, distinctWanted: Infinity };
        const [told] = (await once(
          new Worker(new URL('./thread.mjs', import.meta.url), { workerData }),
          'message',
        )) as [Report];
        return told;
      });
      for (let epoch = 0; epoch < 10; epoch++) {
        host.claim(epoch);
        const workerData = { shared: host.shared, epoch, parts: random.int(4, 40) };
        const before = host.newestVersion;
        await once(new Worker(new URL('./mortal-publisher.mjs', import.meta.url), { workerData }), 'exit');
        // It began with the version before, and each takes three parts.
        const whole = Math.floor((workerData.parts - 1) / 3);
        expect(host.newestVersion, `seed ${seed}, epoch ${epoch}`).toBe(Math.max(0, before) + whole - 1);
        expect(host.pull().version).toBe(host.newestVersion);
      }
      Atomics.store(new Int32Array(stop), 0, 1);
      for (const { problems, distinct } of await Promise.all(readers)) {
        expect(problems).toEqual([]);
        expect(distinct).toBeGreaterThan(0);
      }
    });
  }
});
