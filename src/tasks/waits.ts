import { nowMs } from '../lib/clock.js';

export type WaitEnd = 'over' | 'aborted' | 'closed';

/** Lets real time pass for environments that ask for it. Each wait is one timer on this thread and can be cut short. */
export class Waits {
  readonly #underWay = new Set<(end: WaitEnd) => void>();
  #closed = false;

  /** Waits under way. */
  get count(): number {
    return this.#underWay.size;
  }

  /** Resolves no sooner than `ms` from now, or as soon as the signal fires or this is closed. Never rejects. */
  wait(ms: number, signal?: AbortSignal): Promise<WaitEnd> {
    if (this.#closed) return Promise.resolve('closed');
    if (signal?.aborted === true) return Promise.resolve('aborted');
    const deadlineMs = nowMs() + ms;
    return new Promise((resolve) => {
      let timer: NodeJS.Timeout;
      const finish = (end: WaitEnd): void => {
        clearTimeout(timer);
        signal?.removeEventListener('abort', onAbort);
        this.#underWay.delete(finish);
        resolve(end);
      };
      const onAbort = (): void => finish('aborted');
      // Timers round down, and may come a little early.
      const look = (): void => {
        const leftMs = deadlineMs - nowMs();
        if (leftMs > 0) timer = setTimeout(look, Math.ceil(leftMs));
        else finish('over');
      };
      this.#underWay.add(finish);
      signal?.addEventListener('abort', onAbort);
      timer = setTimeout(look, Math.ceil(ms));
    });
  }

  /** Ends all waits, and those still to come, at once. */
  close(): void {
    this.#closed = true;
    for (const finish of [...this.#underWay]) finish('closed');
  }
}
