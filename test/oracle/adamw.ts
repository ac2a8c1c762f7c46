import { assert } from '#src/lib/assert.js';
import type { ParamTensor } from '#src/model/layout.js';
import { values, type Params } from './params.js';

export interface AdamwHyper {
  readonly learningRate: number;
  readonly beta1: number;
  readonly beta2: number;
  readonly eps: number;
  readonly weightDecay: number;
  /** Of all gradients together; Infinity leaves them alone. */
  readonly maxGradNorm: number;
}

export interface AdamwState {
  /** Steps taken. */
  readonly step: number;
  readonly firstMoments: Params;
  readonly secondMoments: Params;
}

/** The state before the first step. */
export function initialAdamwState(params: Params): AdamwState {
  const zeros = (): Params =>
    new Map([...params].map(([name, tensor]) => [name, new Float64Array(tensor.length)]));
  return { step: 0, firstMoments: zeros(), secondMoments: zeros() };
}

export interface AdamwResult {
  readonly params: Params;
  readonly state: AdamwState;
  /** Before clipping. */
  readonly gradNorm: number;
}

/**
 * One step of AdamW (Loshchilov and Hutter 2019) with bias correction; decay is decoupled and only where the tensor
 * takes it. Gradients are first scaled by min(1, maxGradNorm / (norm + 1e-6)), as torch's clip_grad_norm_ does.
 * Inputs are left as they are.
 */
export function adamwStep(
  tensors: readonly Pick<ParamTensor, 'name' | 'decay'>[],
  params: Params,
  gradients: Params,
  state: AdamwState,
  hyper: AdamwHyper,
): AdamwResult {
  assert(
    tensors.length === params.size && params.size === gradients.size,
    'adamw: tensors and gradients differ',
  );
  const gradNorm = globalNorm(gradients);
  const scale = Math.min(1, hyper.maxGradNorm / (gradNorm + 1e-6));
  const step = state.step + 1;
  const nextParams: Params = new Map();
  const firstMoments: Params = new Map();
  const secondMoments: Params = new Map();
  for (const { name, decay } of tensors) {
    const elements = params.get(name)?.length ?? 0;
    const gradient = values(gradients, name, elements).map((value) => value * scale);
    const first = blend(values(state.firstMoments, name, elements), gradient, hyper.beta1);
    const squares = gradient.map((value) => value * value);
    const second = blend(values(state.secondMoments, name, elements), squares, hyper.beta2);
    const shrink = decay ? 1 - hyper.learningRate * hyper.weightDecay : 1;
    const updated = values(params, name, elements).map((value, index) => {
      const mean = (first[index] ?? NaN) / (1 - hyper.beta1 ** step);
      const square = (second[index] ?? NaN) / (1 - hyper.beta2 ** step);
      return value * shrink - (hyper.learningRate * mean) / (Math.sqrt(square) + hyper.eps);
    });
    nextParams.set(name, updated);
    firstMoments.set(name, first);
    secondMoments.set(name, second);
  }
  return { params: nextParams, state: { step, firstMoments, secondMoments }, gradNorm };
}

/** The Euclidean length of all tensors laid end to end. */
export function globalNorm(gradients: Params): number {
  let squares = 0;
  for (const gradient of gradients.values()) for (const value of gradient) squares += value * value;
  return Math.sqrt(squares);
}

function blend(old: Float64Array, fresh: Float64Array, keep: number): Float64Array {
  return old.map((value, index) => keep * value + (1 - keep) * (fresh[index] ?? NaN));
}
