import { describe, expect, it } from 'vitest';
import { openGpu } from '#src/gpu/device.js';
import type { CopyOp, DispatchOp, Op, WriteOp } from '#src/gpu/ops.js';
import { readBuffer, runProgram, SliceEncoder } from '#src/gpu/slice-encoder.js';
import { readF32, upload, useGpu } from '../helpers/gpu.js';

const device = useGpu();

function floats(...values: number[]): Float32Array<ArrayBuffer> {
  return Float32Array.from(values);
}

/** One row of rmsnorm with one element: its output is ± the gain, which makes effects easy to see. */
function signOf(x: GPUBuffer, y: GPUBuffer): DispatchOp {
  const { gpu, kernels } = device;
  const kernel = kernels.bind(
    'rmsnorm_row',
    { overrides: { GATHER: 0 }, prelude: { LANES: 8 } },
    {
      x,
      gain: upload(gpu, floats(1)),
      row_index: gpu.createStorage('rows', 4),
      y,
      scale: gpu.createStorage('s', 4),
    },
  );
  return kernel.dispatch({ hidden: 1, eps: 0, row_start: 0, row_end: 1 }, [1, 1, 1], 1);
}

function copy(source: GPUBuffer, target: GPUBuffer, elements = 1): CopyOp {
  return { kind: 'copy', source, sourceOffset: 0, target, targetOffset: 0, bytes: elements * 4 };
}

function write(target: GPUBuffer, ...values: number[]): WriteOp {
  return { kind: 'write', target, offset: 0, data: floats(...values) };
}

describe('SliceEncoder', () => {
  it('takes host writes at the start of a slice only', () => {
    const { gpu } = device;
    const [a, b] = [upload(gpu, floats(1)), upload(gpu, floats(2))];
    const encoder = new SliceEncoder(gpu);
    expect(encoder.accepts(write(a, 3))).toBe(true);
    encoder.add(write(a, 3));
    encoder.add({ kind: 'submitted', call: () => undefined });
    expect(encoder.accepts(write(b, 4))).toBe(true);
    encoder.add(copy(a, b));
    expect(encoder.accepts(write(b, 4))).toBe(false);
    expect(() => encoder.add(write(b, 4))).toThrow('a host write cannot follow commands');
    expect(encoder.accepts(copy(b, a))).toBe(true);
    expect(encoder.commands).toBe(1);
    encoder.submit();
  });

  it('refuses a host write from shared memory, which would crash the process', () => {
    const { gpu } = device;
    const shared = new Float32Array(new SharedArrayBuffer(4));
    const target = gpu.createStorage('target', 4);
    // @ts-expect-error The type of a write forbids it; what came through a message may have lost its type.
    const op: Op = { kind: 'write', target, offset: 0, data: shared };
    expect(() => new SliceEncoder(gpu).add(op)).toThrow('shared memory');
  });

  it('keeps the order of copies, clears and dispatches', async () => {
    const { gpu } = device;
    const [x, y, z] = [upload(gpu, floats(-3)), upload(gpu, floats(0)), upload(gpu, floats(0))];
    const [before, after, cleared] = [
      upload(gpu, floats(9)),
      upload(gpu, floats(9)),
      upload(gpu, floats(9, 9)),
    ];
    const encoder = new SliceEncoder(gpu);
    encoder.add(copy(y, before));
    encoder.add(signOf(x, y));
    encoder.add(copy(y, after));
    encoder.add(signOf(y, z));
    encoder.add({ kind: 'clear', target: y, offset: 0, bytes: 4 });
    encoder.add({ kind: 'clear', target: cleared, offset: 4, bytes: 4 });
    expect(encoder.commands).toBe(6);
    encoder.submit();
    const read = async (buffer: GPUBuffer) => [...(await readF32(gpu, buffer, 1))];
    expect(await read(before)).toEqual([0]);
    expect(await read(after)).toEqual([-1]);
    expect(await read(z)).toEqual([-1]);
    expect(await read(y)).toEqual([0]);
    expect([...(await readF32(gpu, cleared, 2))]).toEqual([9, 0]);
  });

  it('calls back once everything before is submitted, in order, so that a copy can be mapped', async () => {
    const { gpu } = device;
    const staging = gpu.createReadback('staging', 4);
    const calls: string[] = [];
    const maps: Promise<void>[] = [];
    const encoder = new SliceEncoder(gpu);
    encoder.add(copy(upload(gpu, floats(5)), staging));
    encoder.add({
      kind: 'submitted',
      call: () => {
        calls.push('first');
        maps.push(staging.mapAsync(GPUMapMode.READ));
      },
    });
    encoder.add({ kind: 'submitted', call: () => calls.push('second') });
    expect(calls).toEqual([]);
    encoder.submit();
    expect(calls).toEqual(['first', 'second']);
    await Promise.all(maps);
    expect([...new Float32Array(staging.getMappedRange(0, 4))]).toEqual([5]);
    staging.unmap();
    gpu.destroyBuffer(staging);
  });
});

