import type { Program } from '../gpu/ops.js';
import type { Kernels } from '../kernels/kernels.js';
import type { Splitter } from '../kernels/launch.js';
import type { OutputHead } from '../kernels/output-head.js';
import type { Transformer } from '../kernels/transformer.js';
import { WeightBuffers } from '../kernels/weight-buffers.js';
import { assert } from '../lib/assert.js';
import type { ModelConfig } from '../model/config.js';
import type { Buckets, ParamLayout } from '../model/layout.js';
import type { MicroBatch, ScoreSequence, TrainSequence } from './batch.js';
import type { Job } from './jobs.js';
import { Learner, type StepEnding, type TrainerOptions } from './learner.js';
import { LossHead, type Objective } from './loss-head.js';
import { policyLossRow } from './loss-tables.js';
import type { Optimizer } from './optimizer.js';
import { type HeadRowBuffers, ResultLayout, type TrainResult } from './results.js';
import { ScoreHead } from './score-head.js';
import type { Exported, TrainerState } from './state.js';
import type { HeadWork, Work } from './work.js';

export type { StepEnding, TrainerOptions } from './learner.js';

export interface StepOptions {
  readonly objective: Objective;
  readonly learningRate: number;
}

export interface StepOutcome extends Exported {
  readonly result: TrainResult;
}

/** One set of weights, ready to score with. */
interface Policy {
  readonly transformer: Transformer;
  readonly head: OutputHead;
}

/**
 * Trains one model on one device: forward pass with the very kernels that generate, backward pass, clipping and
 * AdamW, all as programs that may be cut after any op. It owns every buffer it uses, so other residents' work may
 * come in between. One job runs at a time.
 */
export class Trainer {
  /** The float32 master weights. */
  readonly weights: WeightBuffers;
  /** Of the last step's whole batch, before clipping. */
  readonly gradients: WeightBuffers;
  readonly optimizer: Optimizer;
  readonly #learner: Learner<TrainSequence>;
  readonly #scoreHead: ScoreHead;
  readonly #policy: Policy;
  readonly #lossHead: LossHead;
  readonly #headRows: HeadRowBuffers;
  readonly #bytesFixed: number;
  #reference: (Policy & { readonly weights: WeightBuffers }) | null = null;

  constructor(
    private readonly kernels: Kernels,
    readonly config: ModelConfig,
    private readonly layout: ParamLayout,
    readonly options: TrainerOptions,
  ) {
    const { gpu } = kernels;
    const bytesBefore = gpu.bytesAllocated;
    const kind = { label: 'trainer', lossRow: policyLossRow };
    this.#learner = new Learner(kernels, config, layout, options, kind);
    this.weights = this.#learner.weights;
    this.gradients = this.#learner.gradients;
    this.optimizer = this.#learner.optimizer;
    this.#scoreHead = new ScoreHead(kernels, config, this.#learner.forward);
    const head = this.#scoreHead.bind(this.weights);
    this.#policy = { transformer: this.#learner.transformer, head };
    this.#lossHead = new LossHead(kernels, config, { ...this.#learner.headParts, head });
    const { sampled, stats } = this.#scoreHead.activations;
    this.#headRows = { sampled, stats, metrics: this.#lossHead.metrics };
    this.#bytesFixed = gpu.bytesAllocated - bytesBefore;
  }

  /** Bytes of all buffers the trainer holds now. */
  get bytes(): number {
    return this.#bytesFixed + this.#learner.bytesAdded + (this.#reference?.weights.bytes ?? 0);
  }

  /** True when no job's result is outstanding. */
  get idle(): boolean {
    return this.#learner.idle;
  }

  /** New weights from the host, with a fresh optimizer. */
  loadWeights(weights: Buckets): Program {
    return this.#learner.loadWeights(weights);
  }

  /** Goes on where another trainer was, bit for bit. */
  loadState(state: TrainerState): Program {
    return this.#learner.loadState(state);
  }

  /** Keeps a copy of the weights as they are now, for `score(…, 'reference')`. */
  *keepReference(): Program {
    this.#learner.checkReady();
    this.#reference ??= this.#makeReference();
    yield* this.#reference.weights.copyFrom(this.weights);
  }

