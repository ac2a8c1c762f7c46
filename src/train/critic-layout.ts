import { VALUE_BIAS, VALUE_WEIGHT } from '../kernels/value-head.js';
import { assert } from '../lib/assert.js';
import type { ModelConfig } from '../model/config.js';
import {
  findTensor,
  type Buckets,
  type ParamLayout,
  paramLayout,
  tensorView,
  zeroBuckets,
} from '../model/layout.js';

/** Bindings start at multiples of 256 bytes. */
const ALIGN_ELEMENTS = 64;

/**
 * How a critic's parameters lie in flat buckets: the policy's layers without an output head of their own, then the
 * value head.
 *
 * @throws UserError when one tensor alone is larger than a bucket may be.
 */
export function criticLayout(config: ModelConfig, bucketBytesMax: number): ParamLayout {
  // Tied embeddings are those that bring no head along.
  const layers = paramLayout({ ...config, tieWordEmbeddings: true }, bucketBytesMax);
  const tensors = [...layers.tensors];
  const bucketElements = [...layers.bucketElements];
  const elementsMax = Math.floor(bucketBytesMax / 4);
  for (const [name, columns, decay] of [
    [VALUE_WEIGHT, config.hiddenSize, true],
    [VALUE_BIAS, 1, false],
  ] as const) {
    const elements = Math.ceil(columns / ALIGN_ELEMENTS) * ALIGN_ELEMENTS;
    if ((bucketElements.at(-1) ?? 0) + elements > elementsMax) bucketElements.push(0);
    const bucket = bucketElements.length - 1;
    const offset = bucketElements[bucket] ?? 0;
    tensors.push({ name, rows: 1, columns, decay, bucket, offset });
    bucketElements[bucket] = offset + elements;
  }
  return { tensors, bucketElements };
}

/** A policy's weights as a critic begins with them: the same layers under a value head of zeros. */
export function criticWeights(layout: ParamLayout, policyLayout: ParamLayout, policy: Buckets): Buckets {
  const weights = zeroBuckets(layout);
  for (const tensor of layout.tensors) {
    if (tensor.name === VALUE_WEIGHT || tensor.name === VALUE_BIAS) continue;
    const source = findTensor(policyLayout, tensor.name);
    assert(source.rows === tensor.rows && source.columns === tensor.columns, `${tensor.name}: shapes differ`);
    tensorView(weights, tensor).set(tensorView(policy, source));
  }
  return weights;
}
