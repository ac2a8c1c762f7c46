/** The run was asked to end before its last step. */
export class Interrupted extends Error {
  override readonly name = 'Interrupted';

  constructor() {
    super('interrupted');
  }
}

/**
 * Tells whoever waits that the run is to end: it was interrupted, or a part of it failed. The first reason counts,
 * and what comes after it is only its consequence. Nothing is kept of a wait that is over, however long the run.
 */
export class Lifeline {
  readonly #waiting = new Set<(reason: Error) => void>();
  readonly #listeners: (() => void)[] = [];
  #reason: Error | null = null;

  /** Why the run is to end; null while it goes on. */
  get reason(): Error | null {
    return this.#reason;
  }

  /** Ends the run. Safe to call again. */
  end(reason: Error): void {
    if (this.#reason !== null) return;
    this.#reason = reason;
    for (const listener of this.#listeners.splice(0)) listener();
    for (const reject of this.#waiting) reject(reason);
    this.#waiting.clear();
  }

  /** Calls back once the run is to end; at once if it already is. */
  onEnd(listener: () => void): void {
    if (this.#reason === null) this.#listeners.push(listener);
    else listener();
  }

  /** Settles as `work` does, or rejects with the reason when the run is to end first. `work` never goes unheard. */
  alive<T>(work: Promise<T>): Promise<T> {
    return new Promise((resolve, reject) => {
      const settled = (): void => void this.#waiting.delete(reject);
      work.then(resolve, reject).finally(settled);
      if (this.#reason === null) this.#waiting.add(reject);
      else reject(this.#reason);
    });
  }
}
