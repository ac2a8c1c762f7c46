import type { BufferSlice, DispatchOp } from '../gpu/ops.js';
import { at } from '../lib/assert.js';
import type { ModelConfig } from '../model/config.js';
import type { Activations } from './activations.js';
import type { Bound, Kernels } from './kernels.js';
import type { KvCache } from './kv-cache.js';
import { cut, groups, Matmul, type Splitter } from './launch.js';
import type { WeightBuffers } from './weight-buffers.js';

/** Rows of 8 lanes for short vectors, 64 for long ones: a function of the length alone, so bits never change. */
export function lanesFor(length: number): 8 | 64 {
  return length <= 512 ? 8 : 64;
}

/** Workgroups of a kernel that gives `lanesFor(length)` threads to each row. */
export function laneGroups(rows: number, length: number): number {
  return Math.ceil(rows / (64 / lanesFor(length)));
}

/** What a ragged batch hands to the forward pass, in device buffers. */
export interface BatchInputs {
  /** Row table: (slot, position, token or FROM_SLOT, 0) as u32, one entry a token. */
  readonly rows: BufferSlice;
  /** [slots, blocksPerSlot] u32. */
  readonly blockTable: BufferSlice;
  readonly blocksPerSlot: number;
  /** Last token each slot sampled, u32. */
  readonly slotTokens: BufferSlice | GPUBuffer;
  /** See `ropeAngles`. */
  readonly angles: GPUBuffer;
}

/** Size of one batch; `contextTokens` is Σ (position + 1) over its rows, which is what attention costs. */
export interface BatchSize {
  readonly rows: number;
  readonly contextTokens: number;
}

interface LayerKernels {
  norm1: Bound<'rmsnorm_row'>;
  qkv: Matmul;
  rope: Bound<'rope_kv_write'>;
  attention: Bound<'attention_paged'>;
  out: Matmul;
  norm2: Bound<'rmsnorm_row'>;
  gateUp: Matmul;
  gate: Bound<'silu_gate'>;
  down: Matmul;
}

export interface TransformerParts {
  readonly weights: WeightBuffers;
  readonly activations: Activations;
  readonly kv: KvCache;
  readonly inputs: BatchInputs;
}

/**
 * The forward pass of a Llama decoder over a ragged batch, prefill and decode rows alike. Engine and trainer run
 * this same sequence of kernels, which is why the trainer's log-probabilities equal the recorded ones bit for bit.
 * Pre-norm blocks after Touvron et al., "LLaMA", 2023.
 */
export class Transformer {
  readonly #embed: Bound<'embed_rows'>;
  readonly #layers: LayerKernels[];

