import type { Gpu } from '../gpu/device.js';
import type { BufferSlice, DispatchOp } from '../gpu/ops.js';
import type { ModelConfig } from '../model/config.js';
import type { Bound, Kernels } from './kernels.js';
import { inPieces, type Splitter } from './launch.js';
import { laneGroups, laneRows, lanesFor, normRows } from './transformer.js';
import type { WeightBuffers } from './weight-buffers.js';

/** The value head's tensors in a critic's layout: a vector over the final norm's output, and one number. */
export const VALUE_WEIGHT = 'valueHead';
export const VALUE_BIAS = 'valueBias';

export interface ValueHeadBuffers {
  readonly weights: WeightBuffers;
  /** Residual stream after the last layer. */
  readonly stream: GPUBuffer;
  /** For each row that needs a value: its row in the stream, u32. */
  readonly rowIndex: BufferSlice;
}

/** Final norm and value head, over the rows that need a value. */
export class ValueHead {
  /** [rowsMax, hidden] float32, the final norm's output. */
  readonly normed: GPUBuffer;
  /** [rowsMax] float32. */
  readonly values: GPUBuffer;
  readonly #gpu: Gpu;
  readonly #scale: GPUBuffer;
  readonly #norm: Bound<'rmsnorm_row'>;
  readonly #value: Bound<'value_row'>;

  constructor(
    kernels: Kernels,
    private readonly config: ModelConfig,
    { weights, stream, rowIndex }: ValueHeadBuffers,
    rowsMax: number,
  ) {
    this.#gpu = kernels.gpu;
    this.normed = this.#gpu.createStorage('value head normed', rowsMax * config.hiddenSize * 4);
    this.values = this.#gpu.createStorage('value head values', rowsMax * 4);
    this.#scale = this.#gpu.createStorage('value head scale', rowsMax * 4);
    const prelude = { LANES: lanesFor(config.hiddenSize) };
    this.#norm = kernels.bind(
      'rmsnorm_row',
      { overrides: { GATHER: 1 }, prelude },
      {
        x: stream,
        gain: weights.slice('finalNorm'),
        row_index: rowIndex,
        y: this.normed,
        scale: this.#scale,
      },
    );
    this.#value = kernels.bind(
      'value_row',
      { overrides: {}, prelude },
      {
        x: this.normed,
        w: weights.slice(VALUE_WEIGHT),
        bias: weights.slice(VALUE_BIAS),
        values: this.values,
      },
    );
  }

  /** From the residual stream to `values`, one a row. */
  *run(rows: number, split: Splitter): Generator<DispatchOp, void, void> {
    const { hiddenSize: hidden } = this.config;
    yield* normRows(this.#norm, rows, this.config, split);
    const work = { count: rows, unit: laneRows(hidden), workEach: hidden };
    yield* inPieces(this.#value, work, split, (row_start, count) => ({
      params: { hidden, row_start, row_end: row_start + count },
      grid: [laneGroups(count, hidden), 1, 1],
    }));
  }

  destroy(): void {
    for (const buffer of [this.normed, this.values, this.#scale]) this.#gpu.destroyBuffer(buffer);
  }
}
