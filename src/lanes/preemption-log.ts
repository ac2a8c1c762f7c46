import {
  type Blame,
  type KvCounts,
  obeysLaw,
  type PreemptionRecord,
  type UndisturbedRecord,
} from '../telemetry/records.js';

const RECORDS_MAX = 100_000;

type Mutable<T> = { -readonly [Key in keyof T]: T[Key] };

/** What is known of a preemption when the lane detects its request. */
export type Asked = Pick<
  PreemptionRecord,
  | 'job'
  | 'alsoYielded'
  | 'asker'
  | 'stage'
  | 'requestedMs'
  | 'detectedMs'
  | 'budgetMs'
  | 'inFlightUs'
  | 'phase'
>;

/** A preemption that is still to be told more of. */
export class Preemption {
  readonly #record: Mutable<PreemptionRecord>;
  #awaitsDevice = true;
  #suspect: Blame | null = null;
  /** By job: what became of its caches so far. */
  readonly #left = new Map<string, KvCounts>();

  constructor(lane: number, asked: Asked) {
    this.#record = {
      lane,
      ...asked,
      leavingMs: 0,
      yieldedMs: Number.NaN,
      yieldedDeviceMs: null,
      releasedMs: null,
      resumedMs: null,
      blame: null,
      kv: { held: 0, spilled: 0, dropped: 0 },
      tokensRecomputed: 0,
    };
  }

  /** The engine it was taken from. */
  get job(): string {
    return this.#record.job;
  }

  /** Engines of other jobs yielded too. */
  get hasOthers(): boolean {
    return this.#record.alsoYielded !== undefined;
  }

  get isYielded(): boolean {
    return !Number.isNaN(this.#record.yieldedMs);
  }

  /** Nothing more is to be heard of it. */
  get isWhole(): boolean {
    return this.isYielded && !this.#awaitsDevice;
  }

  get record(): PreemptionRecord {
    const record = this.#record;
    // What the law is held against may have come late: judge when asked.
    const suspect = this.#suspect ?? { kernel: 'host', predictedUs: 0, realUs: 0 };
    const blame = obeysLaw(record) ? null : { ...suspect };
    return { ...record, blame };
  }

  yielded(atMs: number): void {
    // A device that had come to rest before the request was read could not be asked for any earlier.
    if (!this.isYielded) this.#record.yieldedMs = Math.max(atMs, this.#record.detectedMs);
  }

  /** The asker's first dispatch began then, on the host's clock; null when the device cannot tell. */
  begun(atMs: number | null): void {
    this.#awaitsDevice = false;
    this.#record.yieldedDeviceMs = atMs;
  }

  /** A slice it waited for took this long; the one that took most over its prediction is to blame. */
  waitedFor(slice: Blame): void {
    const over = ({ realUs, predictedUs }: Blame): number => realUs - predictedUs;
    if (this.#suspect === null || over(slice) > over(this.#suspect)) this.#suspect = slice;
  }

  /** The job has submitted its last work before yielding; this is what became of its caches since it last did. */
  left(job: string, { held, spilled, dropped }: KvCounts, atMs: number): void {
    const before = this.#left.get(job);
    this.#left.set(job, {
      held,
      spilled: spilled + (before?.spilled ?? 0),
      dropped: dropped + (before?.dropped ?? 0),
    });
    const all = [...this.#left.values()];
    const sum = (of: (counts: KvCounts) => number): number =>
      all.reduce((total, each) => total + of(each), 0);
    this.#record.kv = {
      held: sum((each) => each.held),
      spilled: sum((each) => each.spilled),
      dropped: sum((each) => each.dropped),
    };
    this.#record.leavingMs = atMs - this.#record.detectedMs;
  }

  /** All caches stay. */
  held(sequences: number): void {
    this.#record.kv = { held: sequences, spilled: 0, dropped: 0 };
  }

  recomputed(tokens: number): void {
    this.#record.tokensRecomputed += tokens;
  }

  released(atMs: number): void {
    // Who yielded may have been seen to only after the asker was done.
    this.#record.releasedMs = Math.max(atMs, this.#record.yieldedMs);
  }

  resumed(atMs: number): void {
    this.#record.resumedMs = atMs;
  }
}

