import { assert } from '../lib/assert.js';
import { UserError } from '../lib/errors.js';
import type { ModelConfig } from './config.js';

/**
 * How all parameters of a model lie in flat float32 buckets. The same layout serves weights, gradients and both
 * optimizer moments, on the device and in the weights store: publishing a version is copying buckets.
 *
 * Matrices are stored input-major ([input, output]), so that neighbouring GPU lanes read neighbouring outputs;
 * query, key and value projections stand side by side in one matrix, and so do gate and up. Embedding and head
 * are stored [vocabulary, hidden].
 */
export interface ParamTensor {
  readonly name: string;
  readonly rows: number;
  readonly columns: number;
  /** Matrices and embeddings take weight decay; norm gains do not. */
  readonly decay: boolean;
  readonly bucket: number;
  /** In float32 elements from the start of the bucket; a multiple of 64, since bindings start at 256 bytes. */
  readonly offset: number;
}

export interface ParamLayout {
  readonly tensors: readonly ParamTensor[];
  /** Length of each bucket in float32 elements. */
  readonly bucketElements: readonly number[];
}

const ALIGN_ELEMENTS = 64;

function shapes(config: ModelConfig): Omit<ParamTensor, 'bucket' | 'offset'>[] {
  const { hiddenSize: hidden, intermediateSize: inner } = config;
  const queryColumns = config.heads * config.headDim;
  const qkvColumns = (config.heads + 2 * config.kvHeads) * config.headDim;
  const matrix = (name: string, rows: number, columns: number) => ({ name, rows, columns, decay: true });
  const norm = (name: string) => ({ name, rows: 1, columns: hidden, decay: false });
  const list = [matrix('embedding', config.vocabSize, hidden)];
  for (let layer = 0; layer < config.layers; layer++) {
    list.push(
      norm(`layer${layer}.attentionNorm`),
      matrix(`layer${layer}.qkv`, hidden, qkvColumns),
      matrix(`layer${layer}.attentionOut`, queryColumns, hidden),
      norm(`layer${layer}.mlpNorm`),
      matrix(`layer${layer}.gateUp`, hidden, 2 * inner),
      matrix(`layer${layer}.down`, inner, hidden),
    );
  }
  list.push(norm('finalNorm'));
  if (!config.tieWordEmbeddings) list.push(matrix('head', config.vocabSize, hidden));
  return list;
}

/**
 * Places every tensor; a bucket never exceeds `bucketBytesMax` (the adapter's storage binding limit).
 *
 * @throws UserError when one tensor alone is larger than a bucket may be.
 */
export function paramLayout(config: ModelConfig, bucketBytesMax: number): ParamLayout {
  const elementsMax = Math.floor(bucketBytesMax / 4);
  const tensors: ParamTensor[] = [];
  const bucketElements: number[] = [0];
  for (const shape of shapes(config)) {
    const elements = Math.ceil((shape.rows * shape.columns) / ALIGN_ELEMENTS) * ALIGN_ELEMENTS;
    if (elements > elementsMax) {
      throw new UserError(
        `the model's ${shape.name} takes ${elements * 4} bytes, the adapter binds at most ${bucketBytesMax} (maxStorageBufferBindingSize): use a smaller model or another adapter`,
      );
    }
    let bucket = bucketElements.length - 1;
    if ((bucketElements[bucket] ?? 0) + elements > elementsMax) {
      bucketElements.push(0);
      bucket++;
    }
    const offset = bucketElements[bucket] ?? 0;
    tensors.push({ ...shape, bucket, offset });
    bucketElements[bucket] = offset + elements;
  }
  return { tensors, bucketElements };
}

/** The tensor of that name, for example `layer0.qkv`. */
export function findTensor(layout: ParamLayout, name: string): ParamTensor {
  const tensor = layout.tensors.find((candidate) => candidate.name === name);
  assert(tensor !== undefined, `no tensor ${name}`);
  return tensor;
}

/** All parameters as one Float32Array a bucket. */
export type Buckets = Float32Array<ArrayBuffer>[];

/** Bytes of all parameters. */
export function layoutBytes({ bucketElements }: ParamLayout): number {
  return 4 * bucketElements.reduce((sum, elements) => sum + elements, 0);
}

export function zeroBuckets(layout: ParamLayout): Buckets {
  return layout.bucketElements.map((elements) => new Float32Array(elements));
}

/** The elements of one tensor, sharing the bucket's memory: [rows, columns], row-major. */
export function tensorView(
  buckets: readonly Float32Array<ArrayBuffer>[],
  tensor: ParamTensor,
): Float32Array<ArrayBuffer> {
  const bucket = buckets[tensor.bucket];
  assert(bucket !== undefined, `no bucket ${tensor.bucket}`);
  return bucket.subarray(tensor.offset, tensor.offset + tensor.rows * tensor.columns);
}
