import { Piscina } from 'piscina';
import { assert } from '../lib/assert.js';
import { nowMs } from '../lib/clock.js';
import { errorText } from '../lib/errors.js';
import type { Call, CallAnswer, CallMessage } from './calls.js';
import { raceAbort } from './race-abort.js';
import { Semaphore } from './semaphore.js';
import type { EnvironmentRef } from './task.js';
import { Watchdog } from './watchdog.js';

export interface WorkerPoolOptions {
  readonly environment: EnvironmentRef;
  /** Threads, all started at once; at least 1. */
  readonly workersMax: number;
  /** Calls accepted beyond those being answered; later ones wait for room. */
  readonly queueMax: number;
  /** Longest time for a worker to start and load the environment. */
  readonly loadTimeoutMs?: number | undefined;
  /** Heap of one worker; an environment that needs more loses its worker and fails the call. */
  readonly heapMiBMax?: number | undefined;
}

/**
 * Why a call has no answer: what was sent cannot be sent, it ran past its limit, it took its worker down (exit, out
 * of memory), the pool closed first, or its caller gave it up.
 */
export type CallFailureReason = 'threw' | 'timed out' | 'exited' | 'closed' | 'aborted';

export interface CallFailure {
  readonly failed: true;
  readonly reason: CallFailureReason;
  readonly message: string;
}

export interface CallSuccess {
  readonly failed: false;
  readonly answer: CallAnswer;
  /** From the request until a worker began on it. */
  readonly queuedMs: number;
  /** When a worker began on it, on lib/clock. */
  readonly beganMs: number;
}

export interface CallOptions {
  /** Longest time for the call, counted from when a worker begins on it. */
  readonly limitMs: number;
  readonly signal?: AbortSignal | undefined;
}

const DOING = { score: 'scoring', reset: 'resetting', step: 'stepping' } as const;
const LOAD_TIMEOUT_MS = 30_000;
const HEAP_MIB_MAX = 512;
/** A thread inside a blocking system call cannot be terminated; closing does not wait longer for it. */
const CLOSE_MS_MAX = 5_000;
const TIMER_MS_MAX = 2 ** 31 - 1;

export function assertLimit(ms: number): void {
  assert(ms > 0 && ms <= TIMER_MS_MAX, `a time limit is ${ms} ms`);
}

/**
 * Asks environments in worker threads, away from the lanes. Whatever an environment does (throws, never returns,
 * loops, exits) fails its own call and touches no other; a worker that cannot go on is terminated and replaced.
 */
export class WorkerPool {
  readonly #environment: EnvironmentRef;
  readonly #loadTimeoutMs: number;
  readonly #pool: Piscina<CallMessage, CallAnswer>;
  readonly #room: Semaphore;
  readonly #workers: Semaphore;
  #running = 0;
  #workersLost = 0;
  #closed = false;
  #termination: Promise<void> | undefined;

