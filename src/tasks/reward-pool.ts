import { Piscina } from 'piscina';
import { assert } from '../lib/assert.js';
import { errorText } from '../lib/errors.js';
import { rewardFailure, type RewardFailureReason, type RewardResult } from './reward-result.js';
import type { ScoreMessage } from './reward-worker.js';
import { Semaphore } from './semaphore.js';
import type { EnvironmentRef, Episode } from './task.js';
import { Watchdog } from './watchdog.js';

export type { RewardFailure, RewardFailureReason, RewardResult, RewardScores } from './reward-result.js';

export interface RewardPoolOptions {
  readonly environment: EnvironmentRef;
  /** Threads, all started at once; at least 1. */
  readonly workersMax: number;
  /** Longest time for one rollout's rewards, counted from when a worker begins on them. */
  readonly timeoutMs: number;
  /** Rollouts accepted beyond those being scored; later ones wait for room. */
  readonly queueMax: number;
  /** Longest time for a worker to start and load the environment. */
  readonly loadTimeoutMs?: number;
  /** Heap of one worker; a reward function that needs more loses its worker and is marked failed. */
  readonly heapMiBMax?: number;
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

const LOAD_TIMEOUT_MS = 30_000;
const HEAP_MIB_MAX = 512;
/** A thread inside a blocking system call cannot be terminated; closing does not wait longer for it. */
const CLOSE_MS_MAX = 5_000;
const TIMER_MS_MAX = 2 ** 31 - 1;

/**
 * Scores rollouts in worker threads, away from the lanes. Whatever a reward function does (throws, never returns,
 * loops, exits, returns NaN) marks its own rollout as failed and touches no other; a worker that cannot go on is
 * terminated and replaced.
 */
export class RewardPool {
  readonly #environment: EnvironmentRef;
  readonly #timeoutMs: number;
  readonly #loadTimeoutMs: number;
  readonly #pool: Piscina<ScoreMessage, RewardResult>;
  readonly #room: Semaphore;
  readonly #workers: Semaphore;
  readonly #failed = { threw: 0, 'timed out': 0, 'not a number': 0, exited: 0, closed: 0 };
  #running = 0;
  #scored = 0;
  #workersLost = 0;
  #closed = false;
  #termination: Promise<void> | undefined;

  constructor(options: RewardPoolOptions) {
    const { environment, workersMax, timeoutMs, queueMax } = options;
    const { loadTimeoutMs = LOAD_TIMEOUT_MS, heapMiBMax = HEAP_MIB_MAX } = options;
    assert(Number.isInteger(workersMax) && workersMax >= 1, `workersMax is ${workersMax}`);
    assert(Number.isInteger(queueMax) && queueMax >= 0, `queueMax is ${queueMax}`);
    for (const ms of [timeoutMs, loadTimeoutMs]) {
      assert(ms > 0 && ms <= TIMER_MS_MAX, `a time limit is ${ms} ms`);
    }
    this.#environment = environment;
    this.#timeoutMs = timeoutMs;
    this.#loadTimeoutMs = loadTimeoutMs;
    this.#room = new Semaphore(workersMax + queueMax);
    this.#workers = new Semaphore(workersMax);
    this.#pool = new Piscina<ScoreMessage, RewardResult>({
      filename: new URL('./reward-worker.js', import.meta.url).href,
      name: 'scoreRollout',
      minThreads: workersMax,
      maxThreads: workersMax,
      recordTiming: false,
      resourceLimits: { maxOldGenerationSizeMb: heapMiBMax },
    });
    this.#pool.on('workerDestroy', () => {
      if (!this.#closed) this.#workersLost++;
    });
    // An idle worker died. No rollout was on it and Piscina starts another; unheard, the event would end the process.
    this.#pool.on('error', () => undefined);
  }

  /** Scores one rollout, waiting for room first when the queue is full. Never rejects. */
  async score(request: ScoreRequest): Promise<RewardResult> {
    const result = await this.#room.use(() => this.#workers.use(() => this.#run(request)));
    if (result.failed) this.#failed[result.reason]++;
    else this.#scored++;
    return result;
  }

  /** Resolves once `score` would accept a rollout at once: what a producer awaits before it makes more. */
  async room(): Promise<void> {
    await this.#room.use(() => Promise.resolve());
  }

  /** Ends all workers, hung ones too, at once. Rollouts not scored by then fail as `closed`. */
  close(): Promise<void> {
    this.#closed = true;
    this.#termination ??= this.#terminate();
    return this.#termination;
  }

  get stats(): RewardPoolStats {
    return {
      running: this.#running,
      queued: this.#workers.waiting,
      waiting: this.#room.waiting,
      scored: this.#scored,
      failed: { ...this.#failed },
      workersLost: this.#workersLost,
    };
  }

  /** At most `workersMax` of these run at once, so Piscina's own queue holds only what waits for a new worker. */
  async #run({ rolloutId, task, text, finishReason }: ScoreRequest): Promise<RewardResult> {
    if (this.#closed) return closedFailure(rolloutId);
    const abort = new AbortController();
    let late: 'loading' | 'scoring' | undefined;
    const watchdog = new Watchdog({
      limitMs: this.#timeoutMs,
      loadLimitMs: this.#loadTimeoutMs,
      onExpire: (what) => {
        late = what;
        // Piscina answers an abort of a running task by terminating its worker, which stops even a busy loop.
        abort.abort();
      },
    });
    const { startedNs } = watchdog;
    const message = { environment: this.#environment, episode: { task, text, finishReason }, startedNs };
    this.#running++;
    try {
      const result = await this.#pool.run(message, { signal: abort.signal });
      return result.failed ? { ...result, message: `rollout ${rolloutId}: ${result.message}` } : result;
    } catch (error) {
      if (late !== undefined) return this.#timeoutFailure(rolloutId, late);
      return this.#closed ? closedFailure(rolloutId) : lostFailure(rolloutId, error);
    } finally {
      watchdog.stop();
      this.#running--;
    }
  }

  #timeoutFailure(rolloutId: string, late: 'loading' | 'scoring'): RewardResult {
    const limitMs = late === 'scoring' ? this.#timeoutMs : this.#loadTimeoutMs;
    return rewardFailure('timed out', `rollout ${rolloutId}: ${late} took longer than ${limitMs} ms`);
  }

  async #terminate(): Promise<void> {
    let timer: NodeJS.Timeout | undefined;
    const patience = new Promise<void>((resolve) => (timer = setTimeout(resolve, CLOSE_MS_MAX)));
    await Promise.race([this.#pool.destroy(), patience]);
    clearTimeout(timer);
  }
}

function closedFailure(rolloutId: string): RewardResult {
  return rewardFailure('closed', `rollout ${rolloutId}: the reward pool closed before it was scored`);
}

/** The worker died under the rollout, or the rollout's task holds something that cannot be sent to it. */
function lostFailure(rolloutId: string, error: unknown): RewardResult {
  const unsendable = error instanceof DOMException && error.name === 'DataCloneError';
  return rewardFailure(unsendable ? 'threw' : 'exited', `rollout ${rolloutId}: ${errorText(error)}`);
}
