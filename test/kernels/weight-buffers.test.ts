import { expect, it } from 'vitest';
import type { CopyOp } from '#src/gpu/ops.js';
import { readBuffer, runProgram } from '#src/gpu/slice-encoder.js';
import { clearChunks, copyChunks } from '#src/kernels/transfers.js';
import { WeightBuffers } from '#src/kernels/weight-buffers.js';
import { Random } from '#src/lib/prng.js';
import { findTensor, paramLayout, tensorView } from '#src/model/layout.js';
import { expectSameBits } from '../helpers/arrays.js';
import { readF32, useGpu } from '../helpers/gpu.js';
import { awkwardConfig, randomParams } from '../oracle/fixtures.js';
import { toBuckets } from '../oracle/params.js';

const device = useGpu();
const CHUNK_BYTES = 4 * 2 ** 20;

it.each([1, 2])('uploads every bucket and copies it on the device (seed %i)', async (seed) => {
  const { gpu } = device;
  const random = new Random(seed);
  const config = awkwardConfig(random, seed === 1);
  // A small limit, so that the tensors spread over several buckets.
  const layout = paramLayout(config, 4096);
  expect(layout.bucketElements.length).toBeGreaterThan(1);
  const buckets = toBuckets(layout, randomParams(config, random));
  const before = gpu.bytesAllocated;
  const first = new WeightBuffers(gpu, layout, 'first');
  const second = new WeightBuffers(gpu, layout, 'second');
  expect(gpu.bytesAllocated - before).toBe(first.bytes + second.bytes);
  await runProgram(gpu, first.upload(buckets));
  await runProgram(gpu, second.copyFrom(first));
  for (const { name } of layout.tensors) {
    const { buffer, offset, bytes } = second.slice(name);
    expect(offset % 256, name).toBe(0);
    const after = new Float32Array(await readBuffer(gpu, buffer, offset, bytes));
    expectSameBits(after, tensorView(buckets, findTensor(layout, name)).slice(), `seed ${seed}: ${name}`);
  }
  first.destroy();
  second.destroy();
  expect(gpu.bytesAllocated).toBe(before);
});

it('writes, copies and clears a bucket larger than a chunk in several ops, all of it', async () => {
  const { gpu } = device;
  const elements = (2 * CHUNK_BYTES) / 4 + 64;
  const layout = { tensors: [], bucketElements: [elements] };
  const data = Float32Array.from({ length: elements }, (_, index) => index);
  const weights = new WeightBuffers(gpu, layout, 'large');
  const writes = [...weights.upload([data])];
  expect(writes.map(({ data: part }) => part.byteLength)).toEqual([CHUNK_BYTES, CHUNK_BYTES, 256]);
  await runProgram(gpu, writes);
  const target = gpu.createStorage('target', elements * 4);
  const [source] = weights.buckets;
  const copies: CopyOp[] = source === undefined ? [] : [...copyChunks(source, target, elements * 4)];
  expect(copies).toHaveLength(3);
  await runProgram(gpu, copies);
  expectSameBits(await readF32(gpu, target, elements), data, 'copied');
  const clears = [...clearChunks(target, elements * 4 - 256)];
  expect(clears.map(({ bytes }) => bytes)).toEqual([CHUNK_BYTES, CHUNK_BYTES]);
  await runProgram(gpu, clears);
  const cleared = await readF32(gpu, target, elements);
  expect(cleared.slice(0, -64).every((value) => value === 0)).toBe(true);
  expectSameBits(cleared.slice(-64), data.slice(-64), 'past what was cleared');
  gpu.destroyBuffer(target);
  weights.destroy();
});

it('stops when the data is of another layout', () => {
  const { gpu } = device;
  const weights = new WeightBuffers(gpu, { tensors: [], bucketElements: [64, 64] }, 'two');
  expect(() => [...weights.upload([new Float32Array(64)])]).toThrow('1 buckets for 2');
  weights.destroy();
});
