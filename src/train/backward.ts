import type { BufferSlice, DispatchOp } from '../gpu/ops.js';
import type { Activations } from '../kernels/activations.js';
import { AttentionCut, laterRowsOf } from '../kernels/attention-cut.js';
import type { Bound, Kernels } from '../kernels/kernels.js';
import type { KvCache } from '../kernels/kv-cache.js';
import { groups, inPieces, Matmul, MatmulTn, type Splitter } from '../kernels/launch.js';
import { lanesFor, type BatchInputs, type BatchSize } from '../kernels/transformer.js';
import type { WeightBuffers } from '../kernels/weight-buffers.js';
import { at } from '../lib/assert.js';
import type { ModelConfig } from '../model/config.js';
import type { BackwardScratch } from './backward-scratch.js';
import { embedRowsGrad, normGrad, type NormGrad } from './row-grads.js';

type Dispatches = Generator<DispatchOp, void, void>;

export interface BackwardParts {
  readonly weights: WeightBuffers;
  readonly gradients: WeightBuffers;
  /** Of the forward pass, one set a layer. */
  readonly activations: Activations;
  readonly kv: KvCache;
  readonly inputs: BatchInputs;
  readonly scratch: BackwardScratch;
  /** See `LossTables`. */
  readonly tokenSegments: BufferSlice;
  readonly tokenOrder: BufferSlice;
}

/** A linear layer y = x · w: its input's gradient from its output's, and its weight's. */
interface LinearGrad {
  readonly toInput: Matmul;
  readonly toWeight: MatmulTn;
}

interface LayerKernels {
  readonly down: LinearGrad;
  readonly gate: Bound<'silu_gate_grad'>;
  readonly gateUp: LinearGrad;
  readonly norm2: NormGrad;
  readonly attentionOut: LinearGrad;
  readonly attentionDot: Bound<'attention_grad_dot'>;
  readonly attentionToQ: Bound<'attention_grad_q'>;
  readonly attentionToKv: Bound<'attention_grad_kv'>;
  readonly rope: Bound<'rope_grad'>;
  readonly qkv: LinearGrad;
  readonly norm1: NormGrad;
}

/**
 * The backward pass of `Transformer.forward`: from the gradient of the residual stream after the last layer, in
 * `scratch.flow`, to the gradients of all layers and of the embedding, which are added to what is there. The
 * attention weights are recomputed from logsumexp (Dao et al., "FlashAttention", 2022).
 */
export class Backward {
  readonly #layers: LayerKernels[];
  readonly #embedding: Bound<'embed_rows_grad'>;

