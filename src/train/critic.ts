import type { Program } from '../gpu/ops.js';
import type { Kernels } from '../kernels/kernels.js';
import type { Splitter } from '../kernels/launch.js';
import { ValueHead } from '../kernels/value-head.js';
import type { WeightBuffers } from '../kernels/weight-buffers.js';
import type { ModelConfig } from '../model/config.js';
import type { Buckets, ParamLayout } from '../model/layout.js';
import type { MicroBatch, ValueSequence, WeightedSequence } from './batch.js';
import { CriticResultLayout, type CriticResult } from './critic-results.js';
import type { Job } from './jobs.js';
import { Learner, type StepEnding, type TrainerOptions } from './learner.js';
import { valueLossRow } from './loss-tables.js';
import type { Optimizer } from './optimizer.js';
import type { Exported, TrainerState } from './state.js';
import { ValueLossHead } from './value-loss-head.js';
import type { HeadWork, Work } from './work.js';

export interface CriticStepOptions {
  /** How far a value may move from its old one before its loss stops pulling it on; Infinity is no bound. */
  readonly clip: number;
  readonly learningRate: number;
}

export interface CriticStepOutcome extends Exported {
  readonly result: CriticResult;
}

/**
 * The critic of an actor and critic (PPO; Schulman et al., 2017): a transformer of the policy's architecture with
 * weights of its own and a number for each position in place of logits. Everything below the value head is what
 * `Trainer` runs, cut and exported the same way. One job runs at a time.
 */
export class Critic {
  /** The float32 master weights; see `criticLayout`. */
  readonly weights: WeightBuffers;
  /** Of the last step's whole batch, before clipping. */
  readonly gradients: WeightBuffers;
  readonly optimizer: Optimizer;
  readonly #learner: Learner<ValueSequence>;
  readonly #head: ValueHead;
  readonly #lossHead: ValueLossHead;
  readonly #bytesFixed: number;

  /** @param layout Of `criticLayout`. */
  constructor(
    kernels: Kernels,
    readonly config: ModelConfig,
    layout: ParamLayout,
    readonly options: TrainerOptions,
  ) {
    const { gpu } = kernels;
    const bytesBefore = gpu.bytesAllocated;
    const kind = { label: 'critic', lossRow: valueLossRow };
    this.#learner = new Learner(kernels, config, layout, options, kind);
    this.weights = this.#learner.weights;
    this.gradients = this.#learner.gradients;
    this.optimizer = this.#learner.optimizer;
    const parts = this.#learner.headParts;
    const rowIndex = this.#learner.forward.tables.slice('rowIndex');
    this.#head = new ValueHead(kernels, config, { ...parts, rowIndex }, options.rowsMax);
    this.#lossHead = new ValueLossHead(kernels, config, { ...parts, head: this.#head });
    this.#bytesFixed = gpu.bytesAllocated - bytesBefore;
  }

  /** Bytes of all buffers the critic holds now. */
  get bytes(): number {
    return this.#bytesFixed + this.#learner.bytesAdded;
  }

  /** True when no job's result is outstanding. */
  get idle(): boolean {
    return this.#learner.idle;
  }

  /** New weights from the host (see `criticWeights`), with a fresh optimizer. */
  loadWeights(weights: Buckets): Program {
    return this.#learner.loadWeights(weights);
  }

  /** Goes on where another critic was, bit for bit. */
  loadState(state: TrainerState): Program {
    return this.#learner.loadState(state);
  }

  /**
   * The value of each position with a weight, aligned as its sequence's weights and 0 elsewhere: the same bits however
   * the sequences are packed. The value at position t has seen the tokens up to t, and not what follows.
   *
   * @throws UserError when a sequence is longer than the context or a micro-batch.
   */
  values(batch: readonly WeightedSequence[], split: Splitter): Job<Float32Array<ArrayBuffer>[]> {
    const microBatches = this.#learner.pack(batch);
    const layout = new CriticResultLayout(microBatches);
    const head = ({ headRows }: MicroBatch): HeadWork => ({
      writes: [],
      run: (cut) => this.#head.run(headRows, cut),
      copyOut: (staging, firstRow) => [layout.copyValues(staging, firstRow, headRows, this.#head.values)],
    });
    const read = (bytes: ArrayBuffer) => layout.readValues(batch, bytes);
    const work = { batch, microBatches, head, bytes: layout.valueBytes, read };
    return this.#learner.evaluate('values', work, split, this.#learner.transformer);
  }

  /**
   * One optimizer step on Σ weight · ½ max((v − R)², (v_clipped − R)²): the weights carry mask and denominator.
   *
   * A step given up half-way may leave weights half updated: load weights before anything else then.
   *
   * @throws UserError when a sequence is longer than the context or a micro-batch.
   */
  step(batch: readonly ValueSequence[], split: Splitter, options: CriticStepOptions): Job<CriticResult> {
    return this.#learner.step(this.#stepWork(batch, options), options.learningRate, split);
  }

  /** As `step`, and in the same program what `ending` says. */
  stepAndExport(
    batch: readonly ValueSequence[],
    split: Splitter,
    options: CriticStepOptions,
    ending: StepEnding,
  ): Job<CriticStepOutcome> {
    const work = this.#stepWork(batch, options);
    return this.#learner.stepAndExport(work, options.learningRate, split, ending);
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
    for (const part of [this.#learner, this.#head, this.#lossHead]) part.destroy();
  }

  #stepWork(batch: readonly ValueSequence[], { clip }: CriticStepOptions): Work<ValueSequence, CriticResult> {
    const microBatches = this.#learner.pack(batch);
    const layout = new CriticResultLayout(microBatches);
    const head = (microBatch: MicroBatch): HeadWork => ({
      writes: [],
      run: (split) => this.#lossHead.run(microBatch, clip, split),
      copyOut: (staging, firstRow) => [
        layout.copyValues(staging, firstRow, microBatch.headRows, this.#head.values),
        layout.copyMetrics(staging, firstRow, microBatch.headRows, this.#lossHead.metrics),
      ],
    });
    const read = (bytes: ArrayBuffer): CriticResult => layout.readStep(batch, bytes);
    return { batch, microBatches, head, bytes: layout.stepBytes, read };
  }
}
