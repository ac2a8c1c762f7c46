import { afterAll, beforeAll, expect, it } from 'vitest';
import { openGpu, type Gpu } from '#src/gpu/device.js';
import { Kernels, type Buffers, type ShaderName, type Variant } from '#src/kernels/kernels.js';
import { shaders } from '#src/kernels/shaders.gen.js';
import { assert } from '#src/lib/assert.js';

// Dawn's null backend checks and compiles everything and runs nothing: every shader is tested without a GPU.

const PLAIN = [{ overrides: {}, prelude: {} }] as const;
const LANES = [{ LANES: 8 }, { LANES: 64 }];
const SWITCH = [0, 1];
/** Odd halves, powers of two, and the largest in common use. */
const HEADS = [2, 6, 10, 16, 34, 48, 64, 80, 96, 128, 256].map((HEAD_DIM) => ({
  overrides: {},
  prelude: { HEAD_DIM },
}));
const MATMULS = SWITCH.map((HAS_RESIDUAL) => ({ overrides: { HAS_RESIDUAL }, prelude: { TILE_ROWS: 4 } }));

/** Every combination of overrides and prelude constants the code uses; a shader left out does not compile here. */
const VARIANTS: { readonly [N in ShaderName]: readonly Variant<N>[] } = {
  adamw_update: PLAIN,
  attention_grad_dot: HEADS,
  attention_grad_kv: HEADS,
  attention_grad_q: HEADS,
  attention_paged: HEADS,
  clip_scale: PLAIN,
  embed_rows: PLAIN,
  embed_rows_grad: PLAIN,
  matmul_nn: MATMULS,
  matmul_nt: MATMULS,
  matmul_tn: [{ overrides: {}, prelude: { TILE_ROWS: 4 } }],
  policy_gradient: SWITCH.map((CROSS_ENTROPY) => ({ overrides: { CROSS_ENTROPY }, prelude: {} })),
  rmsnorm_gain_grad: PLAIN,
  rmsnorm_row: LANES.flatMap((prelude) => SWITCH.map((GATHER) => ({ overrides: { GATHER }, prelude }))),
  rmsnorm_row_grad: LANES.flatMap((prelude) =>
    SWITCH.map((HAS_PASSING) => ({ overrides: { HAS_PASSING }, prelude })),
  ),
  rope_grad: HEADS,
  rope_kv_write: HEADS,
  sample_row: LANES.map((prelude) => ({ overrides: {}, prelude })),
  silu_gate: PLAIN,
  silu_gate_grad: PLAIN,
  sum_squares: PLAIN,
  value_loss: PLAIN,
  value_row: LANES.map((prelude) => ({ overrides: {}, prelude })),
  value_row_grad: PLAIN,
  value_weight_grad: PLAIN,
};

/** What every WebGPU adapter has, so that no adapter is turned away for its number of bindings. */
const STORAGE_BUFFERS_MAX = 8;

let gpu: Gpu | null = null;
let kernels: Kernels | null = null;

beforeAll(async () => {
  gpu = await openGpu({ backend: 'null' });
  kernels = new Kernels(gpu);
});

afterAll(() => gpu?.close());

/** The compiler's complaint, or null. */
async function compile<N extends ShaderName>(name: N, variant: Variant<N>): Promise<string | null> {
  assert(gpu !== null && kernels !== null, 'no device');
  const { device } = gpu;
  const buffers: Record<string, GPUBuffer> = {};
  for (const binding of shaders[name].bindings) buffers[binding.name] = gpu.createStorage(binding.name, 4096);
  device.pushErrorScope('validation');
  kernels.bind(name, variant, buffers as Buffers<N>);
  return (await device.popErrorScope())?.message ?? null;
}

async function expectAllCompile<N extends ShaderName>(name: N): Promise<void> {
  for (const variant of VARIANTS[name]) {
    expect(await compile(name, variant), JSON.stringify(variant)).toBeNull();
  }
}

const names = Object.keys(shaders) as ShaderName[];

it.each(names)('%s compiles in all its variants', (name) => expectAllCompile(name));

it.each(names)('%s needs no more bindings and immediates than every adapter has', (name) => {
  const { bindings, params } = shaders[name];
  expect(bindings.length).toBeLessThanOrEqual(STORAGE_BUFFERS_MAX);
  expect(params.length * 4).toBeLessThanOrEqual(64);
});

it('notices a shader that does not compile', async () => {
  // A register tile of no rows is an array of no elements.
  expect(await compile('matmul_nn', { overrides: {}, prelude: { TILE_ROWS: 0 } })).toContain('array');
});
