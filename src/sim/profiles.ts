import { UserError } from '../lib/errors.js';
import type { CostModel } from './cost-model.js';

/** As lanes.slice_budget_us by default. */
const SLICE_MS = 4;

/**
 * The software adapter on 2 cores with the shipped model (448 kB of weights). Decode: least squares over the device
 * times of bench/results/decode-llvmpipe.json at 1, 8, 32 and 128 rows. Training: 3,712 tokens in 0.8 s of a run of
 * the shipped example, and 14.1 ms for 32 tokens alone; scoring is taken as a third, the forward of a step's three passes.
 * Yield and resume: bench/results/preempt-quick-llvmpipe.json, held, 1 ms slices, 2 ms in flight. Publishing: 5 ms a
 * version. What waking, sleeping and `init` take was not measured; a calibrated model has a run's own.
 */
const llvmpipe: CostModel = {
  name: 'llvmpipe-2-cores',
  source: 'measured on Mesa llvmpipe, 2 cores, arithmetic-tiny; waking and init are estimates',
  modelBytes: 448_256,
  decode: { stepMs: 2.5, rowMs: 0.12, prefillRowMs: 0.1, batchRows: 512 },
  sliceMs: SLICE_MS,
  train: { ms: 7.4, msPerUnit: 0.21 },
  score: { ms: 2.5, msPerUnit: 0.07 },
  init: { ms: 300, msPerUnit: 1e-5 },
  wake: { ms: 200, msPerUnit: 1e-5 },
  sleep: { ms: 5, msPerUnit: 0 },
  pull: { ms: 1, msPerUnit: 1.1e-5 },
  publish: { ms: 0, msPerUnit: 1.1e-5 },
  yieldMs: { kind: 'lognormal', median: 2.06, sigma: 0.285, max: 4 },
  resumeMs: 3.7,
};

/** Round numbers of the size one data-centre GPU has with a model of 8 billion parameters. Measured nowhere. */
const gpu: CostModel = {
  name: 'gpu',
  source: 'hypothetical: round numbers for one large GPU and 8 billion parameters, measured nowhere',
  modelBytes: 16e9,
  decode: { stepMs: 14, rowMs: 0.05, prefillRowMs: 0.04, batchRows: 8192 },
  sliceMs: SLICE_MS,
  train: { ms: 500, msPerUnit: 0.25 },
  score: { ms: 100, msPerUnit: 0.08 },
  init: { ms: 30_000, msPerUnit: 5e-7 },
  wake: { ms: 1000, msPerUnit: 5e-8 },
  sleep: { ms: 500, msPerUnit: 0 },
  pull: { ms: 100, msPerUnit: 1e-7 },
  publish: { ms: 100, msPerUnit: 1e-7 },
  yieldMs: { kind: 'uniform', low: 5, high: 30 },
  resumeMs: 20,
};

export const PROFILES: ReadonlyMap<string, CostModel> = new Map(
  [llvmpipe, gpu].map((own) => [own.name, own]),
);

/** @throws UserError when there is none of that name. */
export function profileNamed(name: string): CostModel {
  const profile = PROFILES.get(name);
  if (profile === undefined) {
    throw new UserError(`no cost profile is named "${name}": use one of ${[...PROFILES.keys()].join(', ')}`);
  }
  return profile;
}
