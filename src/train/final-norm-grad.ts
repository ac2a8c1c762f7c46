import type { Gpu } from '../gpu/device.js';
import type { Op } from '../gpu/ops.js';
import type { Bound, Kernels } from '../kernels/kernels.js';
import type { Splitter } from '../kernels/launch.js';
import { clearChunks } from '../kernels/transfers.js';
import { lanesFor, normRows } from '../kernels/transformer.js';
import type { WeightBuffers } from '../kernels/weight-buffers.js';
import type { ModelConfig } from '../model/config.js';
import type { BackwardScratch } from './backward-scratch.js';
import type { MicroBatch } from './batch.js';
import type { LossTableSlices } from './loss-tables.js';
import { embedRowsGrad, normGrad, type NormGrad } from './row-grads.js';

export interface FinalNormParts {
  readonly weights: WeightBuffers;
  readonly gradients: WeightBuffers;
  /** Residual stream after the last layer. */
  readonly stream: GPUBuffer;
  readonly tables: LossTableSlices;
  readonly scratch: BackwardScratch;
  /** Rows of one micro-batch. */
  readonly rowsMax: number;
}

/**
 * The way back from any head through the final norm: from the gradient of its output, one row for each head row in
 * `scratch.dNormed`, to that of the residual stream in `scratch.flow`; the gain's gradient is added to what is there.
 */
export class FinalNormGrad {
  readonly #gpu: Gpu;
  readonly #scale: GPUBuffer;
  readonly #scatter: Bound<'embed_rows_grad'>;
  readonly #scales: Bound<'rmsnorm_row'>;
  readonly #norm: NormGrad;

  constructor(
    kernels: Kernels,
    private readonly config: ModelConfig,
    private readonly parts: FinalNormParts,
  ) {
    const { weights, gradients, stream, tables, scratch, rowsMax } = parts;
    const lanes = { LANES: lanesFor(config.hiddenSize) };
    this.#gpu = kernels.gpu;
    this.#scale = this.#gpu.createStorage('loss final scale', rowsMax * 4);
    this.#scatter = kernels.bind(
      'embed_rows_grad',
      { overrides: {}, prelude: {} },
      {
        segments: tables.slice('scatter'),
        row_order: tables.slice('headOrder'),
        dx: scratch.dNormed,
        dembedding: scratch.middleFlow,
      },
    );
    const gain = weights.slice('finalNorm');
    this.#scales = kernels.bind(
      'rmsnorm_row',
      { overrides: { GATHER: 0 }, prelude: lanes },
      { x: stream, gain, row_index: tables.slice('headOrder'), y: scratch.flow, scale: this.#scale },
    );
    const dy = scratch.middleFlow;
    this.#norm = {
      toGain: kernels.bind(
        'rmsnorm_gain_grad',
        { overrides: {}, prelude: {} },
        { x: stream, scale: this.#scale, dy, dgain: gradients.slice('finalNorm') },
      ),
      toInput: kernels.bind(
        'rmsnorm_row_grad',
        { overrides: { HAS_PASSING: 0 }, prelude: lanes },
        { x: stream, gain, scale: this.#scale, dy, passing: stream, dx: scratch.flow },
      ),
    };
  }

  /**
   * The head normed only its own rows: their gradients go to their places among all rows, the other rows get zeros,
   * and the norm's factors are made once more, for all rows.
   */
  *run({ rows, headRows }: MicroBatch, split: Splitter): Generator<Op, void, void> {
    const { hiddenSize: hidden } = this.config;
    yield* clearChunks(this.parts.scratch.middleFlow, rows * hidden * 4);
    yield* embedRowsGrad(this.#scatter, { segments: headRows, rows: headRows, hidden }, split);
    yield* normRows(this.#scales, rows, this.config, split);
    yield* normGrad(this.#norm, rows, hidden, split);
  }

  destroy(): void {
    this.#gpu.destroyBuffer(this.#scale);
  }
}
