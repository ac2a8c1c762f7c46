import type { Op } from '../gpu/ops.js';
import type { Activations } from '../kernels/activations.js';
import type { Kernels } from '../kernels/kernels.js';
import type { KvCache } from '../kernels/kv-cache.js';
import type { Splitter } from '../kernels/launch.js';
import { type HeadActivations, OutputHead } from '../kernels/output-head.js';
import { type BatchInputs, Transformer } from '../kernels/transformer.js';
import type { WeightBuffers } from '../kernels/weight-buffers.js';
import { at } from '../lib/assert.js';
import type { ModelConfig } from '../model/config.js';
import type { MicroBatch } from './batch.js';
import type { ForwardTables } from './forward-tables.js';

/** What forward passes share, whichever weights they run with. */
export interface ForwardBuffers {
  readonly activations: Activations;
  readonly headActivations: HeadActivations;
  readonly kv: KvCache;
  readonly tables: ForwardTables;
  readonly inputs: BatchInputs;
  /** Never read or written: scored tokens are given, not drawn. The shaders want something bound. */
  readonly unused: {
    readonly slotTokens: GPUBuffer;
    readonly slotDone: GPUBuffer;
    readonly stops: GPUBuffer;
  };
}

/** The generation kernels, bound to one set of weights and to the trainer's tables. */
export class ForwardPass {
  readonly transformer: Transformer;
  readonly head: OutputHead;

  constructor(kernels: Kernels, config: ModelConfig, weights: WeightBuffers, buffers: ForwardBuffers) {
    const { activations, headActivations, kv, tables, inputs, unused } = buffers;
    this.transformer = new Transformer(kernels, config, { weights, activations, kv, inputs });
    this.head = new OutputHead(
      kernels,
      config,
      {
        weights,
        stream: at(activations.stream, config.layers),
        rowIndex: tables.slice('rowIndex'),
        sampleRows: tables.slice('sampleRows'),
        sampling: tables.slice('sampling'),
        ...unused,
      },
      headActivations,
    );
  }

  /** Log-probabilities of a micro-batch whose tables are on the device. */
  *score(microBatch: MicroBatch, filters: number, split: Splitter): Generator<Op, void, void> {
    yield* this.transformer.forward(microBatch, split);
    yield* this.head.run(microBatch.headRows, filters, split);
  }
}
