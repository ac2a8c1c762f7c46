import type { Gpu } from '../gpu/device.js';
import type { BufferSlice, DispatchOp } from '../gpu/ops.js';
import { at } from '../lib/assert.js';
import type { ModelConfig } from '../model/config.js';
import type { Bound, Kernels } from './kernels.js';
import { cut, cutBoth, Matmul, type Splitter } from './launch.js';
import { laneGroups, laneRows, lanesFor, normRows } from './transformer.js';
import type { WeightBuffers } from './weight-buffers.js';

/** Logits are made for a stretch of rows at a time, so that a big vocabulary does not need a big buffer. */
const LOGITS_BYTES_MAX = 32 * 2 ** 20;

/** u32 words of one entry in each table the head reads or writes; the shaders hold the same layouts. */
export const SAMPLE_ROW_WORDS = 4;
export const SAMPLING_WORDS = 8;
export const SAMPLED_WORDS = 4;
export const STATS_WORDS = 4;

/** Marks "no token given: draw one" in a sample row, "take the slot's last token" in a row, and empty stop ids. */
export const NONE = 0xffffffff;
export const FLAG_STOPPED = 1;
export const FLAG_ALREADY_DONE = 2;

export const USES_TOP_K = 1;
export const USES_TOP_P = 2;

export interface HeadBuffers {
  readonly weights: WeightBuffers;
  /** Residual stream after the last layer. */
  readonly stream: GPUBuffer;
  /** For each row that needs logits: its row in the stream, u32. */
  readonly rowIndex: BufferSlice | GPUBuffer;
  /** (slot, position, token to score or NONE, sequence serial) u32, one a row that needs logits. */
  readonly sampleRows: BufferSlice | GPUBuffer;
  /** Sampling parameters by slot; see lib/distribution.wgsl. */
  readonly sampling: BufferSlice | GPUBuffer;
  readonly stops: BufferSlice | GPUBuffer;
  readonly slotTokens: GPUBuffer;
  readonly slotDone: GPUBuffer;
}

/** Buffers the head makes and owns, for up to `rowsMax` rows. */
export class HeadActivations {
  readonly normed: GPUBuffer;
  readonly scale: GPUBuffer;
  readonly logits: GPUBuffer;
  readonly sampled: GPUBuffer;
  readonly stats: GPUBuffer;
  /** Rows whose logits are held at once. */
  readonly chunkRows: number;

  constructor(
    private readonly gpu: Gpu,
    config: ModelConfig,
    readonly rowsMax: number,
  ) {
    const rowBytes = config.vocabSize * 4;
    this.chunkRows = Math.max(1, Math.min(rowsMax, Math.floor(LOGITS_BYTES_MAX / rowBytes)));
    this.normed = gpu.createStorage('head normed', rowsMax * config.hiddenSize * 4);
    this.scale = gpu.createStorage('head scale', rowsMax * 4);
    this.logits = gpu.createStorage('head logits', this.chunkRows * rowBytes);
    this.sampled = gpu.createStorage('head sampled', rowsMax * SAMPLED_WORDS * 4);
    this.stats = gpu.createStorage('head stats', rowsMax * STATS_WORDS * 4);
  }

  destroy(): void {
    for (const buffer of [this.normed, this.scale, this.logits, this.sampled, this.stats])
      this.gpu.destroyBuffer(buffer);
  }
}

/** Final norm, logits and the sampling kernel, over the rows that need a token drawn or scored. */
export class OutputHead {
  readonly #norm: Bound<'rmsnorm_row'>;
  readonly #logits: Matmul;
  readonly #sample: Bound<'sample_row'>;