  constructor(
    kernels: Kernels,
    readonly config: ModelConfig,
    private readonly parts: TransformerParts,
  ) {
    const { weights, activations, inputs } = parts;
    this.#embed = kernels.bind(
      'embed_rows',
      { overrides: {}, prelude: {} },
      {
        rows: inputs.rows,
        slot_tokens: inputs.slotTokens,
        embedding: weights.slice('embedding'),
        x: at(activations.stream, 0),
      },
    );
    this.#layers = Array.from({ length: config.layers }, (_, layer) => this.#bindLayer(kernels, layer));
  }

  #bindLayer(kernels: Kernels, layer: number): LayerKernels {
    const { config } = this;
    const { weights, activations, kv, inputs } = this.parts;
    const a = at(activations.layers, layer);
    const input = at(activations.stream, layer);
    const output = at(activations.stream, layer + 1);
    const w = (name: string) => weights.slice(`layer${layer}.${name}`);
    const head = { overrides: {}, prelude: { HEAD_DIM: config.headDim } };
    const norm = (x: GPUBuffer, gain: BufferSlice, y: GPUBuffer, scale: GPUBuffer) =>
      kernels.bind(
        'rmsnorm_row',
        { overrides: { GATHER: 0 }, prelude: { LANES: lanesFor(config.hiddenSize) } },
        { x, gain, row_index: inputs.rows, y, scale },
      );
    const cache = { k_cache: at(kv.keys, layer), v_cache: at(kv.values, layer) };
    const tables = { rows: inputs.rows, block_table: inputs.blockTable };
    return {
      norm1: norm(input, w('attentionNorm'), a.normed1, a.scale1),
      qkv: new Matmul(kernels, 'matmul_nn', { x: a.normed1, w: w('qkv'), y: a.qkv }),
      rope: kernels.bind('rope_kv_write', head, {
        ...tables,
        ...cache,
        angles: inputs.angles,
        qkv: a.qkv,
        q: a.q,
      }),
      attention: kernels.bind('attention_paged', head, {
        ...tables,
        ...cache,
        q: a.q,
        out: a.attention,
        logsumexp: a.logsumexp,
      }),
      out: new Matmul(kernels, 'matmul_nn', {
        x: a.attention,
        w: w('attentionOut'),
        y: a.middle,
        residual: input,
      }),
      norm2: norm(a.middle, w('mlpNorm'), a.normed2, a.scale2),
      gateUp: new Matmul(kernels, 'matmul_nn', { x: a.normed2, w: w('gateUp'), y: a.gateUp }),
      gate: kernels.bind('silu_gate', { overrides: {}, prelude: {} }, { gate_up: a.gateUp, y: a.gated }),
      down: new Matmul(kernels, 'matmul_nn', { x: a.gated, w: w('down'), y: output, residual: a.middle }),
    };
  }

  /** From the row table to the residual stream after the last layer; keys and values are written on the way. */
  *forward(batch: BatchSize, split: Splitter): Generator<DispatchOp, void, void> {
    const { hiddenSize } = this.config;
    const { rows } = batch;
    yield this.#embed.dispatch(
      { rows, hidden: hiddenSize },
      [groups(hiddenSize), rows, 1],
      rows * hiddenSize,
    );
    for (const layer of this.#layers) yield* this.#forwardLayer(layer, batch, split);
  }

  *#forwardLayer(layer: LayerKernels, batch: BatchSize, split: Splitter): Generator<DispatchOp, void, void> {
    const {
      hiddenSize: hidden,
      intermediateSize: inner,
      heads,
      kvHeads,
      headDim,
      rmsNormEps: eps,
    } = this.config;
    const { rows } = batch;
    const blocks_per_slot = this.parts.inputs.blocksPerSlot;
    const queryColumns = heads * headDim;
    const qkvColumns = queryColumns + 2 * kvHeads * headDim;
    const norm = (bound: Bound<'rmsnorm_row'>) =>
      bound.dispatch({ rows, hidden, eps }, [laneGroups(rows, hidden), 1, 1], rows * hidden);

    yield norm(layer.norm1);
    yield* layer.qkv.run({ rows, inner: hidden, columns: qkvColumns }, split);
    yield layer.rope.dispatch(
      { rows, heads, kv_heads: kvHeads, blocks_per_slot },
      [groups(qkvColumns / 2), rows, 1],
      rows * qkvColumns,
    );
    const work = batch.contextTokens * queryColumns;
    for (const [start, count] of cut(rows, 1, split.pieces(layer.attention.kernel, work))) {
      yield layer.attention.dispatch(
        {
          heads,
          kv_heads: kvHeads,
          blocks_per_slot,
          scale: 1 / Math.sqrt(headDim),
          row_start: start,
          row_end: start + count,
        },
        [groups(count * heads), 1, 1],
        (work * count) / rows,
      );
    }
    yield* layer.out.run({ rows, inner: queryColumns, columns: hidden }, split);
    yield norm(layer.norm2);
    yield* layer.gateUp.run({ rows, inner: hidden, columns: 2 * inner }, split);
    yield layer.gate.dispatch({ rows, inner }, [groups(inner), rows, 1], rows * inner);
    yield* layer.down.run({ rows, inner, columns: hidden }, split);
  }
}
