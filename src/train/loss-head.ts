import type { Gpu } from '../gpu/device.js';
import type { DispatchOp, Op } from '../gpu/ops.js';
import type { Bound, Kernels } from '../kernels/kernels.js';
import { groups, inPieces, Matmul, MatmulTn, type Splitter } from '../kernels/launch.js';
import type { OutputHead } from '../kernels/output-head.js';
import type { ModelConfig } from '../model/config.js';
import type { MicroBatch } from './batch.js';
import { FinalNormGrad, type FinalNormParts } from './final-norm-grad.js';

/** 32-bit words of a row's loss metrics: (loss · weight, ratio, clipped, kl), as policy_gradient.wgsl writes them. */
export const LOSS_METRICS_WORDS = 4;

/**
 * What is minimised, summed over the tokens with their weights.
 * - `grpo`: the clipped policy gradient with GRPO's KL term; the ratio is clipped to [1 − clipLow, 1 + clipHigh]. With
 *   an advantage for each token and no KL term it is PPO's (Schulman et al., 2017).
 * - `crossEntropy`: −log-probability, under each sequence's own sampling parameters.
 */
export type Objective =
  | {
      readonly algorithm: 'grpo';
      readonly clipLow: number;
      readonly clipHigh: number;
      /** Of the KL to the reference policy; 0 needs no reference. */
      readonly klCoefficient: number;
    }
  | { readonly algorithm: 'crossEntropy' };

export interface LossHeadParts extends FinalNormParts {
  readonly head: OutputHead;
}

/**
 * The loss and its way back through the output head: from the residual stream after the last layer to its gradient,
 * in `scratch.flow`, with the gradients of head and final norm added to what is there. Logits exist for a stretch of
 * rows at a time and are turned into their own gradient in place.
 */
export class LossHead {
  /** One entry a head row; see LOSS_METRICS_WORDS. */
  readonly metrics: GPUBuffer;
  readonly #gpu: Gpu;
  readonly #losses: Record<Objective['algorithm'], Bound<'policy_gradient'>>;
  readonly #toNormed: Matmul;
  readonly #toWeight: MatmulTn;
  readonly #finalNorm: FinalNormGrad;

  constructor(
    kernels: Kernels,
    private readonly config: ModelConfig,
    private readonly parts: LossHeadParts,
  ) {
    const { weights, gradients, head, tables, scratch } = parts;
    const { logits, sampled, stats, normed, rowsMax } = head.activations;
    this.#gpu = kernels.gpu;
    this.metrics = this.#gpu.createStorage('loss metrics', rowsMax * LOSS_METRICS_WORDS * 4);
    const loss = (crossEntropy: 0 | 1): Bound<'policy_gradient'> =>
      kernels.bind(
        'policy_gradient',
        { overrides: { CROSS_ENTROPY: crossEntropy }, prelude: {} },
        { loss_rows: tables.slice('lossRows'), sampled, stats, logits, metrics: this.metrics },
      );
    this.#losses = { grpo: loss(0), crossEntropy: loss(1) };
    const table = config.tieWordEmbeddings ? 'embedding' : 'head';
    this.#toNormed = new Matmul(kernels, 'matmul_nn', {
      x: logits,
      w: weights.slice(table),
      y: scratch.dNormed,
    });
    this.#toWeight = new MatmulTn(kernels, { x: logits, g: normed, y: gradients.slice(table) });
    this.#finalNorm = new FinalNormGrad(kernels, config, parts);
  }

  *run(
    microBatch: MicroBatch,
    filters: number,
    objective: Objective,
    split: Splitter,
  ): Generator<Op, void, void> {
    const { head } = this.parts;
    const { hiddenSize: hidden, vocabSize: vocabulary } = this.config;
    yield* head.norm(microBatch.headRows, split);
    for (const [start, count] of head.stretches(microBatch.headRows)) {
      yield* head.stretch(start, count, filters, split);
      yield* this.#loss(start, count, objective, split);
      yield* this.#toWeight.run({ rows: count, inner: vocabulary, columns: hidden, gStart: start }, split);
      yield* this.#toNormed.run({ rows: count, inner: vocabulary, columns: hidden, yStart: start }, split);
    }
    yield* this.#finalNorm.run(microBatch, split);
  }

  destroy(): void {
    this.#gpu.destroyBuffer(this.metrics);
    this.#finalNorm.destroy();
  }

  #loss(
    start: number,
    count: number,
    objective: Objective,
    split: Splitter,
  ): Generator<DispatchOp, void, void> {
    const { vocabSize: vocabulary } = this.config;
    const { clipLow, clipHigh, klCoefficient } =
      objective.algorithm === 'grpo' ? objective : { clipLow: 0, clipHigh: 0, klCoefficient: 0 };
    const bound = this.#losses[objective.algorithm];
    return inPieces(bound, { count, workEach: vocabulary }, split, (from, rows) => ({
      params: {
        vocabulary,
        row_start: start + from,
        logits_start: from,
        clip_low: clipLow,
        clip_high: clipHigh,
        kl_coefficient: klCoefficient,
      },
      grid: [groups(vocabulary), rows, 1],
    }));
  }
}
