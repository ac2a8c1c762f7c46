import type { Op, Program } from '../gpu/ops.js';
import { Activations } from '../kernels/activations.js';
import type { Kernels } from '../kernels/kernels.js';
import { blocksFor, KvCache } from '../kernels/kv-cache.js';
import type { Splitter } from '../kernels/launch.js';
import { HeadActivations } from '../kernels/output-head.js';
import { ropeAngles } from '../kernels/rope-angles.js';
import { WeightBuffers } from '../kernels/weight-buffers.js';
import { assert, at } from '../lib/assert.js';
import { UserError } from '../lib/errors.js';
import type { ModelConfig } from '../model/config.js';
import type { Buckets, ParamLayout } from '../model/layout.js';
import { BackwardScratch } from './backward-scratch.js';
import { Backward } from './backward.js';
import { packMicroBatches, type MicroBatch, type ScoreSequence, type TrainSequence } from './batch.js';
import { type ForwardBuffers, ForwardPass } from './forward-pass.js';
import { ForwardTables } from './forward-tables.js';
import { type Job, JobRunner } from './jobs.js';
import { LossHead, type Objective } from './loss-head.js';
import { LossTables } from './loss-tables.js';
import { type AdamwOptions, clear, Optimizer } from './optimizer.js';
import { type HeadRowBuffers, ResultLayout, type TrainResult } from './results.js';
import { readStaging, Staging } from './staging.js';
import { type Exported, type Exports, StateExport, type TrainerState } from './state.js';

export interface TrainerOptions {
  /** Tokens of one micro-batch; activations of all layers are kept for so many. */
  readonly rowsMax: number;
  /** Longest sequence, prompt and completion. */
  readonly contextTokensMax: number;
  readonly adamw: AdamwOptions;
}

export interface StepOptions {
  readonly objective: Objective;
  readonly learningRate: number;
}

/** What becomes of the weights once a step has changed them, as a part of its program. */
export interface StepEnding {
  /** Hands them on, on the device. */
  readonly handOver: () => Generator<Op, void, void>;
  readonly exports: Exports;
}

export interface StepOutcome extends Exported {
  readonly result: TrainResult;
}

