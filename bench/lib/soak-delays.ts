import type { Random } from '#src/lib/prng.js';

const DELAY_MS_MAX = 50;
/** Between two delays. */
const GAP_MS_MAX = 100;

/**
 * Holds up this thread's event loop at random moments, for 0 to 50 ms at a time: every timer, message and callback that
 * is due meanwhile comes late. The thread sleeps, so that no core is taken from a software adapter.
 */
export class Delays {
  readonly #never = new Int32Array(new SharedArrayBuffer(4));
  #timer: NodeJS.Timeout | undefined;
  #count = 0;
  #totalMs = 0;

  constructor(private readonly random: Random) {}

  get count(): number {
    return this.#count;
  }

  get totalMs(): number {
    return this.#totalMs;
  }

  start(): void {
    this.#timer = setTimeout(
      () => {
        const ms = this.random.uniform() * DELAY_MS_MAX;
        Atomics.wait(this.#never, 0, 0, ms);
        this.#count++;
        this.#totalMs += ms;
        this.start();
      },
      this.random.int(0, GAP_MS_MAX),
    );
  }

  stop(): void {
    clearTimeout(this.#timer);
  }
}
