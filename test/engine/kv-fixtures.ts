import type { KvOnPreempt } from '#src/engine/engine.js';
import type { EngineOptions } from '#src/engine/webgpu-engine.js';
import type { Program } from '#src/gpu/ops.js';
import { SliceEncoder, submitProgram } from '#src/gpu/slice-encoder.js';
import { kvBlockBytes } from '#src/kernels/kv-cache.js';
import { assert } from '#src/lib/assert.js';
import { Random } from '#src/lib/prng.js';

import type { TestGpu } from '../helpers/gpu.js';
import { awkwardModel } from '../train/fixtures.js';
import { randomRequests, type Submit, TestEngine } from './fixtures.js';

export const SEED = 840;
export const model = awkwardModel(new Random(SEED), true);
export const HELD: KvOnPreempt = { kind: 'held' };
export const SPILLED: KvOnPreempt = { kind: 'spilled' };
export const DROPPED: KvOnPreempt = { kind: 'dropped' };
/** Bytes of a block in all layers. */
export const BLOCK_BYTES = 2 * model.config.layers * kvBlockBytes(model.config);

/** Four that run together to their full length; their prompts of 5 to 8 tokens lie in one block each. */
export const FOUR = randomRequests(new Random(SEED + 2), model, 4).map((each, i) => ({
  ...each,
  id: i + 1,
  promptTokenIds: Array.from({ length: 5 + i }, (_, position) => (7 * i + 3 * position) % 30),
  tokensMax: 24,
  stopTokenIds: [],
}));

/** Every op a submit of its own. */
export const opByOp: Submit = (gpu, program) => {
  for (const op of program) {
    const encoder = new SliceEncoder(gpu);
    encoder.add(op);
    encoder.submit();
  }
};

/** The four after so many steps, whose results are in unless `ahead` says otherwise. */
export async function startFour(
  device: TestGpu,
  steps: number,
  options: Partial<EngineOptions> = {},
  ahead = false,
): Promise<TestEngine> {
  const test = await TestEngine.load(device, model, options);
  test.add(FOUR);
  if (!ahead) await test.run((step) => step < steps);
  else for (let step = 0; step < steps; step++) submitNext(device, test);
  return test;
}

export function submitNext({ gpu }: TestGpu, { engine }: TestEngine): void {
  const step = engine.nextStep();
  assert(step !== null, 'no step');
  submitProgram(gpu, step);
}

/** The program's first op, submitted; what is left of it stays undone. */
export function submitFirst({ gpu }: TestGpu, program: Program): void {
  const { value } = program.next();
  assert(value !== undefined, 'an empty program');
  submitProgram(gpu, [value]);
}