/**
 * Follows each preemption through its moments: requested, detected, yielded, released, resumed. One is open at a time
 * on a lane: a request that comes while another holds the device preempts nobody.
 *
 * The engines of several jobs may yield to one request. It is one preemption: it has yielded when the last slice of all
 * of them is done, and is released when no stage of any job wants the device. It bears the name of the job whose slice
 * the device was at, and lists the others; it has resumed with the first token of that job, for how soon a token of
 * just any job comes depends on whose turn it is.
 */
export class PreemptionLog {
  #open: Preemption | null = null;
  /** Released, waiting for its engine's next token. */
  #resuming: Preemption | null = null;
  readonly #done: Preemption[] = [];
  /** Of a preemption that had been told of already. */
  #recomputedBefore = 0;
  readonly #undisturbed: UndisturbedRecord[] = [];

  constructor(private readonly lane: number) {}

  /** Somebody is running who has to yield; null when the request preempts nobody. */
  request(asked: Asked): Preemption | null {
    if (this.#open !== null) return null;
    this.#open = new Preemption(this.lane, asked);
    this.#open.recomputed(this.#recomputedBefore);
    this.#recomputedBefore = 0;
    return this.#open;
  }

  /** A request found the device free, and its first dispatch has begun. */
  undisturbed(record: Omit<UndisturbedRecord, 'lane'>): void {
    if (this.#undisturbed.length < RECORDS_MAX) this.#undisturbed.push({ lane: this.lane, ...record });
  }

  /** An engine that yields has submitted its last work before; this is what became of its caches. */
  left(job: string, kv: KvCounts, atMs: number): void {
    this.#open?.left(job, kv, atMs);
  }

  /** The engines that yield keep the caches of all their sequences. */
  held(sequences: number): void {
    this.#open?.held(sequences);
  }

  get waitsForYield(): boolean {
    return this.#open !== null && !this.#open.isYielded;
  }

  yielded(atMs: number): void {
    this.#open?.yielded(atMs);
  }

  released(atMs: number): void {
    const open = this.#open;
    if (open === null || !open.isYielded) return;
    open.released(atMs);
    this.#open = null;
    this.#finish(this.#resuming);
    this.#resuming = open;
  }

  /** New tokens of the job's engine reached the host. */
  tokens(job: string, atMs: number): void {
    if (this.#resuming?.job !== job) return;
    this.#resuming.resumed(atMs);
    this.#endResuming();
  }

  /** Tokens computed a second time as the engine comes back: those of the preemption it comes back from. */
  recomputed(tokens: number): void {
    const latest = this.#resuming ?? this.#done.at(-1) ?? this.#open;
    if (latest === null) this.#recomputedBefore += tokens;
    else latest.recomputed(tokens);
  }

  /** The job's engine is gone: it will not resume. Where others yielded with it, the device is still held from them. */
  engineLeft(job: string): void {
    if (this.#resuming?.job === job) this.#endResuming();
    if (this.#open?.job === job && !this.#open.hasOthers) this.#endOpen();
  }

  /** Complete records since the last call; with `all` also those still waiting to resume. */
  take(all: boolean): PreemptionRecord[] {
    if (all) {
      this.#endResuming();
      this.#endOpen();
    }
    const taken = this.#done.filter((preemption) => all || preemption.isWhole);
    const left = this.#done.filter((preemption) => !all && !preemption.isWhole);
    this.#done.splice(0, this.#done.length, ...left);
    return taken.map(({ record }) => record);
  }

  /** Requests since the last call that found the device free. */
  takeUndisturbed(): UndisturbedRecord[] {
    return this.#undisturbed.splice(0);
  }

  #endResuming(): void {
    this.#finish(this.#resuming);
    this.#resuming = null;
  }

  /** One that never yielded was none. */
  #endOpen(): void {
    if (this.#open?.isYielded === true) this.#finish(this.#open);
    this.#open = null;
  }

  #finish(preemption: Preemption | null): void {
    if (preemption !== null && this.#done.length < RECORDS_MAX) this.#done.push(preemption);
  }
}
