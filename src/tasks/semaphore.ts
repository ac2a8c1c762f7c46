import { toError } from '../lib/errors.js';

/** Lets at most `permits` holders in at once; the rest wait in the order they came. */
export class Semaphore {
  #free: number;
  readonly #waiting = new Set<() => void>();

  constructor(permits: number) {
    this.#free = permits;
  }

  get waiting(): number {
    return this.#waiting.size;
  }

  /** Runs `work` while holding a permit. Rejects with the signal's reason when that fires before there is one. */
  async use<T>(work: () => Promise<T>, signal?: AbortSignal): Promise<T> {
    signal?.throwIfAborted();
    await this.#acquire(signal);
    try {
      return await work();
    } finally {
      this.#release();
    }
  }

  async #acquire(signal: AbortSignal | undefined): Promise<void> {
    if (this.#free > 0) {
      this.#free--;
      return;
    }
    let giveUp: (() => void) | undefined;
    try {
      await new Promise<void>((resolve, reject) => {
        const enter = (): void => resolve();
        this.#waiting.add(enter);
        giveUp = () => {
          // Once it was handed its permit it is in no line any more, and goes in.
          if (this.#waiting.delete(enter)) reject(toError(signal?.reason));
        };
        signal?.addEventListener('abort', giveUp);
      });
    } finally {
      if (giveUp !== undefined) signal?.removeEventListener('abort', giveUp);
    }
  }

  /** Hands the permit straight to the first in line, so that nobody can slip in between. */
  #release(): void {
    const [next] = this.#waiting;
    if (next === undefined) {
      this.#free++;
      return;
    }
    this.#waiting.delete(next);
    next();
  }
}