/** Row tables are dispatched with one row a workgroup along y. */
const ROWS_LIMIT = 65_535;
/** A micro-batch has room for sequences of so many rows on average; with shorter ones it is not quite full. */
const ROWS_PER_SLOT = 8;

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
  readonly #jobs: JobRunner;
  readonly #microBatchSlots: number;
  readonly #activations: Activations;
  readonly #buffers: ForwardBuffers;
  readonly #plain: GPUBuffer[] = [];
  readonly #scratch: BackwardScratch;
  readonly #lossTables: LossTables;
  readonly #policy: ForwardPass;
  readonly #lossHead: LossHead;
  readonly #backward: Backward;
  readonly #headRows: HeadRowBuffers;
  readonly #staging: Staging;
  readonly #export: StateExport;
  readonly #bytesFixed: number;
  #reference: { weights: WeightBuffers; pass: ForwardPass } | null = null;
  /** True while an update may have reached some weights and not others. */
  #torn = false;

  constructor(
    private readonly kernels: Kernels,
    readonly config: ModelConfig,
    private readonly layout: ParamLayout,
    readonly options: TrainerOptions,
  ) {
    const { gpu } = kernels;
    const { rowsMax, contextTokensMax, adamw } = options;
    assert(rowsMax > 0 && rowsMax <= ROWS_LIMIT, `micro-batches of ${rowsMax} tokens; at most ${ROWS_LIMIT}`);
    const bytesBefore = gpu.bytesAllocated;
    this.#jobs = new JobRunner(gpu);
    this.#microBatchSlots = Math.ceil(rowsMax / ROWS_PER_SLOT);
    this.weights = new WeightBuffers(gpu, layout, 'trainer weights');
    this.gradients = new WeightBuffers(gpu, layout, 'trainer gradients');
    this.#activations = new Activations(gpu, config, rowsMax, true);
    this.#scratch = new BackwardScratch(gpu, config, rowsMax);
    this.#lossTables = new LossTables(gpu, rowsMax);
    this.#buffers = this.#makeForwardBuffers(Math.min(contextTokensMax, rowsMax));
    this.#policy = new ForwardPass(kernels, config, this.weights, this.#buffers);
    const shared = { weights: this.weights, gradients: this.gradients, scratch: this.#scratch };
    this.#lossHead = new LossHead(kernels, config, {
      ...shared,
      head: this.#policy.head,
      stream: at(this.#activations.stream, config.layers),
      tables: this.#lossTables,
    });
    this.#backward = new Backward(kernels, config, {
      ...shared,
      activations: this.#activations,
      kv: this.#buffers.kv,
      inputs: this.#buffers.inputs,
      tokenSegments: this.#lossTables.slice('tokenSegments'),
      tokenOrder: this.#lossTables.slice('tokenOrder'),
    });
    this.optimizer = new Optimizer(kernels, layout, adamw, this.weights, this.gradients);
    const { sampled, stats } = this.#buffers.headActivations;
    this.#headRows = { sampled, stats, metrics: this.#lossHead.metrics };
    this.#staging = new Staging(gpu);
    this.#export = new StateExport(gpu, this.weights, this.optimizer);
    this.#bytesFixed = gpu.bytesAllocated - bytesBefore;
  }

  /** Bytes of all buffers the trainer holds now. */
  get bytes(): number {
    return (
      this.#bytesFixed + this.#staging.bytes + this.#export.bytes + (this.#reference?.weights.bytes ?? 0)
    );
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

  /** Goes on where another trainer was, bit for bit. */
  *loadState({ weights, moments, stepsTaken }: TrainerState): Program {
    assert(this.idle, 'a state loaded while a job is running');
    yield* this.weights.upload(weights);
    yield* this.optimizer.load(moments, stepsTaken);
    this.#torn = false;
  }

  /** Keeps a copy of the weights as they are now, for `score(…, 'reference')`. */
  *keepReference(): Program {
    this.#checkReady();
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
    const { ops, read } = this.#step(batch, split, options);
    return this.#jobs.start('step', ops, read);
  }

  /** As `step`, and in the same program what `ending` says. */
  stepAndExport(
    batch: readonly TrainSequence[],
    split: Splitter,
    options: StepOptions,
    { handOver, exports }: StepEnding,
  ): Job<StepOutcome> {
    const { ops, read } = this.#step(batch, split, options);
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
    const pass = which === 'policy' ? this.#policy : this.#reference?.pass;
    assert(pass !== undefined, 'no reference weights are kept');
    const layout = new ResultLayout(this.#pack(batch));
    const staging = this.#staging.reserve(layout.scoreBytes);
    const ops = this.#scoreOps(pass, batch, layout, staging, split);
    return this.#jobs.start(`score by the ${which}`, ops, async () =>
      layout.readLogprobs(batch, await readStaging(staging, layout.scoreBytes)),
    );
  }

  /** The weights as they are when the program runs, for the host. */
  exportWeights(): Job<Buckets> {
    this.#checkReady();
    return this.#jobs.start('export', this.#export.ops('weights'), () => this.#export.readWeights());
  }

  /** Everything the next step depends on, as it is when the program runs, for `loadState`. */
  exportState(): Job<TrainerState> {
    this.#checkReady();
    return this.#jobs.start('export', this.#export.ops('state'), () => this.#export.readState());
  }

  /** Frees every buffer. No job may be running: wait for its result, or give its program up. */
  destroy(): void {
    assert(this.idle, 'a trainer is destroyed while a job is running');
    const { gpu } = this.kernels;
    for (const buffer of this.#plain) gpu.destroyBuffer(buffer);
    const { headActivations, kv, tables } = this.#buffers;
    const owned = [this.weights, this.gradients, this.#activations, this.#scratch, this.#lossTables];
    const more = [headActivations, kv, tables, this.#lossHead, this.optimizer, this.#staging, this.#export];
    for (const part of [...owned, ...more]) part.destroy();
    this.#reference?.weights.destroy();
    this.#reference = null;
  }

  #step(
    batch: readonly TrainSequence[],
    split: Splitter,
    options: StepOptions,
  ): { ops: Generator<Op, void, void>; read: () => Promise<TrainResult> } {
    const microBatches = this.#pack(batch);
    const { objective } = options;
    const needsReference = objective.algorithm === 'grpo' && objective.klCoefficient !== 0;
    const scored = batch.every(({ refLogprobs }) => refLogprobs !== null);
    assert(!needsReference || scored, 'a KL term needs the log-probabilities of the reference');
    const layout = new ResultLayout(microBatches);
    const staging = this.#staging.reserve(layout.stepBytes);
    const ops = this.#stepOps(batch, layout, staging, split, options);
    const read = async (): Promise<TrainResult> => {
      const result = layout.readStep(batch, objective, await readStaging(staging, layout.stepBytes));
      if (!result.skipped) this.optimizer.countStep();
      this.#torn = false;
      return result;
    };
    return { ops, read };
  }

  *#stepOps(
    batch: readonly TrainSequence[],
    layout: ResultLayout,
    staging: GPUBuffer,
    split: Splitter,
    { objective, learningRate }: StepOptions,
  ): Generator<Op, void, void> {
    let headRow = 0;
    for (const [index, microBatch] of layout.microBatches.entries()) {
      const { writes, filters } = this.#buffers.tables.fill(batch, microBatch);
      const loss = this.#lossTables.fill(batch, microBatch);
      yield* writes;
      yield* loss.writes;
      // After the writes: host writes begin a slice.
      if (index === 0) yield* clear(this.gradients);
      yield* this.#policy.transformer.forward(microBatch, split);
      yield* this.#lossHead.run(microBatch, filters, objective, split);
      yield* this.#backward.run({ ...microBatch, tokenSegments: loss.tokenSegments }, split);
      yield* layout.copyRows(staging, headRow, microBatch.headRows, this.#headRows);
      headRow += microBatch.headRows;
    }
    this.#torn = true;
    yield* this.optimizer.step(learningRate, split);
    yield layout.copyClip(staging, this.optimizer.clip);
  }

  *#scoreOps(
    pass: ForwardPass,
    batch: readonly ScoreSequence[],
    layout: ResultLayout,
    staging: GPUBuffer,
    split: Splitter,
  ): Generator<Op, void, void> {
    let headRow = 0;
    for (const microBatch of layout.microBatches) {
      const { writes, filters } = this.#buffers.tables.fill(batch, microBatch);
      yield* writes;
      yield* pass.score(microBatch, filters, split);
      yield layout.copyScores(staging, headRow, microBatch.headRows, this.#headRows.sampled);
      headRow += microBatch.headRows;
    }
  }

  #pack(batch: readonly ScoreSequence[]): MicroBatch[] {
    this.#checkReady();
    const { contextTokensMax, rowsMax } = this.options;
    for (const { tokens } of batch) {
      if (tokens.length <= contextTokensMax) continue;
      throw new UserError(
        `a sequence of ${tokens.length} tokens is longer than the context of ${contextTokensMax}: shorten it or raise the limit`,
      );
    }
    const microBatches = packMicroBatches(batch, rowsMax, this.#microBatchSlots);
    assert(microBatches.length > 0, 'no token of the batch has a weight');
    return microBatches;
  }

  #checkReady(): void {
    assert(this.idle, 'one job at a time');
    assert(!this.#torn, 'a step was given up during its update: load weights first');
  }

  #makeForwardBuffers(positions: number): ForwardBuffers {
    const { kernels, config } = this;
    const { gpu } = kernels;
    const { rowsMax } = this.options;
    const plain = (name: string, bytes: number): GPUBuffer => {
      const buffer = gpu.createStorage(`trainer ${name}`, bytes);
      this.#plain.push(buffer);
      return buffer;
    };
    const slotsMax = this.#microBatchSlots;
    const blocksPerSlot = blocksFor(positions);
    const tables = new ForwardTables(gpu, { rowsMax, slotsMax, blocksPerSlot }, config.vocabSize);
    const turns = ropeAngles(config, positions);
    const angles = plain('angles', turns.byteLength);
    gpu.device.queue.writeBuffer(angles, 0, turns);
    const slotTokens = plain('slot tokens', slotsMax * 4);
    return {
      activations: this.#activations,
      headActivations: new HeadActivations(gpu, config, rowsMax),
      // Every sequence may leave its last block nearly empty.
      kv: new KvCache(gpu, config, blocksFor(rowsMax) + slotsMax, 'trainer'),
      tables,
      inputs: {
        rows: tables.slice('rows'),
        blockTable: tables.slice('blockTable'),
        blocksPerSlot,
        slotTokens,
        angles,
      },
      unused: { slotTokens, slotDone: plain('slot done', slotsMax * 4), stops: plain('stops', 4) },
    };
  }

  #makeReference(): { weights: WeightBuffers; pass: ForwardPass } {
    const weights = new WeightBuffers(this.kernels.gpu, this.layout, 'reference weights');
    return { weights, pass: new ForwardPass(this.kernels, this.config, weights, this.#buffers) };
  }
}

function* inTurn(...parts: (() => Generator<Op, void, void>)[]): Generator<Op, void, void> {
  for (const part of parts) yield* part();
}
