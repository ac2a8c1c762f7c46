import { Worker } from 'node:worker_threads';
import type { EngineUpdate } from '../engine/engine.js';
import type { AdapterSummary } from '../gpu/device.js';
import { assert } from '../lib/assert.js';
import { UserError } from '../lib/errors.js';
import type { LaneRecords } from '../telemetry/records.js';
import { Doorbell } from './doorbell.js';
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
  /** A step of the job's engine; `stepMs` as in `FromLane`. */
  readonly onTokens: (update: EngineUpdate, job: string, stepMs: number | null) => void;
  readonly onRecords: (records: LaneRecords) => void;
  /** The lane is gone: its device was lost, its thread ended, or a bug stopped it. Pending requests have rejected. */
  readonly onBroken: (error: Error) => void;
}

/** The lane is gone, and with it what was asked of it: another one may be asked again. */
export class LaneLost extends Error {
  override readonly name = 'LaneLost';
}

/** What a lane is opened with; the first of its number unless `epoch` says otherwise, and without faults. */
export type RemoteLaneOptions = Omit<OpenLane, 'doorbell' | 'epoch' | 'faults'> &
  Partial<Pick<OpenLane, 'epoch' | 'faults'>>;

interface Pending {
  readonly resolve: (answer: LaneAnswers[LaneRequestKind]) => void;
  readonly reject: (error: Error) => void;
}

/**
 * The host's end of a lane: requests in, answers, tokens and records out. Once it is broken nothing it still sends is
 * heard: a lane is replaced by another one, never brought back.
 */
export class RemoteLane {
  readonly #pending = new Map<number, Pending>();
  #nextId = 1;
  #broken: Error | null = null;
  #closing: Promise<void> | null = null;
  readonly #exited: Promise<void>;

  private constructor(
    readonly lane: number,
    readonly adapter: AdapterSummary,
    readonly storageBindingBytesMax: number,
    private readonly worker: Worker,
    private readonly doorbell: Doorbell,
    private readonly events: LaneEvents,
  ) {
    this.#exited = new Promise((resolve) => worker.once('exit', () => resolve()));
    worker.on('message', (message: FromLane) => this.#receive(message));
    worker.on('error', (error) => this.#break(new LaneLost(error.message)));
    worker.once('exit', (code) => {
      const ended = new LaneLost(`lane ${lane}: its thread ended with code ${code}`);
      this.#break(this.#closing === null ? ended : this.#closedError());
    });
  }

  /**
   * Starts the lane's thread and waits for its device.
   *
   * @throws UserError when there is no adapter or it refuses a device.
   */
  static async open(options: RemoteLaneOptions, events: LaneEvents): Promise<RemoteLane> {
    const doorbell = new SharedArrayBuffer(4);
    const workerData: OpenLane = { epoch: 0, faults: [], ...options, doorbell };
    const worker = new Worker(new URL('./worker.js', import.meta.url), { workerData });
    const { adapter, storageBindingBytesMax } = await opening(worker, options.lane);
    return new RemoteLane(
      options.lane,
      adapter,
      storageBindingBytesMax,
      worker,
      new Doorbell(doorbell),
      events,
    );
  }

  /** Why nothing more comes from it; null while it lives. */
  get broken(): Error | null {
    return this.#broken;
  }

  /**
   * Sends a request; resolves with its answer.
   *
   * @throws LaneLost when the lane breaks first; UserError for a mistake of the user's; Error when it is closed, or when
   * the request fails and the lane goes on.
   */
  request<R extends LaneRequest>(request: R, transfer: ArrayBuffer[] = []): Promise<LaneAnswers[R['kind']]> {
    const gone = this.#broken ?? (this.#closing === null ? null : this.#closedError());
    return gone === null ? this.#send(request, transfer) : Promise.reject(gone);
  }

  /** Ends the thread once what is in flight has finished. Safe to call twice, and on a broken lane. */
  close(): Promise<void> {
    return (this.#closing ??= this.#close());
  }

  async #close(): Promise<void> {
    // A broken lane ends by itself.
    if (this.#broken === null) this.#send({ kind: 'close' }, []).catch(() => undefined);
    let timer: NodeJS.Timeout | undefined;
    const timeout = new Promise<void>((resolve) => {
      timer = setTimeout(resolve, CLOSE_TIMEOUT_MS);
    });
    await Promise.race([this.#exited, timeout]);
    clearTimeout(timer);
    this.#break(this.#closedError());
    this.worker.unref();
  }

  #closedError(): Error {
    return new Error(`lane ${this.lane} is closed`);
  }

  #send<R extends LaneRequest>(request: R, transfer: ArrayBuffer[]): Promise<LaneAnswers[R['kind']]> {
    const id = this.#nextId++;
    return new Promise((resolve, reject) => {
      // Throws, and thereby rejects, when the request cannot be cloned.
      this.worker.postMessage({ id, request } satisfies ToLane, transfer);
      this.doorbell.ring();
      this.#pending.set(id, { resolve: resolve as Pending['resolve'], reject });
    });
  }

  #receive(message: FromLane): void {
    // What was under way when the lane broke may still be answered: whoever asked has been told already.
    if (this.#broken !== null) return;
    switch (message.kind) {
      case 'done':
        this.#take(message.id).resolve(message.answer);
        return;
      case 'failed':
        this.#take(message.id).reject(toError(message.failure));
        return;
      case 'tokens':
        this.events.onTokens(message.update, message.job, message.stepMs);
        return;
      case 'records':
        this.events.onRecords(message.records);
        return;
      case 'broken':
        this.#break(new LaneLost(message.failure.text));
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

  /** Nothing more comes from the lane. Whoever closed it need not be told. */
  #break(error: Error): void {
    if (this.#broken !== null) return;
    this.#broken = error;
    for (const { reject } of this.#pending.values()) reject(error);
    this.#pending.clear();
    if (this.#closing === null) this.events.onBroken(error);
  }
}

/** Waits for a lane's first message. */
function opening(worker: Worker, lane: number): Promise<Extract<FromLane, { kind: 'opened' }>> {
  return new Promise((resolve, reject) => {
    const settle = (outcome: () => void): void => {
      clearTimeout(timer);
      worker.off('message', onMessage);
      worker.off('error', onError);
      worker.off('exit', onExit);
      outcome();
    };
    const fail = (error: Error): void => {
      // It cannot be terminated from outside: Dawn would end the process. It must not keep the process alive either.
      worker.on('error', () => undefined);
      worker.unref();
      settle(() => reject(error));
    };
    const onMessage = (message: FromLane): void => {
      if (message.kind === 'opened') settle(() => resolve(message));
      else if (message.kind === 'broken') fail(toError(message.failure));
      else fail(new Error(`lane ${lane} began with ${message.kind}`));
    };
    const onError = (error: Error): void => fail(error);
    const onExit = (code: number): void =>
      fail(new Error(`lane ${lane}: its thread ended with code ${code}`));
    const seconds = OPEN_TIMEOUT_MS / 1000;
    const timer = setTimeout(
      () => fail(new UserError(`lane ${lane}: no device after ${seconds} s: run \`npx offbeat doctor\``)),
      OPEN_TIMEOUT_MS,
    );
    worker.on('message', onMessage);
    worker.on('error', onError);
    worker.on('exit', onExit);
  });
}

function toError({ code, text }: LaneFailure): Error {
  return code === 'user' ? new UserError(text) : new Error(text);
}
