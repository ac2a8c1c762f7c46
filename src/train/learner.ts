import type { Op, Program } from '../gpu/ops.js';
import type { Kernels } from '../kernels/kernels.js';
import type { Splitter } from '../kernels/launch.js';
import type { Transformer } from '../kernels/transformer.js';
import { WeightBuffers } from '../kernels/weight-buffers.js';
import { assert } from '../lib/assert.js';
import { UserError } from '../lib/errors.js';
import type { ModelConfig } from '../model/config.js';
import type { Buckets, ParamLayout } from '../model/layout.js';
import { BackwardScratch } from './backward-scratch.js';
import { Backward } from './backward.js';
import { packMicroBatches, type MicroBatch, type WeightedSequence } from './batch.js';
import type { FinalNormParts } from './final-norm-grad.js';
import { ForwardBuffers } from './forward-buffers.js';
import { type Job, JobRunner } from './jobs.js';
import { type LossRow, LossTables } from './loss-tables.js';
import { type AdamwOptions, clear, CLIP_BYTES, Optimizer } from './optimizer.js';
import { readStaging, Staging } from './staging.js';
import { type Exported, type Exports, StateExport, type TrainerState } from './state.js';
import type { Work } from './work.js';

export interface TrainerOptions {
  /** Tokens of one micro-batch; activations of all layers are kept for so many. */
  readonly rowsMax: number;
  /** Longest sequence, prompt and completion. */
  readonly contextTokensMax: number;
  readonly adamw: AdamwOptions;
}

/** What becomes of the weights once a step has changed them, as a part of its program. */
export interface StepEnding {
  /** Hands them on, on the device. */
  readonly handOver: () => Generator<Op, void, void>;
  readonly exports: Exports;
}

/** What the host must learn of a step: one that was skipped did not change the weights. */
interface Verdict {
  readonly skipped: boolean;
}

interface StepParts<T> {
  readonly ops: Generator<Op, void, void>;
  readonly read: () => Promise<T>;
}

/** Row tables are dispatched with one row a workgroup along y. */
const ROWS_LIMIT = 65_535;
/** A micro-batch has room for sequences of so many rows on average; with shorter ones it is not quite full. */
const ROWS_PER_SLOT = 8;

/**
 * A transformer's layers being trained, whatever head stands on them: weights, forward and backward pass, clipping,
 * AdamW, and the jobs that run them. `Trainer` puts the output head and the policy's loss on top, `Critic` the value
 * head and its loss.
 */
export class Learner<S extends WeightedSequence> {
  readonly weights: WeightBuffers;
  readonly gradients: WeightBuffers;
  readonly optimizer: Optimizer;
  readonly forward: ForwardBuffers;
  /** The layers, bound to the weights. */
  readonly transformer: Transformer;
  readonly #jobs: JobRunner;
  readonly #scratch: BackwardScratch;
  readonly #lossTables: LossTables<S>;
  readonly #backward: Backward;
  readonly #staging: Staging;
  readonly #export: StateExport;
  /** True while an update may have reached some weights and not others. */
  #torn = false;

