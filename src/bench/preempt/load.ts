import type { EngineUpdate } from '../../engine/engine.js';
import type { SequenceRequest } from '../../engine/sequence.js';
import { assert } from '../../lib/assert.js';
import { nowMs } from '../../lib/clock.js';
import { toError } from '../../lib/errors.js';

/** What low priority has done since `beginCounting`. A row is one token of a sequence that went through the model. */
export interface LoadCounts {
  /** Sampled tokens that reached the host. */
  readonly tokens: number;
  /** Rows of them, and of the prompts they go on from. */
  readonly rows: number;
  /** Of both, what belongs to sequences that were aborted. */
  readonly tokensDiscarded: number;
  readonly rowsDiscarded: number;
}

type Mutable<T> = { -readonly [Key in keyof T]: T[Key] };

interface Running {
  readonly request: SequenceRequest;
  hasBegun: boolean;
  /** Since `beginCounting`. */
  tokens: number;
  rows: number;
}

/** Gaps are asked for after short stretches only. */
const GAPS_MAX = 10_000;
const NOTHING: LoadCounts = { tokens: 0, rows: 0, tokensDiscarded: 0, rowsDiscarded: 0 };

interface Waiter {
  readonly isDone: () => boolean;
  readonly resolve: () => void;
  readonly reject: (error: Error) => void;
}

/** What a load asks of the engine, wherever that is. */
export interface LoadedEngine {
  add(sequences: readonly SequenceRequest[]): Promise<unknown>;
  abort(ids: readonly number[]): Promise<unknown>;
}

/** Generation that never rests: whenever a sequence ends, the next one is added. */
export class LowPriorityLoad {
  readonly #running = new Map<number, Running>();
  #nextIndex = 1;
  #nextId = 1;
  #refills = false;
  #counts: Mutable<LoadCounts> = { ...NOTHING };
  #aborted: SequenceRequest[] = [];
  #tokensEver = 0;
  #updatedMs: number | null = null;
  #gapsMs: number[] = [];
  readonly #waiters = new Set<Waiter>();
  #failure: Error | null = null;

  constructor(
    /** Sequences held by the engine, waiting ones included. */
    private readonly sequences: number,
    private readonly sequenceAt: (index: number) => SequenceRequest,
    private readonly engine: LoadedEngine,
  ) {}

  /** Counts from nothing, from now on: what was done before is neither counted nor discarded. */
  beginCounting(): void {
    this.#counts = { ...NOTHING };
    this.#gapsMs = [];
    for (const running of this.#running.values()) [running.tokens, running.rows] = [0, 0];
  }

  get counts(): LoadCounts {
    return { ...this.#counts };
  }

  /** Milliseconds between the tokens of one step and those of the next, since `beginCounting`. */
  get gapsMs(): readonly number[] {
    return this.#gapsMs;
  }

  /** From the lane, in order. */
  receive({ ids, finished }: EngineUpdate): void {
    for (const id of ids) this.#count(id);
    for (const { id, reason } of finished) this.#end(id, reason === 'abort');
    if (ids.length > 0) {
      const atMs = nowMs();
      if (this.#updatedMs !== null && this.#gapsMs.length < GAPS_MAX)
        this.#gapsMs.push(atMs - this.#updatedMs);
      this.#updatedMs = atMs;
      this.#tokensEver += ids.length;
    }
    if (this.#refills) this.#fill();
    this.#check();
  }

  /** The lane is gone: whoever waits is told. */
  fail(error: Error): void {
    this.#failure ??= error;
    this.#check();
  }

  /** Fills the engine, and keeps it full from now on. */
  start(): void {
    this.#refills = true;
    this.#fill();
  }

  /** Starts no more; resolves when all that were under way have come to their own end. */
  async drain(): Promise<void> {
    this.#refills = false;
    await this.#until(() => this.#running.size === 0);
  }

  /** Ends everything at once; resolves when the engine is empty. */
  async clear(): Promise<void> {
    this.#refills = false;
    await this.abort();
    this.#aborted = [];
  }

  /** Aborts all sequences. Sent at once; resolves when the lane has answered. */
  async abort(): Promise<void> {
    this.#refills = false;
    await this.engine.abort([...this.#running.keys()]);
    await this.#until(() => this.#running.size === 0);
  }

  /** Begins those that were aborted again from their prompts, and goes on as before. */
  retry(): void {
    const requests = this.#aborted;
    this.#aborted = [];
    this.#add(requests);
    this.start();
  }

  /** Resolves with the next step's tokens: true, or false when none came within `timeoutMs`. */
  async nextTokens(timeoutMs: number): Promise<boolean> {
    const tokens = this.#tokensEver;
    let isLate = false;
    const timer = setTimeout(() => {
      isLate = true;
      this.#check();
    }, timeoutMs);
    try {
      await this.#until(() => isLate || this.#tokensEver > tokens);
    } finally {
      clearTimeout(timer);
    }
    return this.#tokensEver > tokens;
  }

  #count(id: number): void {
    const running = this.#running.get(id);
    assert(running !== undefined, `a token of sequence ${id}, which is not running`);
    // The first token tells that the whole prompt has gone through the model, each later one that its predecessor has.
    const rows = running.hasBegun ? 1 : running.request.promptTokenIds.length;
    running.hasBegun = true;
    running.rows += rows;
    running.tokens++;
    this.#counts.rows += rows;
    this.#counts.tokens++;
  }

  #end(id: number, isAborted: boolean): void {
    const running = this.#running.get(id);
    assert(running !== undefined, `sequence ${id} ended, which is not running`);
    this.#running.delete(id);
    if (!isAborted) return;
    this.#counts.tokensDiscarded += running.tokens;
    this.#counts.rowsDiscarded += running.rows;
    this.#aborted.push(running.request);
  }

  #fill(): void {
    const room = this.sequences - this.#running.size;
    this.#add(Array.from({ length: Math.max(0, room) }, () => this.sequenceAt(this.#nextIndex++)));
  }

  /** An aborted one that begins again is a new sequence to the engine. */
  #add(requests: readonly SequenceRequest[]): void {
    if (requests.length === 0 || this.#failure !== null) return;
    const sequences = requests.map((request) => ({ ...request, id: this.#nextId++ }));
    for (const request of sequences)
      this.#running.set(request.id, { request, hasBegun: false, tokens: 0, rows: 0 });
    this.engine.add(sequences).catch((error: unknown) => this.fail(toError(error)));
  }

  #until(isDone: () => boolean): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#waiters.add({ isDone, resolve, reject });
      this.#check();
    });
  }

  #check(): void {
    for (const waiter of this.#waiters) {
      if (this.#failure === null && !waiter.isDone()) continue;
      this.#waiters.delete(waiter);
      if (this.#failure === null) waiter.resolve();
      else waiter.reject(this.#failure);
    }
  }
}
