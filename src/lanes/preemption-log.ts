import type { PreemptionRecord } from '../telemetry/records.js';

const RECORDS_MAX = 100_000;

type Open = { -readonly [Key in keyof PreemptionRecord]: PreemptionRecord[Key] };

/**
 * Follows each preemption through its four moments: requested, yielded, released, resumed. One is open at a time on
 * a lane: a request that comes while another holds the device preempts nobody.
 */
export class PreemptionLog {
  #open: Open | null = null;
  /** Released, waiting for the engine's next token. */
  #resuming: Open | null = null;
  #done: PreemptionRecord[] = [];

  constructor(private readonly lane: number) {}

  /**
   * The engine was running or about to; `yieldedMs` is null while slices of it are still in flight. Gives what to
   * call with the moment by the device's clock, once that is known; null when the request preempts nobody.
   */
  request(
    job: string,
    stage: string,
    requestedMs: number,
    yieldedMs: number | null,
  ): ((yieldedDeviceMs: number) => void) | null {
    if (this.#open !== null) return null;
    const opened: Open = {
      lane: this.lane,
      job,
      stage,
      requestedMs,
      yieldedMs: yieldedMs ?? Number.NaN,
      yieldedDeviceMs: null,
      releasedMs: null,
      resumedMs: null,
      kv: 'held',
      tokensRecomputed: 0,
    };
    this.#open = opened;
    return (yieldedDeviceMs) => {
      opened.yieldedDeviceMs = yieldedDeviceMs;
    };
  }

  get waitsForYield(): boolean {
    return this.#open !== null && Number.isNaN(this.#open.yieldedMs);
  }

  yielded(atMs: number): void {
    if (this.#open !== null && this.waitsForYield) this.#open.yieldedMs = atMs;
  }

  released(atMs: number): void {
    const open = this.#open;
    if (open === null || this.waitsForYield) return;
    open.releasedMs = atMs;
    this.#open = null;
    this.#finish(this.#resuming);
    this.#resuming = open;
  }

  /** New tokens of the engine reached the host. */
  tokens(atMs: number): void {
    const resuming = this.#resuming;
    if (resuming === null) return;
    resuming.resumedMs = atMs;
    this.#resuming = null;
    this.#finish(resuming);
  }

  /** The engine is gone: nobody will resume. */
  engineLeft(): void {
    this.#finish(this.#resuming);
    this.#resuming = null;
    if (this.#open !== null && !this.waitsForYield) this.#finish(this.#open);
    this.#open = null;
  }

  /** Complete records since the last call; with `all` also those still waiting to resume. */
  take(all: boolean): PreemptionRecord[] {
    if (all) this.engineLeft();
    const done = this.#done;
    this.#done = [];
    return done;
  }

  #finish(record: Open | null): void {
    if (record !== null && this.#done.length < RECORDS_MAX) this.#done.push(record);
  }
}
