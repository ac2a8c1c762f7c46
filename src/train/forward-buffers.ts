import { Activations } from '../kernels/activations.js';
import type { Kernels } from '../kernels/kernels.js';
import { blocksFor, KvCache } from '../kernels/kv-cache.js';
import { ropeAngles } from '../kernels/rope-angles.js';
import { type BatchInputs, Transformer } from '../kernels/transformer.js';
import type { WeightBuffers } from '../kernels/weight-buffers.js';
import { at } from '../lib/assert.js';
import type { ModelConfig } from '../model/config.js';
import { ForwardTables, type TableLimits } from './forward-tables.js';

export interface ForwardSize {
  /** Rows of one micro-batch. */
  readonly rowsMax: number;
  /** Sequences of one micro-batch. */
  readonly slotsMax: number;
  /** Rows of one sequence. */
  readonly positionsMax: number;
}

/** What forward passes through the layers share, whichever weights they run with. */
export class ForwardBuffers {
  /** Of all layers: the backward pass reads them. */
  readonly activations: Activations;
  readonly kv: KvCache;
  readonly tables: ForwardTables;
  readonly inputs: BatchInputs;
  readonly limits: TableLimits;
  readonly #plain: readonly GPUBuffer[];

  constructor(
    private readonly kernels: Kernels,
    private readonly config: ModelConfig,
    { rowsMax, slotsMax, positionsMax }: ForwardSize,
    label: string,
  ) {
    const { gpu } = kernels;
    const blocksPerSlot = blocksFor(positionsMax);
    this.limits = { rowsMax, slotsMax, blocksPerSlot };
    this.activations = new Activations(gpu, config, rowsMax, true);
    // Every sequence may leave its last block nearly empty.
    this.kv = new KvCache(gpu, config, blocksFor(rowsMax) + slotsMax, label);
    this.tables = new ForwardTables(gpu, this.limits, config.vocabSize);
    const turns = ropeAngles(config, positionsMax);
    const angles = gpu.createStorage(`${label} angles`, turns.byteLength);
    gpu.device.queue.writeBuffer(angles, 0, turns);
    // Never read: every row's token is given.
    const slotTokens = gpu.createStorage(`${label} slot tokens`, slotsMax * 4);
    this.#plain = [angles, slotTokens];
    this.inputs = {
      rows: this.tables.slice('rows'),
      blockTable: this.tables.slice('blockTable'),
      blocksPerSlot,
      slotTokens,
      angles,
    };
  }

  /** Residual stream after the last layer. */
  get stream(): GPUBuffer {
    return at(this.activations.stream, this.config.layers);
  }

  /** The layers, bound to one set of weights. */
  transformer(weights: WeightBuffers): Transformer {
    const { activations, kv, inputs } = this;
    return new Transformer(this.kernels, this.config, { weights, activations, kv, inputs });
  }

  destroy(): void {
    for (const part of [this.activations, this.kv, this.tables]) part.destroy();
    for (const buffer of this.#plain) this.kernels.gpu.destroyBuffer(buffer);
  }
}
