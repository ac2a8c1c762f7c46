import type { CopyOp } from '../gpu/ops.js';
import { readSampled, SAMPLED_WORDS, STATS_WORDS } from '../kernels/output-head.js';
import { at } from '../lib/assert.js';
import type { MicroBatch, ScoreSequence, TrainSequence } from './batch.js';
import { HeadRowLayout } from './head-row-layout.js';
import { LOSS_METRICS_WORDS, type Objective } from './loss-head.js';

/** What one optimizer step was. Means are over the trained tokens, each counted once, whatever its weight. */
export interface TrainResult {
  /** Σ weight · loss over the batch. */
  readonly loss: number;
  /** Tokens with a weight: those that reached the gradient. */
  readonly tokens: number;
  /** Of importance ratios: probability now over probability when sampled. 1 for cross-entropy. */
  readonly meanRatio: number;
  readonly maxRatio: number;
  /** Share of tokens whose gradient the clip removed. */
  readonly clipFraction: number;
  /** Mean k3 estimate of the KL to the reference, in nats; 0 without a KL term. */
  readonly kl: number;
  /** Mean entropy of the sampling distribution, in nats. */
  readonly entropy: number;
  /** Mean |log-probability now − when sampled|: 0 on-policy. 0 for cross-entropy. */
  readonly mismatch: number;
  /** Global norm before clipping. */
  readonly gradNorm: number;
  /** True when the norm was not finite: weights and moments are as before. */
  readonly skipped: boolean;
  /** Under the weights before the step, aligned as the sequences' weights; 0 where the weight is 0. */
  readonly logprobs: readonly Float32Array<ArrayBuffer>[];
}

const SAMPLED_BYTES = SAMPLED_WORDS * 4;
const STATS_BYTES = STATS_WORDS * 4;
const METRICS_BYTES = LOSS_METRICS_WORDS * 4;

/** What the device keeps of each head row; each micro-batch's must be copied out before the next begins. */
export interface HeadRowBuffers {
  readonly sampled: GPUBuffer;
  readonly stats: GPUBuffer;
  readonly metrics: GPUBuffer;
}

/** A trainer's numbers in one staging buffer: sampled tokens of all head rows, then statistics, then loss metrics. */
export class ResultLayout extends HeadRowLayout {
  constructor(microBatches: readonly MicroBatch[]) {
    super(microBatches, [SAMPLED_BYTES, STATS_BYTES, METRICS_BYTES]);
  }

  get scoreBytes(): number {
    return this.offsetOf(1);
  }

  /** Copies a micro-batch's log-probabilities out; `firstRow` counts the head rows of those before it. */
  copyScores(staging: GPUBuffer, firstRow: number, rows: number, sampled: GPUBuffer): CopyOp {
    return this.copyRowsTo(0, staging, firstRow, rows, sampled);
  }

  *copyRows(
    staging: GPUBuffer,
    firstRow: number,
    rows: number,
    from: HeadRowBuffers,
  ): Generator<CopyOp, void, void> {
    yield this.copyScores(staging, firstRow, rows, from.sampled);
    yield this.copyRowsTo(1, staging, firstRow, rows, from.stats);
    yield this.copyRowsTo(2, staging, firstRow, rows, from.metrics);
  }

  /** Log-probabilities of each sequence of the batch, aligned as its weights. */
  readLogprobs(batch: readonly ScoreSequence[], bytes: ArrayBuffer): Float32Array<ArrayBuffer>[] {
    const words = new Uint32Array(bytes, 0, this.headRows * SAMPLED_WORDS);
    const floats = new Float32Array(bytes, 0, this.headRows * SAMPLED_WORDS);
    return this.spread(batch, (row) => readSampled(words, floats, row).logprob);
  }

  readStep(batch: readonly TrainSequence[], objective: Objective, bytes: ArrayBuffer): TrainResult {
    const logprobs = this.readLogprobs(batch, bytes);
    const stats = new Float32Array(bytes, this.offsetOf(1), this.headRows * STATS_WORDS);
    const metrics = new Float32Array(bytes, this.offsetOf(2), this.headRows * LOSS_METRICS_WORDS);
    const gradNorm = at(new Float32Array(bytes, this.clipOffset, 1), 0);
    const sums = { loss: 0, ratio: 0, clipped: 0, kl: 0, entropy: 0, mismatch: 0 };
    let maxRatio = 0;
    let row = 0;
    for (const { sequence, position } of this.rows()) {
      const ratio = at(metrics, row * LOSS_METRICS_WORDS + 1);
      sums.loss += at(metrics, row * LOSS_METRICS_WORDS);
      sums.ratio += ratio;
      sums.clipped += at(metrics, row * LOSS_METRICS_WORDS + 2);
      sums.kl += at(metrics, row * LOSS_METRICS_WORDS + 3);
      sums.entropy += at(stats, row * STATS_WORDS + 2);
      if (objective.algorithm === 'grpo') {
        const { oldLogprobs } = at(batch, sequence);
        sums.mismatch += Math.abs(at(at(logprobs, sequence), position) - at(oldLogprobs, position));
      }
      maxRatio = Math.max(maxRatio, ratio);
      row++;
    }
    const tokens = this.headRows;
    return {
      loss: sums.loss,
      tokens,
      meanRatio: sums.ratio / tokens,
      maxRatio,
      clipFraction: sums.clipped / tokens,
      kl: sums.kl / tokens,
      entropy: sums.entropy / tokens,
      mismatch: sums.mismatch / tokens,
      gradNorm,
      skipped: !Number.isFinite(gradNorm),
      logprobs,
    };
  }
}
