import type { BufferSlice, DispatchOp } from '../gpu/ops.js';
import { at } from '../lib/assert.js';
import type { ModelConfig } from '../model/config.js';
import type { Activations } from './activations.js';
import { AttentionCut } from './attention-cut.js';
import type { Bound, Kernels } from './kernels.js';
import type { KvCache } from './kv-cache.js';
import { groups, inPieces, Matmul, THREADS, type Splitter } from './launch.js';
import type { WeightBuffers } from './weight-buffers.js';

/** Rows of 8 lanes for short vectors, 64 for long ones: a function of the length alone, so bits never change. */
export function lanesFor(length: number): 8 | 64 {
  return length <= 512 ? 8 : 64;
}

/** Rows that share a workgroup in a kernel that gives `lanesFor(length)` threads to each. */
export function laneRows(length: number): number {
  return THREADS / lanesFor(length);
}

/** Workgroups of such a kernel. */
export function laneGroups(rows: number, length: number): number {
  return Math.ceil(rows / laneRows(length));
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

/** Size of one batch; `contexts` is position + 1 of each of its rows, which is what attention costs. */
export interface BatchSize {
  readonly rows: number;
  readonly contexts: ArrayLike<number>;
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
        softmax: a.softmax,
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
    const { hiddenSize: hidden } = this.config;
    const { rows } = batch;
    const attention = new AttentionCut(batch.contexts);
    yield* inPieces(this.#embed, { count: rows, workEach: hidden }, split, (row_start, count) => ({
      params: { hidden, row_start },
      grid: [groups(hidden), count, 1],
    }));
    for (const layer of this.#layers) yield* this.#forwardLayer(layer, rows, attention, split);
  }

  *#forwardLayer(
    layer: LayerKernels,
    rows: number,
    attention: AttentionCut,
    split: Splitter,
  ): Generator<DispatchOp, void, void> {
    const { hiddenSize: hidden, intermediateSize: inner, heads, kvHeads, headDim } = this.config;
    const queryColumns = heads * headDim;
    const qkvColumns = queryColumns + 2 * kvHeads * headDim;
    yield* normRows(layer.norm1, rows, this.config, split);
    yield* layer.qkv.run({ rows, inner: hidden, columns: qkvColumns }, split);
    yield* inPieces(layer.rope, { count: rows, workEach: qkvColumns }, split, (row_start, count) => ({
      params: { heads, kv_heads: kvHeads, blocks_per_slot: this.parts.inputs.blocksPerSlot, row_start },
      grid: [groups(qkvColumns / 2), count, 1],
    }));
    yield* this.#attend(layer.attention, attention, split);
    yield* layer.out.run({ rows, inner: queryColumns, columns: hidden }, split);
    yield* normRows(layer.norm2, rows, this.config, split);
    yield* layer.gateUp.run({ rows, inner: hidden, columns: 2 * inner }, split);
    yield* inPieces(layer.gate, { count: rows, workEach: inner }, split, (row_start, count) => ({
      params: { inner, row_start },
      grid: [groups(inner), count, 1],
    }));
    yield* layer.down.run({ rows, inner, columns: hidden }, split);
  }

  *#attend(
    bound: Bound<'attention_paged'>,
    attention: AttentionCut,
    split: Splitter,
  ): Generator<DispatchOp, void, void> {
    const { heads, kvHeads, headDim } = this.config;
    const params = {
      heads,
      kv_heads: kvHeads,
      blocks_per_slot: this.parts.inputs.blocksPerSlot,
      scale: 1 / Math.sqrt(headDim),
    };
    const columns = heads * headDim;
    for (const piece of attention.into(split.pieces(bound.kernel, attention.keys * columns))) {
      const { rowStart, rowEnd, keyStart, keyEnd, keys } = piece;
      yield bound.dispatch(
        { ...params, row_start: rowStart, row_end: rowEnd, key_start: keyStart, key_end: keyEnd },
        [groups((rowEnd - rowStart) * heads), 1, 1],
        keys * columns,
      );
    }
  }
}

/** Root-mean-square norm of each row. */
export function normRows(
  bound: Bound<'rmsnorm_row'>,
  rows: number,
  { hiddenSize: hidden, rmsNormEps: eps }: ModelConfig,
  split: Splitter,
): Generator<DispatchOp, void, void> {
  const work = { count: rows, unit: laneRows(hidden), workEach: hidden };
  return inPieces(bound, work, split, (row_start, count) => ({
    params: { hidden, eps, row_start, row_end: row_start + count },
    grid: [laneGroups(count, hidden), 1, 1],
  }));
}
