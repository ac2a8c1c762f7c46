import { assert } from '#src/lib/assert.js';
import type { Buckets, ParamLayout, ParamTensor } from '#src/model/layout.js';
import { Matrix } from './matrix.js';

/** Tensors by name, row-major as `src/model/layout.ts` shapes them. Weights, gradients and moments alike. */
export type Params = Map<string, Float64Array>;

/** One value a tensor, widened to float64; the padding between tensors is left out. */
export function fromBuckets(layout: ParamLayout, buckets: readonly ArrayLike<number>[]): Params {
  return mapTensors(layout, (tensor) => {
    const bucket = buckets[tensor.bucket];
    assert(bucket !== undefined, `no bucket ${tensor.bucket} for ${tensor.name}`);
    return Float64Array.from({ length: tensor.rows * tensor.columns }, (_, index) => {
      const value = bucket[tensor.offset + index];
      assert(value !== undefined, `bucket ${tensor.bucket} ends inside ${tensor.name}`);
      return value;
    });
  });
}

/** The tensors rounded to float32 in their buckets, zeros between them. */
export function toBuckets(layout: ParamLayout, params: Params): Buckets {
  const buckets = layout.bucketElements.map((elements) => new Float32Array(elements));
  for (const tensor of layout.tensors) {
    buckets[tensor.bucket]?.set(values(params, tensor.name, tensor.rows * tensor.columns), tensor.offset);
  }
  return buckets;
}

export function zeroParams(layout: ParamLayout): Params {
  return mapTensors(layout, ({ rows, columns }) => new Float64Array(rows * columns));
}

/** A tensor as a matrix over the same memory. */
export function tensorMatrix(params: Params, name: string, rows: number, columns: number): Matrix {
  return new Matrix(rows, columns, values(params, name, rows * columns));
}

/** The elements of a tensor, which must have exactly that many. */
export function values(params: Params, name: string, elements: number): Float64Array {
  const tensor = params.get(name);
  assert(tensor?.length === elements, `${name} has ${tensor?.length} elements, expected ${elements}`);
  return tensor;
}

/** Adds `change` to `target` in place, tensor by tensor: how gradients of several sequences come together. */
export function accumulate(target: Params, change: Params): void {
  assert(target.size === change.size, 'two sets of parameters differ in their tensors');
  for (const [name, elements] of target) {
    values(change, name, elements.length).forEach(
      (value, index) => (elements[index] = (elements[index] ?? 0) + value),
    );
  }
}

function mapTensors(layout: ParamLayout, make: (tensor: ParamTensor) => Float64Array): Params {
  return new Map(layout.tensors.map((tensor) => [tensor.name, make(tensor)]));
}