  constructor(options: WorkerPoolOptions) {
    const { environment, workersMax, queueMax } = options;
    const { loadTimeoutMs = LOAD_TIMEOUT_MS, heapMiBMax = HEAP_MIB_MAX } = options;
    assert(Number.isInteger(workersMax) && workersMax >= 1, `workersMax is ${workersMax}`);
    assert(Number.isInteger(queueMax) && queueMax >= 0, `queueMax is ${queueMax}`);
    assertLimit(loadTimeoutMs);
    this.#environment = environment;
    this.#loadTimeoutMs = loadTimeoutMs;
    this.#room = new Semaphore(workersMax + queueMax);
    this.#workers = new Semaphore(workersMax);
    this.#pool = new Piscina<CallMessage, CallAnswer>({
      filename: new URL('./environment-worker.js', import.meta.url).href,
      name: 'answerCall',
      minThreads: workersMax,
      maxThreads: workersMax,
      recordTiming: false,
      resourceLimits: { maxOldGenerationSizeMb: heapMiBMax },
    });
    this.#pool.on('workerDestroy', () => {
      if (!this.#closed) this.#workersLost++;
    });
    // An idle worker died. No call was on it and Piscina starts another; unheard, the event would end the process.
    this.#pool.on('error', () => undefined);
  }

  /**
   * Answers one call, waiting for room first when the queue is full. Never rejects. A caller that aborts is answered
   * at once; its call leaves the queue, or where a worker has begun on it, ends there unheard within its limit.
   */
  async run(call: Call, { limitMs, signal }: CallOptions): Promise<CallSuccess | CallFailure> {
    const requestedMs = nowMs();
    const work = (): Promise<CallSuccess | CallFailure> => this.#run(call, limitMs, requestedMs);
    try {
      return await raceAbort(
        this.#room.use(() => this.#workers.use(work, signal), signal),
        signal,
      );
    } catch (error) {
      if (signal?.aborted !== true) throw error;
      return callFailure('aborted', `${DOING[call.kind]} was given up by its caller`);
    }
  }

  /** Resolves once `run` would accept a call at once: what a producer awaits before it makes more. */
  async room(): Promise<void> {
    await this.#room.use(() => Promise.resolve());
  }

  /** Ends all workers, hung ones too, at once. Calls not answered by then fail as `closed`. */
  close(): Promise<void> {
    this.#closed = true;
    this.#termination ??= this.#terminate();
    return this.#termination;
  }

  get stats(): { running: number; queued: number; waiting: number; workersLost: number } {
    return {
      running: this.#running,
      queued: this.#workers.waiting,
      waiting: this.#room.waiting,
      workersLost: this.#workersLost,
    };
  }

  /** At most `workersMax` of these run at once, so Piscina's own queue holds only what waits for a new worker. */
  async #run(call: Call, limitMs: number, requestedMs: number): Promise<CallSuccess | CallFailure> {
    if (this.#closed) return closedFailure();
    const abort = new AbortController();
    let late: 'loading' | 'running' | undefined;
    const watchdog = new Watchdog({
      limitMs,
      loadLimitMs: this.#loadTimeoutMs,
      onExpire: (what) => {
        late = what;
        // Piscina answers an abort of a running task by terminating its worker, which stops even a busy loop.
        abort.abort();
      },
    });
    const { startedNs } = watchdog;
    this.#running++;
    try {
      const message = { environment: this.#environment, call, startedNs };
      const answer = await this.#pool.run(message, { signal: abort.signal });
      // A worker that could not load the environment never began.
      const beganMs = Number(Atomics.load(startedNs, 0)) / 1e6 || nowMs();
      return { failed: false, answer, beganMs, queuedMs: beganMs - requestedMs };
    } catch (error) {
      if (late !== undefined) {
        const [what, ms] = late === 'loading' ? [late, this.#loadTimeoutMs] : [DOING[call.kind], limitMs];
        return callFailure('timed out', `${what} took longer than ${ms} ms`);
      }
      return this.#closed ? closedFailure() : lostFailure(error);
    } finally {
      watchdog.stop();
      this.#running--;
    }
  }

  async #terminate(): Promise<void> {
    let timer: NodeJS.Timeout | undefined;
    const patience = new Promise<void>((resolve) => (timer = setTimeout(resolve, CLOSE_MS_MAX)));
    await Promise.race([this.#pool.destroy(), patience]);
    clearTimeout(timer);
  }
}

function callFailure(reason: CallFailureReason, message: string): CallFailure {
  return { failed: true, reason, message };
}

function closedFailure(): CallFailure {
  return callFailure('closed', 'the pool closed before it was answered');
}

/** The worker died under the call, or the call holds something that cannot be sent to it. */
function lostFailure(error: unknown): CallFailure {
  const unsendable = error instanceof DOMException && error.name === 'DataCloneError';
  return callFailure(unsendable ? 'threw' : 'exited', errorText(error));
}
