import { assert } from '../lib/assert.js';
import { rewardFailure, type RewardFailureReason, type RewardResult } from './reward-result.js';
import type { Episode } from './task.js';
import { assertLimit, WorkerPool, type WorkerPoolOptions } from './worker-pool.js';

export type { RewardFailure, RewardFailureReason, RewardResult, RewardScores } from './reward-result.js';

export interface RewardPoolOptions extends WorkerPoolOptions {
  /** Longest time for one rollout's rewards, counted from when a worker begins on them. */
  readonly timeoutMs: number;
}

export interface ScoreRequest extends Episode {
  readonly rolloutId: string;
}

export interface RewardPoolStats {
  readonly running: number;
  /** Accepted, waiting for a worker. At most `queueMax`. */
  readonly queued: number;
  /** Not accepted yet: their callers wait for room. */
  readonly waiting: number;
  readonly scored: number;
  readonly failed: Readonly<Record<RewardFailureReason, number>>;
  /** Workers that were terminated or died, and replaced. */
  readonly workersLost: number;
}

/**
 * Scores rollouts in worker threads. Whatever a reward function does (throws, never returns, loops, exits, returns
 * NaN) marks its own rollout as failed and touches no other.
 */
export class RewardPool {
  protected readonly workers: WorkerPool;
  readonly #timeoutMs: number;
  readonly #failed = { threw: 0, 'timed out': 0, 'not a number': 0, exited: 0, closed: 0 };
  #scored = 0;

  constructor(options: RewardPoolOptions) {
    assertLimit(options.timeoutMs);
    this.#timeoutMs = options.timeoutMs;
    this.workers = new WorkerPool(options);
  }

  /** Scores one rollout, waiting for room first when the queue is full. Never rejects. */
  async score({ rolloutId, ...episode }: ScoreRequest): Promise<RewardResult> {
    const result = await this.#score(episode);
    if (!result.failed) {
      this.#scored++;
      return result;
    }
    this.#failed[result.reason]++;
    return rewardFailure(result.reason, `rollout ${rolloutId}: ${result.message}`);
  }

  /** Resolves once a call would be accepted at once: what a producer awaits before it makes more. */
  room(): Promise<void> {
    return this.workers.room();
  }

  /** Ends all workers, hung ones too, at once. Rollouts not scored by then fail as `closed`. */
  close(): Promise<void> {
    return this.workers.close();
  }

  get stats(): RewardPoolStats {
    return { ...this.workers.stats, scored: this.#scored, failed: { ...this.#failed } };
  }

  async #score(episode: Episode): Promise<RewardResult> {
    const result = await this.workers.run({ kind: 'score', episode }, { limitMs: this.#timeoutMs });
    if (result.failed) {
      assert(result.reason !== 'aborted', 'nobody can give a scoring up');
      return rewardFailure(result.reason, result.message);
    }
    const { answer } = result;
    if (answer.kind === 'score') return answer.result;
    const message = answer.kind === 'failed' ? answer.message : `the worker answered with ${answer.kind}`;
    return rewardFailure('threw', message);
  }
}
