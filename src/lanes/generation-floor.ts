import type { StarvationRecord } from '../telemetry/records.js';

/** Generation that waits for longer than this while others keep the device is starved. */
const STARVED_MS = 1000;
/**
 * Time owed beyond this is forgiven: generation never takes the device for long in one piece. So is time it got beyond
 * its due: it never waits for long either.
 */
const OWED_US_MAX = 20_000;
/** A slice counts as at most so long, whoever ran it: where it took longer, the machine had something else to do. */
const SLICE_US_MAX = 20_000;
const RECORDS_MAX = 1000;

/**
 * Generation's share of the device while stages of higher priority never rest, that of all jobs together. With a floor
 * it is owed time as they use it, and takes it a slice at a time, each job in its turn; without one it may starve, which
 * is recorded for each job that does and never passed over in silence.
 */
export class GenerationFloor {
  #owedUs = 0;
  /** Since when, by job. */
  readonly #waiting = new Map<string, number>();
  #starved: StarvationRecord[] = [];

  constructor(
    private readonly lane: number,
    private share: number,
  ) {}

  configure(share: number): void {
    this.share = share;
    this.#owedUs = 0;
  }

  /** Device time that generation may take now although others want it, in µs. */
  get owedUs(): number {
    return this.#owedUs;
  }

  /** A slice of others took so long while generation had work. */
  earn(us: number): void {
    if (this.share > 0) this.#owe((Math.min(us, SLICE_US_MAX) * this.share) / (1 - this.share));
  }

  /** The job's generation got the device for what is predicted to be so long. What it gets beyond its due it has to wait for. */
  ran(job: string, predictedUs: number, nowMs: number): void {
    this.#owe(-predictedUs);
    this.#endWait(job, nowMs);
  }

  /** It turned out to be so long. */
  took(realUs: number, predictedUs: number): void {
    if (this.share > 0) this.#owe(predictedUs - Math.min(realUs, SLICE_US_MAX));
  }

  /** The generation of these jobs, and of no others, has work, and stages go first. */
  waits(jobs: readonly string[], nowMs: number): void {
    for (const job of this.#waiting.keys()) if (!jobs.includes(job)) this.#endWait(job, nowMs);
    for (const job of jobs) if (!this.#waiting.has(job)) this.#waiting.set(job, nowMs);
  }

  /** Generation has no work, or has the device and nobody else wants it: what it gets now it need not wait for. */
  rests(nowMs: number): void {
    this.#owedUs = Math.max(0, this.#owedUs);
    for (const job of this.#waiting.keys()) this.#endWait(job, nowMs);
  }

  take(): StarvationRecord[] {
    return this.#starved.splice(0);
  }

  #owe(us: number): void {
    this.#owedUs = Math.min(OWED_US_MAX, Math.max(-OWED_US_MAX, this.#owedUs + us));
  }

  #endWait(job: string, nowMs: number): void {
    const sinceMs = this.#waiting.get(job) ?? nowMs;
    this.#waiting.delete(job);
    if (nowMs - sinceMs < STARVED_MS || this.#starved.length >= RECORDS_MAX) return;
    this.#starved.push({ lane: this.lane, job, fromMs: sinceMs, toMs: nowMs });
  }
}
