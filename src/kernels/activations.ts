import type { Gpu } from '../gpu/device.js';
import { assert } from '../lib/assert.js';
import type { ModelConfig } from '../model/config.js';

/** Intermediate results of one layer, [rows, …] float32. */
export interface LayerActivations {
  readonly normed1: GPUBuffer;
  readonly scale1: GPUBuffer;
  readonly qkv: GPUBuffer;
  readonly q: GPUBuffer;
  readonly attention: GPUBuffer;
  /** (largest score, Σ exp(score − largest)) of each (row, head). */
  readonly softmax: GPUBuffer;
  /** Residual stream between attention and MLP. */
  readonly middle: GPUBuffer;
  readonly normed2: GPUBuffer;
  readonly scale2: GPUBuffer;
  readonly gateUp: GPUBuffer;
  readonly gated: GPUBuffer;
}

/**
 * Room for the activations of up to `rowsMax` rows. A trainer keeps every layer's for the backward pass; an engine
 * lets all layers share one set. The forward pass does not know the difference.
 */
export class Activations {
  /** Residual stream before each layer and after the last: layers + 1 entries. */
  readonly stream: readonly GPUBuffer[];
  readonly layers: readonly LayerActivations[];
  readonly #all: GPUBuffer[] = [];

  constructor(
    private readonly gpu: Gpu,
    config: ModelConfig,
    readonly rowsMax: number,
    keep: boolean,
  ) {
    const largest =
      rowsMax *
      Math.max(
        2 * config.intermediateSize,
        config.hiddenSize,
        (config.heads + 2 * config.kvHeads) * config.headDim,
      ) *
      4;
    assert(
      largest <= gpu.limits.maxStorageBufferBindingSize,
      `activations of ${rowsMax} rows do not fit a binding`,
    );
    const make = (name: string, columns: number): GPUBuffer => {
      const buffer = gpu.createStorage(`activations ${name}`, rowsMax * columns * 4);
      this.#all.push(buffer);
      return buffer;
    };
    const queryColumns = config.heads * config.headDim;
    const layer = (): LayerActivations => ({
      normed1: make('normed1', config.hiddenSize),
      scale1: make('scale1', 1),
      qkv: make('qkv', queryColumns + 2 * config.kvHeads * config.headDim),
      q: make('q', queryColumns),
      attention: make('attention', queryColumns),
      softmax: make('softmax', 2 * config.heads),
      middle: make('middle', config.hiddenSize),
      normed2: make('normed2', config.hiddenSize),
      scale2: make('scale2', 1),
      gateUp: make('gateUp', 2 * config.intermediateSize),
      gated: make('gated', config.intermediateSize),
    });
    const times = <T>(count: number, one: () => T): T[] =>
      keep ? Array.from({ length: count }, one) : new Array<T>(count).fill(one());
    this.stream = times(config.layers + 1, () => make('stream', config.hiddenSize));
    this.layers = times(config.layers, layer);
  }

  destroy(): void {
    for (const buffer of this.#all) this.gpu.destroyBuffer(buffer);
  }
}