  constructor(
    kernels: Kernels,
    readonly config: ModelConfig,
    buffers: HeadBuffers,
    readonly activations: HeadActivations,
  ) {
    const { weights } = buffers;
    const { normed, scale, logits, sampled, stats } = activations;
    this.#norm = kernels.bind(
      'rmsnorm_row',
      { overrides: { GATHER: 1 }, prelude: { LANES: lanesFor(config.hiddenSize) } },
      { x: buffers.stream, gain: weights.slice('finalNorm'), row_index: buffers.rowIndex, y: normed, scale },
    );
    const w = weights.slice(config.tieWordEmbeddings ? 'embedding' : 'head');
    this.#logits = new Matmul(kernels, 'matmul_nt', { x: normed, w, y: logits });
    this.#sample = kernels.bind(
      'sample_row',
      { overrides: {}, prelude: { LANES: lanesFor(config.vocabSize) } },
      {
        sample_rows: buffers.sampleRows,
        sampling: buffers.sampling,
        stops: buffers.stops,
        logits,
        slot_tokens: buffers.slotTokens,
        slot_done: buffers.slotDone,
        sampled,
        stats,
      },
    );
  }

  /** Norm once; then for each stretch of rows make logits and draw or score. `filters` joins those of all rows. */
  *run(rows: number, filters: number, split: Splitter): Generator<DispatchOp, void, void> {
    yield* this.norm(rows, split);
    for (const [start, count] of this.stretches(rows)) yield* this.stretch(start, count, filters, split);
  }

  norm(rows: number, split: Splitter): Generator<DispatchOp, void, void> {
    return normRows(this.#norm, rows, this.config, split);
  }

  /** [start, count] of the rows whose logits are held together. */
  stretches(rows: number): Iterable<[number, number]> {
    return cut(rows, this.activations.chunkRows, Infinity);
  }

  /** Logits of one stretch into the logits buffer, then a token, log-probability and statistics for each row. */
  *stretch(
    start: number,
    count: number,
    filters: number,
    split: Splitter,
  ): Generator<DispatchOp, void, void> {
    const { hiddenSize: hidden, vocabSize: vocabulary } = this.config;
    yield* this.#logits.run({ rows: count, inner: hidden, columns: vocabulary, xStart: start }, split);
    yield* this.#draw(start, count, filters, split);
  }

  *#draw(start: number, count: number, filters: number, split: Splitter): Generator<DispatchOp, void, void> {
    const { vocabSize: vocabulary } = this.config;
    const wanted = split.pieces(this.#sample.kernel, count * vocabulary * samplePasses(filters).length);
    for (const { from, rows, passStart, passEnd, passes } of cutDraw(count, vocabulary, filters, wanted)) {
      yield this.#sample.dispatch(
        {
          rows,
          vocabulary,
          filters,
          row_start: start + from,
          logits_start: from,
          pass_start: passStart,
          pass_end: passEnd,
        },
        [laneGroups(rows, vocabulary), 1, 1],
        rows * vocabulary * passes,
      );
    }
  }
}

/** The sampling kernel's passes over the vocabulary, as lib/distribution.wgsl numbers them. */
const PASS_TOP_K = 1;
const PASS_MASS = 33;
const PASS_DRAW = 66;
const PASS_END = 67;

/** The passes that these filters make it take. */
function samplePasses(filters: number): readonly number[] {
  const all = Array.from({ length: PASS_END }, (_, pass) => pass);
  return all.filter((pass) => {
    if (pass >= PASS_TOP_K && pass < PASS_MASS) return (filters & USES_TOP_K) !== 0;
    if (pass >= PASS_MASS && pass < PASS_DRAW) return (filters & USES_TOP_P) !== 0;
    return true;
  });
}

/** Part of the draws of some rows: of `rows` rows from `from` on, passes passStart … passEnd, `passes` of them taken. */
export interface DrawPiece {
  readonly from: number;
  readonly rows: number;
  readonly passStart: number;
  readonly passEnd: number;
  readonly passes: number;
}

/** Draws of `count` rows cut along the rows first, then along the passes over the vocabulary that one row takes. */
export function* cutDraw(
  count: number,
  vocabulary: number,
  filters: number,
  pieces: number,
): Generator<DrawPiece, void, void> {
  const taken = samplePasses(filters);
  const byRows = { total: count, unit: laneRows(vocabulary) };
  const byPasses = { total: taken.length, unit: 1 };
  for (const [[from, rows], [first, passes]] of cutBoth(byRows, byPasses, pieces)) {
    const passEnd = taken[first + passes] ?? PASS_END;
    yield { from, rows, passStart: at(taken, first), passEnd, passes };
  }
}

/** Sampling parameters by vLLM's names; temperature 0 is greedy, 0 / 1 / 0 switch top_k / top_p / min_p off. */
export interface SamplingParams {
  readonly temperature: number;
  readonly topK: number;
  readonly topP: number;
  readonly minP: number;
}

/** Which filters a set of parameters uses: the dispatch-wide switches of the sampling kernel. */
export function filtersOf(params: SamplingParams, vocabSize: number): number {
  if (params.temperature === 0) return 0;
  const usesTopK = params.topK > 0 && params.topK < vocabSize;
  return (usesTopK ? USES_TOP_K : 0) | (params.topP < 1 ? USES_TOP_P : 0);
}

/** Writes one slot's entry of the sampling table. */
export function writeSampling(
  words: Uint32Array,
  slot: number,
  params: SamplingParams,
  key: readonly [number, number],
  stops: { readonly start: number; readonly count: number },
): void {
  const floats = new Float32Array(words.buffer, words.byteOffset, words.length);
  const base = slot * SAMPLING_WORDS;
  floats[base] = params.temperature;
  floats[base + 1] = params.topP;
  floats[base + 2] = params.minP;
  words.set([params.topK, key[0], key[1], stops.start, stops.count], base + 3);
}

/** One drawn or scored token as the device wrote it. */
export interface SampledToken {
  readonly token: number;
  readonly logprob: number;
  readonly rawLogprob: number;
  readonly flags: number;
}

export function readSampled(words: Uint32Array, floats: Float32Array, row: number): SampledToken {
  const base = row * SAMPLED_WORDS;
  return {
    token: at(words, base),
    logprob: at(floats, base + 1),
    rawLogprob: at(floats, base + 2),
    flags: at(words, base + 3),
  };
}
