import type { CopyOp } from '../gpu/ops.js';
import { at } from '../lib/assert.js';
import type { MicroBatch, ValueSequence, WeightedSequence } from './batch.js';
import { HeadRowLayout } from './head-row-layout.js';
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

/** A critic's numbers in one staging buffer: the values of all head rows, then their loss metrics. */
export class CriticResultLayout extends HeadRowLayout {
  constructor(microBatches: readonly MicroBatch[]) {
    super(microBatches, [VALUE_BYTES, METRICS_BYTES]);
  }

  get valueBytes(): number {
    return this.offsetOf(1);
  }

  /** Copies a micro-batch's values out; `firstRow` counts the head rows of those before it. */
  copyValues(staging: GPUBuffer, firstRow: number, rows: number, values: GPUBuffer): CopyOp {
    return this.copyRowsTo(0, staging, firstRow, rows, values);
  }

  copyMetrics(staging: GPUBuffer, firstRow: number, rows: number, metrics: GPUBuffer): CopyOp {
    return this.copyRowsTo(1, staging, firstRow, rows, metrics);
  }

  /** Values of each sequence of the batch, aligned as its weights. */
  readValues(batch: readonly WeightedSequence[], bytes: ArrayBuffer): Float32Array<ArrayBuffer>[] {
    const found = new Float32Array(bytes, 0, this.headRows);
    return this.spread(batch, (row) => at(found, row));
  }

  readStep(batch: readonly ValueSequence[], bytes: ArrayBuffer): CriticResult {
    const values = this.readValues(batch, bytes);
    const metrics = new Float32Array(bytes, this.valueBytes, this.headRows * VALUE_METRICS_WORDS);
    const gradNorm = at(new Float32Array(bytes, this.clipOffset, 1), 0);
    const wanted: number[] = [];
    const missed: number[] = [];
    let [loss, clipped] = [0, 0];
    for (const { sequence, position } of this.rows()) {
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
}

function variance(numbers: readonly number[]): number {
  const mean = numbers.reduce((sum, number) => sum + number, 0) / numbers.length;
  return numbers.reduce((sum, number) => sum + (number - mean) ** 2, 0) / numbers.length;
}
