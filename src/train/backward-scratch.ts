import type { Gpu } from '../gpu/device.js';
import type { ModelConfig } from '../model/config.js';

/**
 * Gradients of activations, [rows, …] float32. One set serves all layers: the backward pass goes through them one
 * by one, and each buffer is free again before its next use.
 */
export class BackwardScratch {
  /** Gradient of the residual stream: `flow` before and after each layer, `middleFlow` between its two halves. */
  readonly flow: GPUBuffer;
  readonly middleFlow: GPUBuffer;
  /** Gradient of the output of a norm. */
  readonly dNormed: GPUBuffer;
  readonly dGated: GPUBuffer;
  readonly dGateUp: GPUBuffer;
  readonly dAttention: GPUBuffer;
  /** (logsumexp, dout · out) of each (row, head). */
  readonly levels: GPUBuffer;
  readonly dqkv: GPUBuffer;
  readonly #all: GPUBuffer[] = [];

  constructor(
    private readonly gpu: Gpu,
    config: ModelConfig,
    rowsMax: number,
  ) {
    const make = (name: string, columns: number): GPUBuffer => {
      const buffer = gpu.createStorage(`backward ${name}`, rowsMax * columns * 4);
      this.#all.push(buffer);
      return buffer;
    };
    const queryColumns = config.heads * config.headDim;
    this.flow = make('flow', config.hiddenSize);
    this.middleFlow = make('middle flow', config.hiddenSize);
    this.dNormed = make('dNormed', config.hiddenSize);
    this.dGated = make('dGated', config.intermediateSize);
    this.dGateUp = make('dGateUp', 2 * config.intermediateSize);
    this.dAttention = make('dAttention', queryColumns);
    this.levels = make('levels', 2 * config.heads);
    this.dqkv = make('dqkv', queryColumns + 2 * config.kvHeads * config.headDim);
  }

  destroy(): void {
    for (const buffer of this.#all) this.gpu.destroyBuffer(buffer);
  }
}
