import { Worker } from 'node:worker_threads';
import type { EngineUpdate } from '../engine/engine.js';
import type { AdapterSummary } from '../gpu/device.js';
import { assert } from '../lib/assert.js';
import { UserError } from '../lib/errors.js';
import type { LaneRecords } from '../telemetry/records.js';
import type {
  FromLane,
  LaneAnswers,
  LaneFailure,
  LaneRequest,
  LaneRequestKind,
  OpenLane,
  ToLane,
} from './messages.js';

const OPEN_TIMEOUT_MS = 60_000;
/** How long a lane may take to finish what is in flight before it is given up. */
const CLOSE_TIMEOUT_MS = 30_000;

export interface LaneEvents {
  readonly onTokens: (update: EngineUpdate) => void;
  readonly onRecords: (records: LaneRecords) => void;
  /** The lane is gone: its device was lost, its thread ended, or a bug stopped it. Pending requests have rejected. */
  readonly onBroken: (error: Error) => void;
}

interface Pending {
  readonly resolve: (answer: LaneAnswers[LaneRequestKind]) => void;
  readonly reject: (error: Error) => void;
}

/** The host's end of a lane: requests in, answers, tokens and records out. */
export class RemoteLane {
  readonly #pending = new Map<number, Pending>();
  #nextId = 1;
  #broken: Error | null = null;
  #closed = false;
  readonly #exited: Promise<void>;

  private constructor(
    readonly lane: number,
    readonly adapter: AdapterSummary,
    readonly storageBindingBytesMax: number,
    private readonly worker: Worker,
    private readonly doorbell: Int32Array<SharedArrayBuffer>,
    private readonly events: LaneEvents,
  ) {
    this.#exited = new Promise((resolve) => worker.once('exit', () => resolve()));
    worker.on('message', (message: FromLane) => this.#receive(message));
    worker.on('error', (error) => this.#break(error));
    worker.once('exit', (code) => {
      if (!this.#closed) this.#break(new Error(`lane ${lane}: its thread ended with code ${code}`));
    });
  }

  /**
   * Starts the lane's thread and waits for its device.
   *
   * @throws UserError when there is no adapter or it refuses a device.
   */
  static async open(options: Omit<OpenLane, 'doorbell'>, events: LaneEvents): Promise<RemoteLane> {
    const doorbell = new SharedArrayBuffer(4);
    const workerData: OpenLane = { ...options, doorbell };
    const worker = new Worker(new URL('./worker.js', import.meta.url), { workerData });
    const opened = await new Promise<Extract<FromLane, { kind: 'opened' }>>((resolve, reject) => {
      const timer = setTimeout(
        () =>
          reject(
            new UserError(
              `lane ${options.lane}: no device after ${OPEN_TIMEOUT_MS / 1000} s: run \`npx offbeat doctor\``,
            ),
          ),
        OPEN_TIMEOUT_MS,
      );
      worker.once('error', reject);
      worker.once('message', (message: FromLane) => {
        clearTimeout(timer);
        if (message.kind === 'opened') resolve(message);
        else if (message.kind === 'broken') reject(toError(message.failure));
        else reject(new Error(`lane ${options.lane} began with ${message.kind}`));
      });
    });
    worker.removeAllListeners('error');
    const { adapter, storageBindingBytesMax } = opened;
    return new RemoteLane(
      options.lane,
      adapter,
      storageBindingBytesMax,
      worker,
      new Int32Array(doorbell),
      events,
    );
  }

  /** Sends a request; resolves with its answer, rejects when it fails or the lane breaks. */
  request<R extends LaneRequest>(request: R, transfer: ArrayBuffer[] = []): Promise<LaneAnswers[R['kind']]> {
    if (this.#broken !== null) return Promise.reject(this.#broken);
    assert(!this.#closed, `lane ${this.lane} is closed`);
    const id = this.#nextId++;
    return new Promise((resolve, reject) => {
      this.#pending.set(id, { resolve: resolve as Pending['resolve'], reject });
      this.worker.postMessage({ id, request } satisfies ToLane, transfer);
      Atomics.add(this.doorbell, 0, 1);
      Atomics.notify(this.doorbell, 0);
    });
  }

  /** Ends the thread once what is in flight has finished. Safe to call twice, and on a broken lane. */
  async close(): Promise<void> {
    if (this.#closed) return;
    const closing = this.#broken === null ? this.request({ kind: 'close' }) : Promise.resolve(null);
    this.#closed = true;
    let timer: NodeJS.Timeout | undefined;
    const timeout = new Promise<void>((resolve) => {
      timer = setTimeout(resolve, CLOSE_TIMEOUT_MS);
    });
    await Promise.race([closing.then(() => this.#exited).catch(() => undefined), timeout]);
    clearTimeout(timer);
    this.worker.unref();
  }

  #receive(message: FromLane): void {
    switch (message.kind) {
      case 'done':
        this.#take(message.id).resolve(message.answer);
        return;
      case 'failed':
        this.#take(message.id).reject(toError(message.failure));
        return;
      case 'tokens':
        this.events.onTokens(message.update);
        return;
      case 'records':
        this.events.onRecords(message.records);
        return;
      case 'broken':
        this.#break(toError(message.failure));
        return;
      case 'opened':
        throw new Error(`assertion failed: lane ${this.lane} opened twice`);
      default:
        message satisfies never;
    }
  }

  #take(id: number): Pending {
    const pending = this.#pending.get(id);
    assert(pending !== undefined, `lane ${this.lane} answered request ${id}, which nobody made`);
    this.#pending.delete(id);
    return pending;
  }

  #break(error: Error): void {
    if (this.#broken !== null) return;
    this.#broken = error;
    for (const { reject } of this.#pending.values()) reject(error);
    this.#pending.clear();
    this.events.onBroken(error);
  }
}

function toError({ code, text }: LaneFailure): Error {
  return code === 'user' ? new UserError(text) : new Error(text);
}
