/**
 * Lets a lane's thread sleep until a message is posted to it. The host rings once for every message; the thread
 * counts the messages it has taken, and never sleeps while one waits in its event loop.
 */
export class Doorbell {
  readonly #rung: Int32Array<SharedArrayBuffer>;
  #taken = 0;

  /** `shared` holds 4 bytes, zero at first; both ends make a doorbell over the same memory. */
  constructor(shared: SharedArrayBuffer) {
    this.#rung = new Int32Array(shared);
  }

  /** Host: a message has just been posted. */
  ring(): void {
    Atomics.add(this.#rung, 0, 1);
    Atomics.notify(this.#rung, 0);
  }

  /** Lane: a message has been taken out of the event loop. */
  take(): void {
    this.#taken = (this.#taken + 1) | 0;
  }

  /** Lane: blocks for at most `timeoutMs`, and not at all while a message waits. */
  nap(timeoutMs: number): void {
    Atomics.wait(this.#rung, 0, this.#taken, timeoutMs);
  }
}