  constructor(
    kernels: Kernels,
    config: ModelConfig,
    layout: ParamLayout,
    private readonly options: TrainerOptions,
    { label, lossRow }: { readonly label: string; readonly lossRow: LossRow<S> },
  ) {
    const { gpu } = kernels;
    const { rowsMax, contextTokensMax, adamw } = options;
    assert(rowsMax > 0 && rowsMax <= ROWS_LIMIT, `micro-batches of ${rowsMax} tokens; at most ${ROWS_LIMIT}`);
    this.#jobs = new JobRunner(gpu);
    this.weights = new WeightBuffers(gpu, layout, `${label} weights`);
    this.gradients = new WeightBuffers(gpu, layout, `${label} gradients`);
    this.#scratch = new BackwardScratch(gpu, config, rowsMax);
    this.#lossTables = new LossTables(gpu, rowsMax, lossRow);
    const slotsMax = Math.ceil(rowsMax / ROWS_PER_SLOT);
    const positionsMax = Math.min(contextTokensMax, rowsMax);
    this.forward = new ForwardBuffers(kernels, config, { rowsMax, slotsMax, positionsMax }, label);
    this.transformer = this.forward.transformer(this.weights);
    this.#backward = new Backward(kernels, config, {
      weights: this.weights,
      gradients: this.gradients,
      scratch: this.#scratch,
      activations: this.forward.activations,
      kv: this.forward.kv,
      inputs: this.forward.inputs,
      tokenSegments: this.#lossTables.slice('tokenSegments'),
      tokenOrder: this.#lossTables.slice('tokenOrder'),
    });
    this.optimizer = new Optimizer(kernels, layout, adamw, this.weights, this.gradients);
    this.#staging = new Staging(gpu);
    this.#export = new StateExport(gpu, this.weights, this.optimizer);
  }

  /** What a loss head is bound to. */
  get headParts(): FinalNormParts {
    return {
      weights: this.weights,
      gradients: this.gradients,
      scratch: this.#scratch,
      stream: this.forward.stream,
      tables: this.#lossTables,
      rowsMax: this.options.rowsMax,
    };
  }

  /** Bytes of the buffers that came with the jobs, beside those made at the start. */
  get bytesAdded(): number {
    return this.#staging.bytes + this.#export.bytes;
  }

  /** True when no job's result is outstanding. */
  get idle(): boolean {
    return this.#jobs.idle;
  }

  /** New weights from the host, with a fresh optimizer. */
  *loadWeights(weights: Buckets): Program {
    assert(this.idle, 'weights loaded while a job is running');
    yield* this.weights.upload(weights);
    yield* this.optimizer.reset();
    this.#torn = false;
  }

  /** Goes on where another learner was, bit for bit. */
  *loadState({ weights, moments, stepsTaken }: TrainerState): Program {
    assert(this.idle, 'a state loaded while a job is running');
    yield* this.weights.upload(weights);
    yield* this.optimizer.load(moments, stepsTaken);
    this.#torn = false;
  }

  /** @throws UserError when a sequence is longer than the context or a micro-batch. */
  pack(batch: readonly WeightedSequence[]): MicroBatch[] {
    this.checkReady();
    const { contextTokensMax, rowsMax } = this.options;
    for (const { tokens } of batch) {
      if (tokens.length <= contextTokensMax) continue;
      throw new UserError(
        `a sequence of ${tokens.length} tokens is longer than the context of ${contextTokensMax}: shorten it or raise the limit`,
      );
    }
    const microBatches = packMicroBatches(batch, rowsMax, this.forward.limits.slotsMax);
    assert(microBatches.length > 0, 'no token of the batch has a weight');
    return microBatches;
  }

  /** Forward passes only, through the learner's own layers or through others that `forward` was bound to. */
  evaluate<B extends WeightedSequence, T>(
    name: string,
    work: Work<B, T>,
    split: Splitter,
    transformer: Transformer,
  ): Job<T> {
    const staging = this.#staging.reserve(work.bytes);
    const ops = this.#evaluateOps(work, staging, split, transformer);
    return this.#jobs.start(name, ops, async () => work.read(await readStaging(staging, work.bytes)));
  }

  /** One optimizer step: gradients are summed over the micro-batches, clipped, and applied. */
  step<T extends Verdict>(work: Work<S, T>, learningRate: number, split: Splitter): Job<T> {
    const { ops, read } = this.#step(work, learningRate, split);
    return this.#jobs.start('step', ops, read);
  }

  /** As `step`, and in the same program what `ending` says. */
  stepAndExport<T extends Verdict>(
    work: Work<S, T>,
    learningRate: number,
    split: Splitter,
    { handOver, exports }: StepEnding,
  ): Job<Exported & { readonly result: T }> {
    const { ops, read } = this.#step(work, learningRate, split);
    const program = inTurn(
      () => ops,
      handOver,
      () => this.#export.ops(exports),
    );
    return this.#jobs.start('step', program, async () => {
      const result = await read();
      return { result, ...(await this.#export.read()) };
    });
  }

  /** The weights as they are when the program runs, for the host. */
  exportWeights(): Job<Buckets> {
    this.checkReady();
    return this.#jobs.start('export', this.#export.ops('weights'), () => this.#export.readWeights());
  }

  /** Everything the next step depends on, as it is when the program runs, for `loadState`. */
  exportState(): Job<TrainerState> {
    this.checkReady();
    return this.#jobs.start('export', this.#export.ops('state'), () => this.#export.readState());
  }

  /** That no job is running and the weights are whole. */
  checkReady(): void {
    assert(this.idle, 'one job at a time');
    assert(!this.#torn, 'a step was given up during its update: load weights first');
  }

  destroy(): void {
    assert(this.idle, 'a trainer is destroyed while a job is running');
    const owned = [this.weights, this.gradients, this.#scratch, this.#lossTables, this.forward];
    for (const part of [...owned, this.optimizer, this.#staging, this.#export]) part.destroy();
  }

  #step<T extends Verdict>(work: Work<S, T>, learningRate: number, split: Splitter): StepParts<T> {
    const staging = this.#staging.reserve(work.bytes);
    const ops = this.#stepOps(work, staging, learningRate, split);
    const read = async (): Promise<T> => {
      const result = work.read(await readStaging(staging, work.bytes));
      if (!result.skipped) this.optimizer.countStep();
      this.#torn = false;
      return result;
    };
    return { ops, read };
  }

  *#stepOps<T>(
    { batch, microBatches, head, bytes }: Work<S, T>,
    staging: GPUBuffer,
    learningRate: number,
    split: Splitter,
  ): Generator<Op, void, void> {
    let headRow = 0;
    for (const [index, microBatch] of microBatches.entries()) {
      const work = head(microBatch);
      const loss = this.#lossTables.fill(batch, microBatch);
      yield* this.forward.tables.fill(batch, microBatch);
      yield* work.writes;
      yield* loss.writes;
      // After the writes: host writes begin a slice.
      if (index === 0) yield* clear(this.gradients);
      yield* this.transformer.forward(microBatch, split);
      yield* work.run(split);
      yield* this.#backward.run({ ...microBatch, tokenSegments: loss.tokenSegments }, split);
      yield* work.copyOut(staging, headRow);
      headRow += microBatch.headRows;
    }
    this.#torn = true;
    yield* this.optimizer.step(learningRate, split);
    const targetOffset = bytes - CLIP_BYTES;
    const { clip } = this.optimizer;
    yield { kind: 'copy', source: clip, sourceOffset: 0, target: staging, targetOffset, bytes: CLIP_BYTES };
  }

  *#evaluateOps<B extends WeightedSequence, T>(
    { batch, microBatches, head }: Work<B, T>,
    staging: GPUBuffer,
    split: Splitter,
    transformer: Transformer,
  ): Generator<Op, void, void> {
    let headRow = 0;
    for (const microBatch of microBatches) {
      const work = head(microBatch);
      yield* this.forward.tables.fill(batch, microBatch);
      yield* work.writes;
      yield* transformer.forward(microBatch, split);
      yield* work.run(split);
      yield* work.copyOut(staging, headRow);
      headRow += microBatch.headRows;
    }
  }
}

function* inTurn(...parts: (() => Generator<Op, void, void>)[]): Generator<Op, void, void> {
  for (const part of parts) yield* part();
}
