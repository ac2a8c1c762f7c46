import type { Gpu } from '../gpu/device.js';
import type { Op, Program } from '../gpu/ops.js';
import { assert } from '../lib/assert.js';

/**
 * Work for the device and what comes of it. `result` settles some time after the program's last op is submitted; it
 * rejects when the device is lost or the program is given up (`program.return()`).
 */
export interface Job<T> {
  readonly program: Program;
  readonly result: Promise<T>;
}

interface Running {
  readonly name: string;
  readonly fail: (error: Error) => void;
}

/** Starts jobs, one at a time: the buffers they use are the same. */
export class JobRunner {
  #running: Running | null = null;

  constructor(gpu: Gpu) {
    void gpu.lost.then((reason) => this.#running?.fail(new Error(`the device was lost: ${reason}`)));
  }

  get idle(): boolean {
    return this.#running === null;
  }

  /** A job that runs `ops`, then, once they are submitted, reads its result with `read`. */
  start<T>(name: string, ops: Generator<Op, void, void>, read: () => Promise<T>): Job<T> {
    assert(this.#running === null, `${name}: a job (${this.#running?.name}) is still running`);
    let open = true;
    const { promise, settle, fail } = this.#settlement<T>(name);
    const submitted = (): void => {
      if (!open) return;
      open = false;
      read().then(settle, fail);
    };
    const giveUp = (error: unknown): void => {
      if (!open) return;
      open = false;
      fail(error);
    };
    const program = lastly(ops, submitted, giveUp);
    const finish = program.return.bind(program);
    program.return = (value) => {
      giveUp(new Error(`${name} was given up`));
      return finish(value);
    };
    return { program, result: promise };
  }

  #settlement<T>(name: string): {
    promise: Promise<T>;
    settle: (value: T) => void;
    fail: (error: unknown) => void;
  } {
    let resolve: (value: T) => void;
    let reject: (error: Error) => void;
    const promise = new Promise<T>((resolvePromise, rejectPromise) => {
      resolve = resolvePromise;
      reject = rejectPromise;
    });
    // Who gives a job up need not wait for its result: that alone must not end the process.
    promise.catch(() => undefined);
    const fail = (error: unknown): void => {
      if (this.#running === running) this.#running = null;
      reject(error instanceof Error ? error : new Error(String(error)));
    };
    const settle = (value: T): void => {
      if (this.#running === running) this.#running = null;
      resolve(value);
    };
    const running: Running = { name, fail };
    this.#running = running;
    return { promise, settle, fail };
  }
}

/** The ops, then one that calls `submitted`; a bug that ends them early is reported before it is thrown on. */
function* lastly(
  ops: Generator<Op, void, void>,
  submitted: () => void,
  failed: (error: unknown) => void,
): Program {
  try {
    yield* ops;
  } catch (error) {
    failed(error);
    throw error;
  }
  yield { kind: 'submitted', call: submitted };
}