  constructor(
    private readonly kernels: Kernels,
    private readonly config: ModelConfig,
    private readonly parts: BackwardParts,
  ) {
    this.#layers = Array.from({ length: config.layers }, (_, layer) => this.#bindLayer(layer));
    this.#embedding = kernels.bind('embed_rows_grad', NO_VARIANT, {
      segments: parts.tokenSegments,
      row_order: parts.tokenOrder,
      dx: parts.scratch.flow,
      dembedding: parts.gradients.slice('embedding'),
    });
  }

  /** `tokenSegments` counts the different tokens among the rows. */
  *run(batch: BatchSize & { readonly tokenSegments: number }, split: Splitter): Dispatches {
    const { rows, contexts, tokenSegments } = batch;
    const keys = new AttentionCut(contexts);
    const laterRows = new AttentionCut(laterRowsOf(contexts));
    for (const layer of this.#layers.toReversed()) {
      yield* this.#mlp(layer, rows, split);
      yield* this.#attention(layer, { rows, keys, laterRows }, split);
    }
    const { hiddenSize: hidden } = this.config;
    yield* embedRowsGrad(this.#embedding, { segments: tokenSegments, rows, hidden }, split);
  }

  #bindLayer(layer: number): LayerKernels {
    const { kernels, config } = this;
    const { activations, kv, inputs, scratch: s } = this.parts;
    const a = at(activations.layers, layer);
    const head = { overrides: {}, prelude: { HEAD_DIM: config.headDim } };
    const attention = {
      rows: inputs.rows,
      block_table: inputs.blockTable,
      q: a.q,
      k_cache: at(kv.keys, layer),
      v_cache: at(kv.values, layer),
      levels: s.levels,
      dout: s.dAttention,
      dqkv: s.dqkv,
    };
    const linear = (name: string, x: GPUBuffer, dy: GPUBuffer, dx: GPUBuffer): LinearGrad =>
      this.#bindLinear(`layer${layer}.${name}`, x, dy, dx);
    const norm = (
      name: string,
      x: GPUBuffer,
      scale: GPUBuffer,
      passing: GPUBuffer,
      dx: GPUBuffer,
    ): NormGrad => this.#bindNorm(`layer${layer}.${name}`, x, scale, passing, dx);
    return {
      down: linear('down', a.gated, s.flow, s.dGated),
      gate: kernels.bind('silu_gate_grad', NO_VARIANT, {
        gate_up: a.gateUp,
        dy: s.dGated,
        d_gate_up: s.dGateUp,
      }),
      gateUp: linear('gateUp', a.normed2, s.dGateUp, s.dNormed),
      norm2: norm('mlpNorm', a.middle, a.scale2, s.flow, s.middleFlow),
      attentionOut: linear('attentionOut', a.attention, s.middleFlow, s.dAttention),
      attentionDot: kernels.bind('attention_grad_dot', head, {
        out: a.attention,
        softmax: a.softmax,
        dout: s.dAttention,
        levels: s.levels,
      }),
      attentionToQ: kernels.bind('attention_grad_q', head, attention),
      attentionToKv: kernels.bind('attention_grad_kv', head, attention),
      rope: kernels.bind('rope_grad', head, { rows: inputs.rows, angles: inputs.angles, dqkv: s.dqkv }),
      qkv: linear('qkv', a.normed1, s.dqkv, s.dNormed),
      norm1: norm('attentionNorm', at(activations.stream, layer), a.scale1, s.middleFlow, s.flow),
    };
  }

  #bindLinear(name: string, x: GPUBuffer, dy: GPUBuffer, dx: GPUBuffer): LinearGrad {
    const { weights, gradients } = this.parts;
    return {
      toInput: new Matmul(this.kernels, 'matmul_nt', { x: dy, w: weights.slice(name), y: dx }),
      toWeight: new MatmulTn(this.kernels, { x, g: dy, y: gradients.slice(name) }),
    };
  }

  /** `passing` is the gradient that flows past the norm along the residual stream. */
  #bindNorm(name: string, x: GPUBuffer, scale: GPUBuffer, passing: GPUBuffer, dx: GPUBuffer): NormGrad {
    const { weights, gradients, scratch } = this.parts;
    const dy = scratch.dNormed;
    return {
      toGain: this.kernels.bind('rmsnorm_gain_grad', NO_VARIANT, {
        x,
        scale,
        dy,
        dgain: gradients.slice(name),
      }),
      toInput: this.kernels.bind(
        'rmsnorm_row_grad',
        { overrides: { HAS_PASSING: 1 }, prelude: { LANES: lanesFor(this.config.hiddenSize) } },
        { x, gain: weights.slice(name), scale, dy, passing, dx },
      ),
    };
  }

  /** From `flow`, the layer's output, to `middleFlow`. */
  *#mlp(layer: LayerKernels, rows: number, split: Splitter): Dispatches {
    const { hiddenSize: hidden, intermediateSize: inner } = this.config;
    yield* linearGrad(layer.down, rows, inner, hidden, split);
    yield* inPieces(layer.gate, { count: rows, workEach: inner }, split, (row_start, count) => ({
      params: { inner, row_start },
      grid: [groups(inner), count, 1],
    }));
    yield* linearGrad(layer.gateUp, rows, hidden, 2 * inner, split);
    yield* normGrad(layer.norm2, rows, hidden, split);
  }

  /** From `middleFlow` to `flow`, the layer's input. */
  *#attention(layer: LayerKernels, batch: AttentionBatch, split: Splitter): Dispatches {
    const { hiddenSize: hidden, heads, kvHeads, headDim } = this.config;
    const { rows } = batch;
    const queryColumns = heads * headDim;
    yield* linearGrad(layer.attentionOut, rows, queryColumns, hidden, split);
    yield* this.#attentionCore(layer, batch, split);
    const turned = (heads + kvHeads) * headDim;
    yield* inPieces(layer.rope, { count: rows, workEach: turned }, split, (row_start, count) => ({
      params: { heads, kv_heads: kvHeads, row_start },
      grid: [groups(turned / 2), count, 1],
    }));
    yield* linearGrad(layer.qkv, rows, hidden, queryColumns + 2 * kvHeads * headDim, split);
    yield* normGrad(layer.norm1, rows, hidden, split);
  }

  /** From `dAttention` to the unrotated `dqkv`. */
  *#attentionCore(layer: LayerKernels, batch: AttentionBatch, split: Splitter): Dispatches {
    const { heads, kvHeads, headDim } = this.config;
    const { rows, keys, laterRows } = batch;
    const columns = heads * headDim;
    const params = {
      heads,
      kv_heads: kvHeads,
      blocks_per_slot: this.parts.inputs.blocksPerSlot,
      scale: 1 / Math.sqrt(headDim),
    };
    const { attentionDot: dot, attentionToQ: toQ, attentionToKv: toKv } = layer;
    yield* inPieces(dot, { count: rows, workEach: columns }, split, (row_start, count) => ({
      params: { heads, row_start, row_end: row_start + count },
      grid: [groups(count * heads), 1, 1],
    }));
    for (const piece of keys.into(split.pieces(toQ.kernel, keys.keys * columns))) {
      const { rowStart, rowEnd, keyStart, keyEnd } = piece;
      yield toQ.dispatch(
        { ...params, row_start: rowStart, row_end: rowEnd, key_start: keyStart, key_end: keyEnd },
        [groups((rowEnd - rowStart) * heads), 1, 1],
        piece.keys * columns,
      );
    }
    for (const piece of laterRows.into(split.pieces(toKv.kernel, laterRows.keys * columns))) {
      const { rowStart, rowEnd, keyStart, keyEnd } = piece;
      const range = { row_start: rowStart, row_end: rowEnd, later_start: keyStart, later_end: keyEnd };
      yield toKv.dispatch(
        { ...params, ...range, rows },
        [groups((rowEnd - rowStart) * kvHeads), 1, 1],
        piece.keys * columns,
      );
    }
  }
}

/** What attention's backward pass is cut by: the keys each row sees, and the rows that see each row's key. */
interface AttentionBatch {
  readonly rows: number;
  readonly keys: AttentionCut;
  readonly laterRows: AttentionCut;
}

const NO_VARIANT = { overrides: {}, prelude: {} };

/** y[rows, columns] = x[rows, inner] · w[inner, columns], backwards. */
function* linearGrad(
  linear: LinearGrad,
  rows: number,
  inner: number,
  columns: number,
  split: Splitter,
): Dispatches {
  yield* linear.toWeight.run({ rows, inner, columns }, split);
  yield* linear.toInput.run({ rows, inner: columns, columns: inner }, split);
}
