import type { Program } from '../gpu/ops.js';
import type { Kernels } from '../kernels/kernels.js';
import { assert } from '../lib/assert.js';
import { nowMs } from '../lib/clock.js';
import type { Job } from '../train/jobs.js';
import { Trainer } from '../train/trainer.js';
import { WARM_UP_STEP, warmUpBatch } from '../train/warm-up.js';
import type { CostModel } from './cost-model.js';
import type { Executor } from './executor.js';
import type { LaneRequest } from './messages.js';
import { ProgramQueue } from './program-queue.js';

const TRAINER_PRIORITY = 1;

/** A program of a trainer, and why it wants the device. */
export interface StageWork {
  readonly program: Program;
  readonly stage: string;
  /** When the host asked; when the lane's thread knew. Both now by default. */
  readonly requestedMs?: number;
  readonly detectedMs?: number;
}

export interface TrainerResidentParts {
  readonly lane: number;
  readonly job: string;
  readonly kernels: Kernels;
  readonly cost: CostModel;
  readonly executor: Executor;
  /** Puts the work in the queue and asks for the device; resolves when its last op is submitted. */
  readonly runStage: (queue: ProgramQueue, work: Required<StageWork>) => Promise<void>;
}

/**
 * A job's trainer on a lane: everything it does is a stage that outranks generation. When a program of it throws, the
 * trainer takes nothing more and says why; whoever else is on the lane goes on.
 */
export class TrainerResident {
  readonly trainer: Trainer;
  readonly queue: ProgramQueue;
  /** Results that the device still owes. */
  readonly #owed = new Set<Promise<unknown>>();
  #isGoing = false;

  constructor(
    private readonly parts: TrainerResidentParts,
    { config, layout, options, weight }: Extract<LaneRequest, { kind: 'createTrainer' }>,
  ) {
    const { kernels, executor, job } = parts;
    this.trainer = new Trainer(kernels, config, layout, options);
    this.queue = new ProgramQueue(job, 'trainer', TRAINER_PRIORITY, () => null, undefined, weight);
    executor.addResident(this.queue);
  }

  /** One step of the smallest kind, for its kernels to be timed; `outcome` settles with the last one made. */
  warmUp(): { readonly make: () => Program; readonly outcome: () => Promise<unknown> } {
    const { contextTokensMax, rowsMax } = this.trainer.options;
    const batch = warmUpBatch(Math.min(contextTokensMax, rowsMax));
    let result: Promise<unknown> = Promise.resolve();
    const make = (): Program => {
      const job = this.owe(this.trainer.step(batch, this.parts.cost, WARM_UP_STEP));
      result = job.result;
      return job.program;
    };
    return { make, outcome: () => result };
  }

  /**
   * Resolves when the program's last op is submitted.
   *
   * @throws the error of the program, or of the one that ended the trainer
   */
  run({ program, stage, requestedMs = nowMs(), detectedMs = nowMs() }: StageWork): Promise<void> {
    return this.parts.runStage(this.queue, { program, stage, requestedMs, detectedMs });
  }

  /** The job, of which it is remembered that the device owes its result: `remove` waits for it. */
  owe<T>(job: Job<T>): Job<T> {
    const result = job.result.catch(() => undefined);
    this.#owed.add(result);
    void result.finally(() => this.#owed.delete(result));
    return job;
  }

  /** Nobody knows what it holds: it does nothing more. */
  fail(error: Error): void {
    this.queue.close(error);
  }

  /** Ends it, once what was asked of it before is done, and frees its memory. */
  async remove(): Promise<void> {
    const { executor, lane, job } = this.parts;
    assert(!this.#isGoing, `the trainer of job ${job} is being removed already`);
    this.#isGoing = true;
    const last = this.queue.run(nothing());
    executor.wake();
    // One that failed has given up what waited.
    await last.catch(() => undefined);
    this.queue.close(new Error(`the trainer of job ${job} was removed from lane ${lane}`));
    await executor.idle(this.queue);
    while (this.#owed.size > 0) await Promise.all(this.#owed);
    executor.removeResident(this.queue);
    this.trainer.destroy();
  }
}

function* nothing(): Program {
  // Its end is what is waited for.
}
