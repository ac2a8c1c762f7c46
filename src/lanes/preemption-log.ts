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
  'job' | 'stage' | 'requestedMs' | 'detectedMs' | 'budgetMs' | 'inFlightUs' | 'phase'
>;

/** A preemption that is still to be told more of. */
export class Preemption {
  readonly #record: Mutable<PreemptionRecord>;
  #awaitsDevice = true;
  #suspect: Blame | null = null;

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

  /** Its last work before yielding is submitted; this is what became of its caches. */
  left(kv: KvCounts, atMs: number): void {
    this.#record.kv = kv;
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
 */
export class PreemptionLog {
  #open: Preemption | null = null;
  /** Released, waiting for the engine's next token. */
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

  /** The engine that yields has submitted its last work before; this is what became of its caches. */
  left(kv: KvCounts, atMs: number): void {
    this.#open?.left(kv, atMs);
  }

  /** The engine that yields keeps the caches of all its sequences. */
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

  /** New tokens of the engine reached the host. */
  tokens(atMs: number): void {
    this.#resuming?.resumed(atMs);
    this.#finish(this.#resuming);
    this.#resuming = null;
  }

  /** Tokens computed a second time as the engine comes back: those of the preemption it comes back from. */
  recomputed(tokens: number): void {
    const latest = this.#resuming ?? this.#done.at(-1) ?? this.#open;
    if (latest === null) this.#recomputedBefore += tokens;
    else latest.recomputed(tokens);
  }

  /** The engine is gone: nobody will resume. */
  engineLeft(): void {
    this.#finish(this.#resuming);
    this.#resuming = null;
    if (this.#open?.isYielded === true) this.#finish(this.#open);
    this.#open = null;
  }

  /** Complete records since the last call; with `all` also those still waiting to resume. */
  take(all: boolean): PreemptionRecord[] {
    if (all) this.engineLeft();
    const taken = this.#done.filter((preemption) => all || preemption.isWhole);
    const left = this.#done.filter((preemption) => !all && !preemption.isWhole);
    this.#done.splice(0, this.#done.length, ...left);
    return taken.map(({ record }) => record);
  }

  /** Requests since the last call that found the device free. */
  takeUndisturbed(): UndisturbedRecord[] {
    return this.#undisturbed.splice(0);
  }

  #finish(preemption: Preemption | null): void {
    if (preemption !== null && this.#done.length < RECORDS_MAX) this.#done.push(preemption);
  }
}
