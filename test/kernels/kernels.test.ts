import { describe, expect, it } from 'vitest';
import type { Buffers } from '#src/kernels/kernels.js';
import { upload, useGpu } from '../helpers/gpu.js';

const device = useGpu({ backend: 'null' });
const PLAIN = { overrides: {}, prelude: {} } as const;
const MATMUL_PARAMS = {
  rows: 1,
  inner: 1,
  columns: 1,
  x_start: 0,
  y_start: 0,
  column_start: 0,
  column_end: 1,
  inner_start: 0,
  inner_end: 1,
};

function siluBuffers(): Buffers<'silu_gate'> {
  const { gpu } = device;
  return { gate_up: gpu.createStorage('gate and up', 64), y: gpu.createStorage('y', 64) };
}

describe('Kernels', () => {
  it('compiles each variant once', () => {
    const { kernels, gpu } = device;
    const x = gpu.createStorage('x', 64);
    const bind = (HAS_RESIDUAL: number) =>
      kernels.bind(
        'matmul_nn',
        { overrides: { HAS_RESIDUAL }, prelude: { TILE_ROWS: 4 } },
        { x, w: x, residual: x, y: gpu.createStorage('y', 64) },
      );
    const op = (HAS_RESIDUAL: number) => bind(HAS_RESIDUAL).dispatch(MATMUL_PARAMS, [1, 1, 1], 1);
    expect(op(0).pipeline).toBe(op(0).pipeline);
    expect(op(0).bindGroup).not.toBe(op(0).bindGroup);
    expect(op(1).pipeline).not.toBe(op(0).pipeline);
    expect([op(0).kernel, op(1).kernel]).toEqual([
      'matmul_nn(HAS_RESIDUAL=0,TILE_ROWS=4)',
      'matmul_nn(HAS_RESIDUAL=1,TILE_ROWS=4)',
    ]);
  });

  it('stops at a buffer or a constant that is missing', () => {
    const { kernels, gpu } = device;
    const y = gpu.createStorage('y', 64);
    // @ts-expect-error A missing buffer does not compile; plain JavaScript would get this far.
    expect(() => kernels.bind('silu_gate', PLAIN, { y })).toThrow('silu_gate: no buffer for gate_up');
    // @ts-expect-error Likewise a missing constant.
    expect(() => kernels.bind('rope_grad', PLAIN, { rows: y, angles: y, dqkv: y })).toThrow(
      'no value for prelude constant HEAD_DIM',
    );
  });

  it('binds a part of a buffer', () => {
    const { kernels, gpu } = device;
    const buffer = gpu.createStorage('all', 1024);
    const slice = { buffer, offset: 256, bytes: 64 };
    kernels.bind('silu_gate', PLAIN, { gate_up: slice, y: gpu.createStorage('y', 64) });
    gpu.assertHealthy();
  });
});

describe('a dispatch', () => {
  it('carries its params as the shader reads them, floats and whole numbers', () => {
    const { kernels, gpu } = device;
    const x = upload(gpu, new Float32Array(16));
    const kernel = kernels.bind(
      'rmsnorm_row',
      { overrides: {}, prelude: { LANES: 8 } },
      { x, gain: x, row_index: x, y: gpu.createStorage('y', 64), scale: gpu.createStorage('scale', 64) },
    );
    const op = kernel.dispatch({ row_start: 3, row_end: 5, hidden: 7, eps: 0.5 }, [2, 3, 4], 99);
    expect([...op.immediates]).toEqual([7, 0x3f000000, 3, 5]);
    expect(op).toMatchObject({ kind: 'dispatch', grid: [2, 3, 4], work: 99 });
  });

  it('stops at params and grids that cannot be meant', () => {
    const kernel = device.kernels.bind('silu_gate', PLAIN, siluBuffers());
    const params = { inner: 1, row_start: 0 };
    expect(() => kernel.dispatch({ ...params, row_start: NaN }, [1, 1, 1], 1)).toThrow(
      'silu_gate: param row_start is NaN',
    );
    expect(() => kernel.dispatch({ ...params, inner: Infinity }, [1, 1, 1], 1)).toThrow(
      'param inner is Infinity',
    );
    expect(() => kernel.dispatch(params, [0, 1, 1], 1)).toThrow('silu_gate: grid 0×1×1');
    expect(() => kernel.dispatch(params, [1, 1.5, 1], 1)).toThrow('grid 1×1.5×1');
    expect(() => kernel.dispatch(params, [1, 65_536, 1], 1)).toThrow('grid 1×65536×1');
  });
});
