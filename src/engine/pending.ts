import { toError } from '../lib/errors.js';

/** Promises of the device that nobody awaits one by one: the first failure is kept for whoever asks next. */
export class Pending {
  readonly #promises = new Set<Promise<void>>();
  #failure: Error | null = null;

  constructor(
    /** Somebody should ask. */
    private readonly onFailed: () => void,
  ) {}

  get count(): number {
    return this.#promises.size;
  }

  add(promise: Promise<void>): void {
    const guarded = promise
      .catch((error: unknown) => {
        this.#failure ??= toError(error);
        this.onFailed();
      })
      .finally(() => this.#promises.delete(guarded));
    this.#promises.add(guarded);
  }

  /** Resolves once all are settled, those added meanwhile included. */
  async settled(): Promise<void> {
    while (this.#promises.size > 0) await Promise.all(this.#promises);
  }

  /** @throws the first failure */
  check(): void {
    if (this.#failure !== null) throw this.#failure;
  }
}
