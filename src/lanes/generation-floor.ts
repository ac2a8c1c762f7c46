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
 * Generation's share of the device while stages of higher priority never rest. With a floor it is owed time as they
 * use it, and takes it a slice at a time; without one it may starve, which is recorded and never passed over in silence.
 */
export class GenerationFloor {
  #owedUs = 0;
  #waiting: { readonly job: string; readonly sinceMs: number } | null = null;
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

  /** Generation got the device for what is predicted to be so long. What it gets beyond its due it has to wait for. */
  ran(predictedUs: number, nowMs: number): void {
    this.#owe(-predictedUs);
    this.#endWait(nowMs);
  }

  /** It turned out to be so long. */
  took(realUs: number, predictedUs: number): void {
    if (this.share > 0) this.#owe(predictedUs - Math.min(realUs, SLICE_US_MAX));
  }

  /** The job's generation has work, and another goes first. */
  waits(job: string, nowMs: number): void {
    this.#waiting ??= { job, sinceMs: nowMs };
  }

  /** Generation has no work, or has the device and nobody else wants it: what it gets now it need not wait for. */
  rests(nowMs: number): void {
    this.#owedUs = Math.max(0, this.#owedUs);
    this.#endWait(nowMs);
  }

  take(): StarvationRecord[] {
    return this.#starved.splice(0);
  }

  #owe(us: number): void {
    this.#owedUs = Math.min(OWED_US_MAX, Math.max(-OWED_US_MAX, this.#owedUs + us));
  }

  #endWait(nowMs: number): void {
    const waited = this.#waiting;
    this.#waiting = null;
    if (waited === null || nowMs - waited.sinceMs < STARVED_MS) return;
    if (this.#starved.length >= RECORDS_MAX) return;
    this.#starved.push({ lane: this.lane, job: waited.job, fromMs: waited.sinceMs, toMs: nowMs });
  }
}
