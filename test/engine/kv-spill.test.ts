import { describe, expect, it } from 'vitest';
import { KvSpill } from '#src/engine/kv-spill.js';
import type { Op } from '#src/gpu/ops.js';
import { readBuffer, runProgram, submitProgram } from '#src/gpu/slice-encoder.js';
import { BLOCK_TOKENS, KvCache } from '#src/kernels/kv-cache.js';
import { at } from '#src/lib/assert.js';
import { Random } from '#src/lib/prng.js';
import type { ModelConfig } from '#src/model/config.js';
import { shuffled } from '../helpers/arrays.js';
import { useGpu } from '../helpers/gpu.js';
import { awkwardConfig } from '../oracle/fixtures.js';

const device = useGpu();
const MIB = 2 ** 20;
const OP_BYTES_MAX = MIB / 2;

function config(random: Random, change: Partial<ModelConfig> = {}): ModelConfig {
  return { ...awkwardConfig(random, true), ...change };
}

/** A cache full of random words, and what they are: one array for each layer's keys, then values. */
function filled(random: Random, shape: ModelConfig, blocks: number) {
  const kv = new KvCache(device.gpu, shape, blocks, 'test');
  const caches = [...kv.keys, ...kv.values];
  const words = caches.map((cache) => {
    const data = new Uint32Array(cache.size / 4);
    const salt = random.word();
    for (let i = 0; i < data.length; i++) data[i] = Math.imul(i + 1, 2654435761) ^ salt;
    device.gpu.device.queue.writeBuffer(cache, 0, data);
    return data;
  });
  return { kv, caches, words };
}

/** Bytes each op moved, in order. */
interface Moved {
  readonly out: number[];
  readonly back: number[];
}

/** Out and back again. */
async function roundTrip(
  kv: KvCache,
  from: readonly number[],
  to: readonly number[],
  rows: number,
): Promise<Moved> {
  const moved: Moved = { out: [], back: [] };
  const spill = new KvSpill(device.gpu, kv, from, rows);
  const seen = function* (program: Iterable<Op>): Generator<Op, void, void> {
    for (const op of program) {
      if (op.kind === 'copy') moved.out.push(op.bytes);
      if (op.kind === 'write') moved.back.push(op.data.byteLength);
      yield op;
    }
  };
  submitProgram(device.gpu, seen(spill.copyOut()));
  expect(spill.isHere).toBe(false);
  await spill.map();
  expect(spill.isHere).toBe(true);
  // What lies on the device now is of no use to it.
  await runProgram(
    device.gpu,
    [...kv.keys, ...kv.values].map((target) => ({ kind: 'clear', target, offset: 0, bytes: target.size })),
  );
  await runProgram(device.gpu, seen(spill.copyBack(to)));
  spill.destroy();
  return moved;
}

describe('KvSpill', () => {
  it('brings every bit of a sequence back, from any blocks to any others', async () => {
    const before = device.gpu.bytesAllocated;
    for (let seed = 820; seed < 832; seed++) {
      const random = new Random(seed);
      const total = random.int(4, 20);
      const shape = config(random);
      const { kv, caches, words } = filled(random, shape, total);
      const [from, to] = [shuffled(random, total), shuffled(random, total)];
      const count = random.int(1, total);
      const rows = random.int(1, count * BLOCK_TOKENS);
      await roundTrip(kv, from.slice(0, count), to.slice(0, count), rows);
      for (const [i, cache] of caches.entries()) {
        const back = await readBuffer(device.gpu, cache);
        for (let block = 0; block < Math.ceil(rows / BLOCK_TOKENS); block++) {
          const part = (data: ArrayBuffer, index: number): Buffer =>
            Buffer.from(data, index * kv.blockBytes, kv.blockBytes);
          const [is, was] = [part(back, at(to, block)), part(at(words, i).buffer, at(from, block))];
          expect(is.equals(was), `seed ${seed}: cache ${i}, block ${block}`).toBe(true);
        }
      }
      kv.destroy();
    }
    expect(device.gpu.bytesAllocated).toBe(before);
  });

  it('brings back only its beginning when there are fewer blocks to return to', async () => {
    const random = new Random(835);
    const { kv, caches, words } = filled(random, config(random), 6);
    await roundTrip(kv, [5, 0, 3, 1], [2, 4], 4 * BLOCK_TOKENS);
    for (const [i, cache] of caches.entries()) {
      const back = new Uint32Array(await readBuffer(device.gpu, cache));
      const blockOf = (data: Uint32Array, index: number): Uint32Array =>
        data.subarray((index * kv.blockBytes) / 4, ((index + 1) * kv.blockBytes) / 4);
      for (const [to, from] of [
        [2, 5],
        [4, 0],
      ] as const) {
        expect(blockOf(back, to), `cache ${i}, block ${to}`).toEqual(blockOf(at(words, i), from));
      }
      for (const other of [0, 1, 3, 5]) expect(blockOf(back, other).every((word) => word === 0)).toBe(true);
    }
    kv.destroy();
  });

  it('moves no more than the rows need, neighbours together, and at most half a MiB an op', async () => {
    const random = new Random(833);
    const shape = config(random, { layers: 3, kvHeads: 8, headDim: 128 });
    const { kv } = filled(random, shape, 64);
    expect(kv.bytesPerBlock).toBe(6 * 16 * 8 * 128 * 4);
    // 48 blocks of 64 KiB in each of 6 caches: 18 MiB, more than one buffer on the host's side.
    const blocks = Array.from({ length: 50 }, (_, i) => i + 3);
    const { out, back } = await roundTrip(kv, blocks, blocks, 48 * BLOCK_TOKENS - 5);
    expect(out).toEqual(new Array<number>(36).fill(OP_BYTES_MAX));
    expect(back).toEqual(out);
    kv.destroy();
  });

  it('is freed once the device has let go of it, whenever it is released', async () => {
    const random = new Random(834);
    const { kv } = filled(random, config(random), 4);
    const before = device.gpu.bytesAllocated;
    const make = (): KvSpill => new KvSpill(device.gpu, kv, [0, 1, 2], 40);
    const early = make();
    const copies = early.copyOut();
    submitProgram(device.gpu, [at([...copies].slice(0, 1), 0)]);
    early.release();
    expect(early.isFreed).toBe(false);
    await early.map();
    expect(early.isFreed).toBe(true);

    const meanwhile = make();
    submitProgram(device.gpu, meanwhile.copyOut());
    const mapped = meanwhile.map();
    meanwhile.release();
    await mapped;
    expect(meanwhile.isFreed).toBe(true);

    const late = make();
    submitProgram(device.gpu, late.copyOut());
    await late.map();
    expect(() => late.copyOut().next()).not.toThrow();
    late.release();
    expect(late.isFreed).toBe(true);
    expect(device.gpu.bytesAllocated).toBe(before);

    const unread = make();
    expect(() => unread.copyBack([0, 1, 2]).next()).toThrow('leaving');
    unread.destroy();
    unread.destroy();
    expect(device.gpu.bytesAllocated).toBe(before);
    device.gpu.assertHealthy();
    kv.destroy();
  });
});
