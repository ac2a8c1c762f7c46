import type { Program } from '../gpu/ops.js';
import type { Kernels } from '../kernels/kernels.js';
import { assert } from '../lib/assert.js';
import { nowMs } from '../lib/clock.js';
import { toError, UserError } from '../lib/errors.js';
import type { Buckets } from '../model/layout.js';
import type { ResidentKind } from '../telemetry/records.js';
import type { Job } from '../train/jobs.js';
import type { TrainerState } from '../train/state.js';
import type { CostModel } from './cost-model.js';
import type { Executor } from './executor.js';
import { ProgramQueue } from './program-queue.js';

const LEARNER_PRIORITY = 1;

/** A program of a learner, and why it wants the device. */
export interface StageWork {
  readonly program: Program;
  readonly stage: string;
  /** When the host asked; when the lane's thread knew. Both now by default. */
  readonly requestedMs?: number;
  readonly detectedMs?: number;
}

export interface LearnerResidentParts {
  readonly lane: number;
  readonly job: string;
  readonly kernels: Kernels;
  readonly cost: CostModel;
  readonly executor: Executor;
  /** Puts the work in the queue and asks for the device; resolves when its last op is submitted. */
  readonly runStage: (queue: ProgramQueue, work: Required<StageWork>) => Promise<void>;
}

/** A model that is trained: `Trainer` or `Critic`. */
export interface Learnable {
  loadWeights(weights: Buckets): Program;
  loadState(state: TrainerState): Program;
  destroy(): void;
}

/**
 * What of a job is trained on a lane: everything it does is a stage that outranks generation. When a program of it
 * throws, it takes nothing more and says why; whoever else is on the lane goes on.
 */
export abstract class LearnerResident<Model extends Learnable> {
  readonly queue: ProgramQueue;
  /** Results that the device still owes. */
  readonly #owed = new Set<Promise<unknown>>();
  #isGoing = false;

  constructor(
    protected readonly parts: LearnerResidentParts,
    private readonly kind: Exclude<ResidentKind, 'engine'>,
    readonly model: Model,
    weight: number,
  ) {
    this.queue = new ProgramQueue(parts.job, kind, LEARNER_PRIORITY, () => null, undefined, weight);
    parts.executor.addResident(this.queue);
  }

  /** One step of the smallest kind, which changes nothing that counts. */
  protected abstract smallestStep(): Job<unknown>;

  /** Smallest steps, for its kernels to be timed; `outcome` settles with the last one made. */
  warmUp(): { readonly make: () => Program; readonly outcome: () => Promise<unknown> } {
    let result: Promise<unknown> = Promise.resolve();
    const make = (): Program => {
      const job = this.owe(this.smallestStep());
      result = job.result;
      return job.program;
    };
    return { make, outcome: () => result };
  }

  /**
   * Resolves when the program's last op is submitted.
   *
   * @throws the error of the program, or of the one that ended the learner
   */
  run({ program, stage, requestedMs = nowMs(), detectedMs = nowMs() }: StageWork): Promise<void> {
    return this.parts.runStage(this.queue, { program, stage, requestedMs, detectedMs });
  }

  /** Runs the job as a stage; resolves with its result. */
  async ask<T>(job: Job<T>, stage: Omit<StageWork, 'program'>): Promise<T> {
    const { program, result } = this.owe(job);
    await this.run({ program, ...stage });
    const answer = await result;
    this.parts.kernels.gpu.assertHealthy();
    return answer;
  }

  /** The job, of which it is remembered that the device owes its result: `remove` waits for it. */
  owe<T>(job: Job<T>): Job<T> {
    const result = job.result.catch(() => undefined);
    this.#owed.add(result);
    void result.finally(() => this.#owed.delete(result));
    return job;
  }

  /** Work that changes the weights: when it fails nobody knows what they are, unless it was refused, and that is the end. */
  async orFail<T>(work: () => Promise<T>): Promise<T> {
    try {
      return await work();
    } catch (error) {
      if (!(error instanceof UserError)) this.queue.close(toError(error));
      throw error;
    }
  }

  /** Ends it, once what was asked of it before is done, and frees its memory. */
  async remove(): Promise<void> {
    const { executor, lane, job } = this.parts;
    assert(!this.#isGoing, `the ${this.kind} of job ${job} is being removed already`);
    this.#isGoing = true;
    const last = this.queue.run(nothing());
    executor.wake();
    // One that failed has given up what waited.
    await last.catch(() => undefined);
    this.queue.close(new Error(`the ${this.kind} of job ${job} was removed from lane ${lane}`));
    await executor.idle(this.queue);
    while (this.#owed.size > 0) await Promise.all(this.#owed);
    executor.removeResident(this.queue);
    this.model.destroy();
  }
}

function* nothing(): Program {
  // Its end is what is waited for.
}
