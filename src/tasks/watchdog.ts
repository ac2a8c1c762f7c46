import { nowMs } from '../lib/clock.js';

export interface WatchdogOptions {
  /** From the moment the worker begins on the call. */
  readonly limitMs: number;
  /** From now until the worker begins on the call: covers its start and the loading of the environment. */
  readonly loadLimitMs: number;
  /** Called at most once, with what took too long. */
  readonly onExpire: (late: 'loading' | 'running') => void;
}

/**
 * Watches over one call in a worker that may never yield again. The worker writes the time it begins into shared
 * memory, so its limit is counted from its own start, costs no message, and needs no cooperation afterwards.
 */
export class Watchdog {
  /** One signed 64-bit word: 0, then `process.hrtime.bigint()` when the worker begins on the call. */
  readonly startedNs = new BigInt64Array(new SharedArrayBuffer(8));
  readonly #options: WatchdogOptions;
  readonly #loadDeadlineMs: number;
  #timer: NodeJS.Timeout;
  #stopped = false;

  constructor(options: WatchdogOptions) {
    this.#options = options;
    this.#loadDeadlineMs = nowMs() + options.loadLimitMs;
    this.#timer = setTimeout(() => this.#look(), Math.min(options.limitMs, options.loadLimitMs));
  }

  stop(): void {
    this.#stopped = true;
    clearTimeout(this.#timer);
  }

  #deadlineMs(): number {
    const startedNs = Atomics.load(this.startedNs, 0);
    return startedNs === 0n ? this.#loadDeadlineMs : Number(startedNs) / 1e6 + this.#options.limitMs;
  }

  #look(): void {
    if (this.#stopped) return;
    const leftMs = this.#deadlineMs() - nowMs();
    if (leftMs > 0) this.#timer = setTimeout(() => this.#look(), Math.ceil(leftMs));
    // When this thread itself was held up, the answer may be waiting behind the timer: let it in first.
    else setImmediate(() => this.#expire());
  }

  #expire(): void {
    if (this.#stopped) return;
    if (this.#deadlineMs() > nowMs()) return this.#look();
    this.#stopped = true;
    this.#options.onExpire(Atomics.load(this.startedNs, 0) === 0n ? 'loading' : 'running');
  }
}
