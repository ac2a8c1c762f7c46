import type { Gpu } from '../gpu/device.js';
import type { Op } from '../gpu/ops.js';
import type { Bound, Kernels } from '../kernels/kernels.js';
import { groups, inPieces, THREADS, type Splitter } from '../kernels/launch.js';
import { VALUE_BIAS, VALUE_WEIGHT, type ValueHead } from '../kernels/value-head.js';
import { assert } from '../lib/assert.js';
import type { ModelConfig } from '../model/config.js';
import type { MicroBatch } from './batch.js';
import { FinalNormGrad, type FinalNormParts } from './final-norm-grad.js';

/** 32-bit words of a row's loss metrics: (loss · weight, clipped), as value_loss.wgsl writes them. */
export const VALUE_METRICS_WORDS = 2;

/** A clip of Infinity as a shader takes it: no two values are further apart. */
const FLOAT32_MAX = (2 - 2 ** -23) * 2 ** 127;

export interface ValueLossParts extends FinalNormParts {
  readonly head: ValueHead;
}

/**
 * The clipped value loss and its way back through the value head: from the residual stream after the last layer to
 * its gradient, in `scratch.flow`, with the gradients of value head and final norm added to what is there.
 */
export class ValueLossHead {
  /** One entry a head row; see VALUE_METRICS_WORDS. */
  readonly metrics: GPUBuffer;
  readonly #gpu: Gpu;
  /** d(loss)/d(value) of each head row. */
  readonly #slopes: GPUBuffer;
  readonly #loss: Bound<'value_loss'>;
  readonly #toNormed: Bound<'value_row_grad'>;
  readonly #toWeight: Bound<'value_weight_grad'>;
  readonly #finalNorm: FinalNormGrad;

  constructor(
    kernels: Kernels,
    private readonly config: ModelConfig,
    private readonly parts: ValueLossParts,
  ) {
    const { weights, gradients, head, tables, scratch, rowsMax } = parts;
    const plain = { overrides: {}, prelude: {} };
    this.#gpu = kernels.gpu;
    this.metrics = this.#gpu.createStorage('value loss metrics', rowsMax * VALUE_METRICS_WORDS * 4);
    this.#slopes = this.#gpu.createStorage('value loss slopes', rowsMax * 4);
    const slopes = this.#slopes;
    this.#loss = kernels.bind('value_loss', plain, {
      value_rows: tables.slice('lossRows'),
      values: head.values,
      slopes,
      metrics: this.metrics,
    });
    const w = weights.slice(VALUE_WEIGHT);
    this.#toNormed = kernels.bind('value_row_grad', plain, { slopes, w, dx: scratch.dNormed });
    this.#toWeight = kernels.bind('value_weight_grad', plain, {
      x: head.normed,
      slopes,
      dw: gradients.slice(VALUE_WEIGHT),
      dbias: gradients.slice(VALUE_BIAS),
    });
    this.#finalNorm = new FinalNormGrad(kernels, config, parts);
  }

  /** `clip` bounds how far a value may move from the old one; Infinity does not. */
  *run(microBatch: MicroBatch, clip: number, split: Splitter): Generator<Op, void, void> {
    assert(clip > 0, `a value clip of ${clip}`);
    const { hiddenSize: hidden } = this.config;
    const { headRows: rows } = microBatch;
    yield* this.parts.head.run(rows, split);
    const byRows = { count: rows, unit: THREADS, workEach: 1 };
    yield* inPieces(this.#loss, byRows, split, (row_start, count) => ({
      params: { row_start, row_end: row_start + count, clip: Math.min(clip, FLOAT32_MAX) },
      grid: [groups(count), 1, 1],
    }));
    // One column more than the vector has: the bias.
    const byColumns = { count: hidden + 1, unit: THREADS, workEach: rows };
    yield* inPieces(this.#toWeight, byColumns, split, (column_start, count) => ({
      params: { rows, hidden, column_start },
      grid: [groups(count), 1, 1],
    }));
    yield* inPieces(this.#toNormed, { count: rows, workEach: hidden }, split, (row_start, count) => ({
      params: { hidden, row_start },
      grid: [groups(hidden), count, 1],
    }));
    yield* this.#finalNorm.run(microBatch, split);
  }

  destroy(): void {
    for (const buffer of [this.metrics, this.#slopes]) this.#gpu.destroyBuffer(buffer);
    this.#finalNorm.destroy();
  }
}
