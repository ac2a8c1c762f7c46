import type { Gpu } from '../gpu/device.js';
import type { WriteOp } from '../gpu/ops.js';
import type { Kernels } from '../kernels/kernels.js';
import {
  filtersOf,
  HeadActivations,
  OutputHead,
  SAMPLE_ROW_WORDS,
  SAMPLING_WORDS,
  writeSampling,
} from '../kernels/output-head.js';
import type { WeightBuffers } from '../kernels/weight-buffers.js';
import { at } from '../lib/assert.js';
import type { ModelConfig } from '../model/config.js';
import { headRows, type MicroBatch, type ScoreSequence } from './batch.js';
import type { ForwardBuffers } from './forward-buffers.js';
import { knownToken } from './forward-tables.js';
import { PackedTables } from './packed-tables.js';

/** Which token each head row scores, and the sampling parameters of each slot. */
class ScoreTables extends PackedTables<'sampleRows' | 'sampling'> {
  constructor(
    gpu: Gpu,
    { rowsMax, slotsMax }: { readonly rowsMax: number; readonly slotsMax: number },
    private readonly vocabSize: number,
  ) {
    super(gpu, 'trainer score tables', {
      sampleRows: rowsMax * SAMPLE_ROW_WORDS,
      sampling: slotsMax * SAMPLING_WORDS,
    });
  }

  fill(
    batch: readonly ScoreSequence[],
    microBatch: MicroBatch,
  ): { writes: Iterable<WriteOp>; filters: number } {
    const { writes, table } = this.blank();
    const sampling = table('sampling');
    const sampleRows = table('sampleRows');
    let filters = 0;
    for (const [slot, { index }] of microBatch.sequences.entries()) {
      const params = at(batch, index).sampling;
      writeSampling(sampling, slot, params, [0, 0], { start: 0, count: 0 });
      filters |= filtersOf(params, this.vocabSize);
    }
    let headRow = 0;
    for (const { slot, sequence, position } of headRows(microBatch)) {
      const target = knownToken(at(batch, sequence), position + 1, this.vocabSize);
      sampleRows.set([slot, position + 1, target, 0], headRow * SAMPLE_ROW_WORDS);
      headRow++;
    }
    return { writes, filters };
  }
}

/** What the output head needs to score given tokens, shared by whichever weights it is bound to. */
export class ScoreHead {
  readonly activations: HeadActivations;
  readonly #tables: ScoreTables;
  /** Never read or written: scored tokens are given, not drawn. The shaders want something bound. */
  readonly #unused: {
    readonly slotTokens: GPUBuffer;
    readonly slotDone: GPUBuffer;
    readonly stops: GPUBuffer;
  };

  constructor(
    private readonly kernels: Kernels,
    private readonly config: ModelConfig,
    private readonly forward: ForwardBuffers,
  ) {
    const { gpu } = kernels;
    const { rowsMax, slotsMax } = forward.limits;
    this.activations = new HeadActivations(gpu, config, rowsMax);
    this.#tables = new ScoreTables(gpu, forward.limits, config.vocabSize);
    this.#unused = {
      slotTokens: gpu.createStorage('trainer unused slot tokens', slotsMax * 4),
      slotDone: gpu.createStorage('trainer unused slot done', slotsMax * 4),
      stops: gpu.createStorage('trainer unused stops', 4),
    };
  }

  /** The generation kernels, bound to one set of weights. */
  bind(weights: WeightBuffers): OutputHead {
    const { stream, tables } = this.forward;
    return new OutputHead(
      this.kernels,
      this.config,
      {
        weights,
        stream,
        rowIndex: tables.slice('rowIndex'),
        sampleRows: this.#tables.slice('sampleRows'),
        sampling: this.#tables.slice('sampling'),
        ...this.#unused,
      },
      this.activations,
    );
  }

  /** A micro-batch's tables as host writes, and the filters its rows use (see `filtersOf`). */
  fill(
    batch: readonly ScoreSequence[],
    microBatch: MicroBatch,
  ): { writes: Iterable<WriteOp>; filters: number } {
    return this.#tables.fill(batch, microBatch);
  }

  destroy(): void {
    this.activations.destroy();
    this.#tables.destroy();
    const { slotTokens, slotDone, stops } = this.#unused;
    for (const buffer of [slotTokens, slotDone, stops]) this.kernels.gpu.destroyBuffer(buffer);
  }
}