describe('timestamps', () => {
  async function timed(perDispatch: boolean, capacity: number, ops: readonly Op[]) {
    const { gpu } = device;
    const querySet = gpu.device.createQuerySet({ type: 'timestamp', count: capacity });
    const resolved = gpu.createBuffer(
      'timestamps',
      capacity * 8,
      GPUBufferUsage.QUERY_RESOLVE | GPUBufferUsage.COPY_SRC,
    );
    const encoder = new SliceEncoder(gpu, { querySet, perDispatch, capacity });
    for (const op of ops) encoder.add(op);
    const used = encoder.queriesUsed;
    encoder.submit((commands) => commands.resolveQuerySet(querySet, 0, used, resolved, 0));
    const times = new BigUint64Array(await readBuffer(gpu, resolved, 0, used * 8));
    querySet.destroy();
    gpu.destroyBuffer(resolved);
    return [...times];
  }

  it('begin and end every dispatch, and never run backwards', async ({ skip }) => {
    const { gpu } = device;
    if (!gpu.hasTimestamps) skip('the adapter has no timestamps');
    const [x, y] = [upload(gpu, floats(2)), upload(gpu, floats(0))];
    const ops = [signOf(x, y), signOf(y, x), copy(x, y), signOf(x, y), signOf(y, x)];
    const times = await timed(true, 16, ops);
    expect(times).toHaveLength(8);
    expect(times[0]).toBeGreaterThan(0n);
    expect(times).toEqual(times.toSorted((a, b) => Number(a - b)));
  });

  it('are shared by dispatches until a copy when not asked for each', async ({ skip }) => {
    const { gpu } = device;
    if (!gpu.hasTimestamps) skip('the adapter has no timestamps');
    const [x, y] = [upload(gpu, floats(2)), upload(gpu, floats(0))];
    const ops = [signOf(x, y), signOf(y, x), copy(x, y), signOf(x, y)];
    const times = await timed(false, 16, ops);
    expect(times).toHaveLength(4);
    expect(times).toEqual(times.toSorted((a, b) => Number(a - b)));
  });

  it('end where the query set is full, and the dispatches run all the same', async ({ skip }) => {
    const { gpu } = device;
    if (!gpu.hasTimestamps) skip('the adapter has no timestamps');
    const [x, y, z] = [upload(gpu, floats(-2)), upload(gpu, floats(0)), upload(gpu, floats(0))];
    const times = await timed(true, 2, [signOf(x, y), signOf(y, z)]);
    expect(times).toHaveLength(2);
    expect([...(await readF32(gpu, z, 1))]).toEqual([-1]);
  });
});

describe('runProgram', () => {
  it('ends the slice before a host write, so that earlier commands see the old bytes', async () => {
    const { gpu } = device;
    const source = upload(gpu, floats(1));
    const [first, second] = [upload(gpu, floats(0)), upload(gpu, floats(0))];
    const order: string[] = [];
    await runProgram(gpu, [
      copy(source, first),
      { kind: 'submitted', call: () => order.push('copied') },
      write(source, 2),
      copy(source, second),
    ]);
    expect(order).toEqual(['copied']);
    expect([...(await readF32(gpu, first, 1)), ...(await readF32(gpu, second, 1))]).toEqual([1, 2]);
  });

  it('runs a generator to its end, and an empty program too', async () => {
    const { gpu } = device;
    const [source, target] = [upload(gpu, floats(7)), upload(gpu, floats(0))];
    await runProgram(
      gpu,
      (function* () {
        yield copy(source, target);
      })(),
    );
    expect([...(await readF32(gpu, target, 1))]).toEqual([7]);
    await runProgram(gpu, []);
  });

  it('fails when the device refuses a command', async () => {
    const gpu = await openGpu();
    const small = gpu.createStorage('small', 16);
    const other = gpu.createStorage('other', 16);
    await expect(runProgram(gpu, [copy(small, other, 100)])).rejects.toThrow('the device refused a command');
    gpu.close();
  });
});

it('readBuffer reads a part of a buffer, without keeping anything of it on the device', async () => {
  const { gpu } = device;
  const buffer = upload(gpu, floats(1, 2, 3, 4, 5));
  const bytes = gpu.bytesAllocated;
  expect([...new Float32Array(await readBuffer(gpu, buffer, 4, 12))]).toEqual([2, 3, 4]);
  expect([...new Float32Array(await readBuffer(gpu, buffer))]).toEqual([1, 2, 3, 4, 5]);
  expect(gpu.bytesAllocated).toBe(bytes);
});
