import type { CopyOp } from '../gpu/ops.js';
import { at } from '../lib/assert.js';
import { headRows, type MicroBatch, type ValueSequence, type WeightedSequence } from './batch.js';
import { CLIP_BYTES } from './optimizer.js';
import { copyOp } from './results.js';
import { VALUE_METRICS_WORDS } from './value-loss-head.js';

/** What one step of a critic was. Means are over the positions with a weight, each counted once, whatever its weight. */
export interface CriticResult {
  /** Σ weight · loss over the batch. */
  readonly loss: number;
  /** Positions with a weight: those that reached the gradient. */
  readonly tokens: number;
  /** Share of positions whose gradient the clip removed. */
  readonly clipFraction: number;
  /** 1 − Var(return − value) / Var(return): 1 is perfect, 0 no better than a constant; null where returns do not vary. */
  readonly explainedVariance: number | null;
  /** Global norm before clipping. */
  readonly gradNorm: number;
  /** True when the norm was not finite: weights and moments are as before. */
  readonly skipped: boolean;
  /** Under the weights before the step, aligned as the sequences' weights; 0 where the weight is 0. */
  readonly values: readonly Float32Array<ArrayBuffer>[];
}

const VALUE_BYTES = 4;
const METRICS_BYTES = VALUE_METRICS_WORDS * 4;

/**
 * Where a critic's numbers lie in one staging buffer: the values of all head rows, their loss metrics, then the clip
 * result. An evaluation needs only the first part.
 */
export class CriticResultLayout {
  readonly headRows: number;

  constructor(private readonly microBatches: readonly MicroBatch[]) {
    this.headRows = microBatches.reduce((sum, { headRows: rows }) => sum + rows, 0);
  }

  get valueBytes(): number {
    return this.headRows * VALUE_BYTES;
  }

  get stepBytes(): number {
    return this.#clipOffset + CLIP_BYTES;
  }

  /** Copies a micro-batch's values out; `firstRow` counts the head rows of those before it. */
  copyValues(staging: GPUBuffer, firstRow: number, rows: number, values: GPUBuffer): CopyOp {
    return copyOp(values, staging, firstRow * VALUE_BYTES, rows * VALUE_BYTES);
  }

  copyMetrics(staging: GPUBuffer, firstRow: number, rows: number, metrics: GPUBuffer): CopyOp {
    return copyOp(metrics, staging, this.valueBytes + firstRow * METRICS_BYTES, rows * METRICS_BYTES);
  }

  /** Values of each sequence of the batch, aligned as its weights. */
  readValues(batch: readonly WeightedSequence[], bytes: ArrayBuffer): Float32Array<ArrayBuffer>[] {
    const found = new Float32Array(bytes, 0, this.headRows);
    const values = batch.map(({ tokens }) => new Float32Array(tokens.length));
    let row = 0;
    for (const { sequence, position } of this.#rows()) at(values, sequence)[position] = at(found, row++);
    return values;
  }

  readStep(batch: readonly ValueSequence[], bytes: ArrayBuffer): CriticResult {
    const values = this.readValues(batch, bytes);
    const metrics = new Float32Array(bytes, this.valueBytes, this.headRows * VALUE_METRICS_WORDS);
    const gradNorm = at(new Float32Array(bytes, this.#clipOffset, 1), 0);
    const wanted: number[] = [];
    const missed: number[] = [];
    let [loss, clipped] = [0, 0];
    for (const { sequence, position } of this.#rows()) {
      const row = wanted.length;
      const expected = at(at(batch, sequence).returns, position);
      wanted.push(expected);
      missed.push(expected - at(at(values, sequence), position));
      loss += at(metrics, row * VALUE_METRICS_WORDS);
      clipped += at(metrics, row * VALUE_METRICS_WORDS + 1);
    }
    const spread = variance(wanted);
    return {
      loss,
      tokens: this.headRows,
      clipFraction: clipped / this.headRows,
      explainedVariance: spread === 0 ? null : 1 - variance(missed) / spread,
      gradNorm,
      skipped: !Number.isFinite(gradNorm),
      values,
    };
  }

  get #clipOffset(): number {
    return this.valueBytes + this.headRows * METRICS_BYTES;
  }

  /** All head rows, in the order in which they were copied out. */
  *#rows(): ReturnType<typeof headRows> {
    for (const microBatch of this.microBatches) yield* headRows(microBatch);
  }
}

function variance(numbers: readonly number[]): number {
  const mean = numbers.reduce((sum, number) => sum + number, 0) / numbers.length;
  return numbers.reduce((sum, number) => sum + (number - mean) ** 2, 0) / numbers.length;
}