  /**
   * One optimizer step over a batch: gradients are summed over its micro-batches, clipped, and applied.
   *
   * A step given up half-way may leave weights half updated: load weights before anything else then.
   *
   * @throws UserError when a sequence is longer than the context or a micro-batch.
   */
  step(batch: readonly TrainSequence[], split: Splitter, options: StepOptions): Job<TrainResult> {
    return this.#learner.step(this.#stepWork(batch, options), options.learningRate, split);
  }

  /** As `step`, and in the same program what `ending` says. */
  stepAndExport(
    batch: readonly TrainSequence[],
    split: Splitter,
    options: StepOptions,
    ending: StepEnding,
  ): Job<StepOutcome> {
    const work = this.#stepWork(batch, options);
    return this.#learner.stepAndExport(work, options.learningRate, split, ending);
  }

  /**
   * Log-probabilities of the tokens with a weight under each sequence's sampling distribution, aligned as its
   * weights. They equal those of generation bit for bit, however the sequences are packed.
   *
   * @throws UserError when a sequence is longer than the context or a micro-batch.
   */
  score(
    batch: readonly ScoreSequence[],
    split: Splitter,
    which: 'policy' | 'reference',
  ): Job<Float32Array<ArrayBuffer>[]> {
    const policy = which === 'policy' ? this.#policy : this.#reference;
    assert(policy !== null, 'no reference weights are kept');
    const { transformer, head } = policy;
    return this.#learner.evaluate(`score by the ${which}`, this.#scoreWork(batch, head), split, transformer);
  }

  /** The weights as they are when the program runs, for the host. */
  exportWeights(): Job<Buckets> {
    return this.#learner.exportWeights();
  }

  /** Everything the next step depends on, as it is when the program runs, for `loadState`. */
  exportState(): Job<TrainerState> {
    return this.#learner.exportState();
  }

  /** Frees every buffer. No job may be running: wait for its result, or give its program up. */
  destroy(): void {
    for (const part of [this.#learner, this.#scoreHead, this.#lossHead]) part.destroy();
    this.#reference?.weights.destroy();
    this.#reference = null;
  }

  #stepWork(batch: readonly TrainSequence[], { objective }: StepOptions): Work<TrainSequence, TrainResult> {
    const microBatches = this.#learner.pack(batch);
    const needsReference = objective.algorithm === 'grpo' && objective.klCoefficient !== 0;
    const scored = batch.every(({ refLogprobs }) => refLogprobs !== null);
    assert(!needsReference || scored, 'a KL term needs the log-probabilities of the reference');
    const layout = new ResultLayout(microBatches);
    const head = (microBatch: MicroBatch): HeadWork => {
      const { writes, filters } = this.#scoreHead.fill(batch, microBatch);
      return {
        writes,
        run: (split) => this.#lossHead.run(microBatch, filters, objective, split),
        copyOut: (staging, firstRow) =>
          layout.copyRows(staging, firstRow, microBatch.headRows, this.#headRows),
      };
    };
    const read = (bytes: ArrayBuffer): TrainResult => layout.readStep(batch, objective, bytes);
    return { batch, microBatches, head, bytes: layout.stepBytes, read };
  }

  #scoreWork(
    batch: readonly ScoreSequence[],
    outputHead: OutputHead,
  ): Work<ScoreSequence, Float32Array<ArrayBuffer>[]> {
    const microBatches = this.#learner.pack(batch);
    const layout = new ResultLayout(microBatches);
    const head = (microBatch: MicroBatch): HeadWork => {
      const { writes, filters } = this.#scoreHead.fill(batch, microBatch);
      const { headRows } = microBatch;
      return {
        writes,
        run: (split) => outputHead.run(headRows, filters, split),
        copyOut: (staging, firstRow) => [
          layout.copyScores(staging, firstRow, headRows, this.#headRows.sampled),
        ],
      };
    };
    const read = (bytes: ArrayBuffer) => layout.readLogprobs(batch, bytes);
    return { batch, microBatches, head, bytes: layout.scoreBytes, read };
  }

  #makeReference(): Policy & { readonly weights: WeightBuffers } {
    const weights = new WeightBuffers(this.kernels.gpu, this.layout, 'reference weights');
    const transformer = this.#learner.forward.transformer(weights);
    return { weights, transformer, head: this.#scoreHead.bind(weights) };
  }
}
