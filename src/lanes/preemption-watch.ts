import type { DoneSlice, InFlight, Slice } from './in-flight.js';
import type { Preemption, PreemptionLog } from './preemption-log.js';
import type { Resident } from './resident.js';
import type { OnBegun } from './slice-timer.js';

/** What is to be told of the next request's first slice. */
interface FirstSlice {
  readonly resident: Resident;
  readonly onBegun: OnBegun;
}

/** A request as the executor sees it. */
export interface Request {
  readonly asker: Resident;
  readonly stage: string;
  readonly requestedMs: number;
  readonly detectedMs: number;
}

/** How the one who has to yield stands when a request is detected. */
export interface Yielding {
  readonly resident: Resident;
  readonly phase: number | null;
  readonly budgetMs: number;
  /** It finishes its step and moves its caches before it yields. */
  readonly leaves: boolean;
}

/** Follows slices on behalf of the preemption log: what a request waits for, when its own work begins and ends. */
export class PreemptionWatch {
  #waits: { preemption: Preemption; resident: Resident; slices: Set<Slice> } | null = null;
  #first: FirstSlice | null = null;
  #asker: Resident | null = null;

  constructor(private readonly log: PreemptionLog) {}

  /** Somebody waits for slices to finish. */
  get waits(): boolean {
    return this.#waits !== null;
  }

  /** Somebody of lower priority is running, or would. */
  request({ asker, ...request }: Request, yielding: Yielding, inFlight: InFlight): void {
    const { resident, phase, budgetMs, leaves } = yielding;
    const slices = inFlight.slices.filter((slice) => slice.resident === resident);
    const inFlightUs = slices.reduce((sum, { predictedUs }) => sum + predictedUs, 0);
    const preemption = this.log.request({ ...request, job: resident.job, budgetMs, inFlightUs, phase });
    if (preemption === null) return;
    this.#asker = asker;
    this.#first = { resident: asker, onBegun: (atMs) => preemption.begun(atMs) };
    this.#waits = { preemption, resident, slices: new Set(slices) };
    if (slices.length === 0 && !leaves) this.#yielded(request.detectedMs);
  }

  /** Nobody of lower priority is in the way. */
  undisturbed({ asker, stage, requestedMs, detectedMs }: Request, nowMs: () => number): void {
    const onBegun: OnBegun = (atMs) =>
      this.log.undisturbed({ stage, requestedMs, detectedMs, begunMs: atMs ?? nowMs() });
    this.#first = { resident: asker, onBegun };
  }

  /** Whom to tell of the beginning of the resident's next slice. */
  onBegun(resident: Resident): OnBegun | null {
    return this.#first?.resident === resident ? this.#first.onBegun : null;
  }

  /** That slice has dispatches and is submitted. */
  begun(): void {
    this.#first = null;
  }

  /** One that leaves goes on until it is gone: what it submits meanwhile is waited for too. */
  submitted(slice: Slice): void {
    if (this.#waits?.resident === slice.resident) this.#waits.slices.add(slice);
  }

  finished({ slice, startedMs }: DoneSlice, finishedMs: number, isLeaving: boolean): void {
    const waits = this.#waits;
    if (waits === null || !waits.slices.delete(slice)) return;
    waits.preemption.waitedFor({
      // Which of its dispatches it was comes later than its end, where each was timed.
      get kernel() {
        return slice.longest?.kernel ?? 'copy';
      },
      predictedUs: slice.predictedUs,
      realUs: (finishedMs - startedMs) * 1000,
    });
    if (waits.slices.size === 0 && !isLeaving) this.#yielded(finishedMs);
  }

  #yielded(atMs: number): void {
    this.#waits?.preemption.yielded(atMs);
    this.#waits = null;
  }

  /** The resident has nothing half done, nothing in flight and nothing waiting. */
  idle(resident: Resident, atMs: number): void {
    if (resident !== this.#asker) return;
    this.log.released(atMs);
  }
}
