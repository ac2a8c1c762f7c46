import type { DispatchOp, Op } from '../gpu/ops.js';
import type { Bound, Kernels } from '../kernels/kernels.js';
import { groups, inPieces, THREADS, type Splitter } from '../kernels/launch.js';
import { clearChunks } from '../kernels/transfers.js';
import { WeightBuffers } from '../kernels/weight-buffers.js';
import { assert, at } from '../lib/assert.js';
import type { Buckets, ParamLayout } from '../model/layout.js';

export interface AdamwOptions {
  readonly beta1: number;
  readonly beta2: number;
  readonly epsilon: number;
  /** On matrices and embeddings, not on norm gains. */
  readonly weightDecay: number;
  /** Larger gradients are scaled down to this global norm; Infinity never does. */
  readonly gradNormMax: number;
}

/** A run of neighbouring tensors of one bucket that all take weight decay, or none of them. */
export interface DecayRun {
  readonly bucket: number;
  /** In elements. */
  readonly start: number;
  readonly count: number;
  readonly decay: boolean;
}

/** All parameters as few runs; the padding between neighbours goes along: it is zero and stays so. */
export function decayRuns({ tensors }: ParamLayout): DecayRun[] {
  const runs: DecayRun[] = [];
  for (const { bucket, offset, rows, columns, decay } of tensors) {
    const last = runs.at(-1);
    const end = offset + rows * columns;
    if (last?.bucket === bucket && last.decay === decay) {
      runs[runs.length - 1] = { ...last, count: end - last.start };
    } else {
      runs.push({ bucket, start: offset, count: end - offset, decay });
    }
  }
  return runs;
}

/** Partial sums of the gradient's square; one thread adds them up, so they are few. */
const PARTIALS_WANTED = 4096;
const STRETCH_MIN = 64;
const FLOAT32_MAX = (2 - 2 ** -23) * 2 ** 127;

/** (global norm, clip factor) as clip_scale.wgsl writes them. */
export const CLIP_BYTES = 8;

interface BucketKernels {
  readonly squares: Bound<'sum_squares'>;
  readonly update: Bound<'adamw_update'>;
}

/**
 * AdamW (Loshchilov and Hutter, 2019) with float32 moments and clipping by the global norm of all gradients
 * (Pascanu et al., 2013), on the device. A step whose gradient norm is not finite changes nothing.
 */
export class Optimizer {
  /** (global norm before clipping, clip factor), float32. */
  readonly clip: GPUBuffer;
  readonly moments: readonly [WeightBuffers, WeightBuffers];
  readonly #partials: GPUBuffer;
  readonly #partialCount: number;
  readonly #stretch: number;
  readonly #buckets: BucketKernels[];
  readonly #sum: Bound<'clip_scale'>;
  readonly #runs: readonly DecayRun[];
  #stepsTaken = 0;

  constructor(
    private readonly kernels: Kernels,
    private readonly layout: ParamLayout,
    private readonly options: AdamwOptions,
    weights: WeightBuffers,
    gradients: WeightBuffers,
  ) {
    const { gpu } = kernels;
    assert(options.gradNormMax > 0 && options.epsilon > 0, 'gradNormMax and epsilon are positive');
    const elements = layout.bucketElements.reduce((sum, count) => sum + count, 0);
    this.#stretch = Math.max(STRETCH_MIN, Math.ceil(elements / PARTIALS_WANTED));
    this.#partialCount = layout.bucketElements.reduce(
      (sum, count) => sum + Math.ceil(count / this.#stretch),
      0,
    );
    this.#partials = gpu.createStorage('gradient norm partials', this.#partialCount * 4);
    this.clip = gpu.createStorage('gradient clip', CLIP_BYTES);
    const first = new WeightBuffers(gpu, layout, 'first moments');
    const second = new WeightBuffers(gpu, layout, 'second moments');
    this.moments = [first, second];
    this.#runs = decayRuns(layout);
    const plain = { overrides: {}, prelude: {} };
    this.#buckets = gradients.buckets.map((bucket, i) => ({
      squares: kernels.bind('sum_squares', plain, { values: bucket, partials: this.#partials }),
      update: kernels.bind('adamw_update', plain, {
        gradients: bucket,
        clip: this.clip,
        weights: at(weights.buckets, i),
        moment1: at(first.buckets, i),
        moment2: at(second.buckets, i),
      }),
    }));
    this.#sum = kernels.bind('clip_scale', plain, { partials: this.#partials, result: this.clip });
  }

  /** Steps that changed the weights. */
  get stepsTaken(): number {
    return this.#stepsTaken;
  }

  /** Says that the last step changed the weights: only who has read its norm knows. */
  countStep(): void {
    this.#stepsTaken++;
  }

  /** Global norm, clip factor and the update of every weight. */
  *step(learningRate: number, split: Splitter): Generator<DispatchOp, void, void> {
    yield* this.#clip(split);
    const { beta1, beta2, epsilon, weightDecay } = this.options;
    const step = this.#stepsTaken + 1;
    for (const { bucket, start, count, decay } of this.#runs) {
      const { update } = at(this.#buckets, bucket);
      const work = { count, unit: THREADS, workEach: 1 };
      yield* inPieces(update, work, split, (from, length) => ({
        params: {
          start: start + from,
          count: length,
          learning_rate: learningRate,
          beta1,
          beta2,
          epsilon,
          weight_decay: decay ? weightDecay : 0,
          correction1: 1 - beta1 ** step,
          correction2: 1 - beta2 ** step,
          one_minus_beta1: 1 - beta1,
          one_minus_beta2: 1 - beta2,
        },
        grid: [groups(length), 1, 1],
      }));
    }
  }

  /** Back to the state before the first step. */
  *reset(): Generator<Op, void, void> {
    for (const moment of this.moments) yield* clear(moment);
    this.#stepsTaken = 0;
  }

  /** To where another optimizer was after `stepsTaken` steps. */
  *load(moments: readonly [Buckets, Buckets], stepsTaken: number): Generator<Op, void, void> {
    for (const [i, moment] of this.moments.entries()) yield* moment.upload(at(moments, i));
    this.#stepsTaken = stepsTaken;
  }

  destroy(): void {
    for (const moment of this.moments) moment.destroy();
    for (const buffer of [this.clip, this.#partials]) this.kernels.gpu.destroyBuffer(buffer);
  }

  *#clip(split: Splitter): Generator<DispatchOp, void, void> {
    const stretch = this.#stretch;
    let partialStart = 0;
    for (const [i, { squares }] of this.#buckets.entries()) {
      const elements = at(this.layout.bucketElements, i);
      const first = partialStart;
      yield* inPieces(squares, { count: elements, unit: stretch, workEach: 1 }, split, (start, count) => ({
        params: { start, count, stretch, partial_start: first + start / stretch },
        grid: [groups(Math.ceil(count / stretch)), 1, 1],
      }));
      partialStart += Math.ceil(elements / stretch);
    }
    // About PARTIALS_WANTED terms: too few to cut.
    const norm_max = Math.min(this.options.gradNormMax, FLOAT32_MAX);
    yield this.#sum.dispatch({ count: this.#partialCount, norm_max }, [1, 1, 1], this.#partialCount);
  }
}

/** Fills all buckets with zeros. */
export function* clear(buffers: WeightBuffers): Generator<Op, void, void> {
  for (const target of buffers.buckets) yield* clearChunks(target, target.size);
}
