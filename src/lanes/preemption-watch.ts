import type { DoneSlice, Slice } from './in-flight.js';
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

/** How those who have to yield stand when a request is detected. */
export interface Yielding {
  /** Whose slice the device is at; when it is at nobody's, whose turn it would have been. */
  readonly resident: Resident;
  /** Of that one. */
  readonly phase: number | null;
  /** The other jobs, in the order of their turns. */
  readonly others: readonly string[];
  /** What all of them have on the device, in its order. */
  readonly slices: readonly Slice[];
  readonly budgetMs: number;
  /** Some of them finish their step and move their caches before they yield. */
  readonly leaves: boolean;
}

/** Follows slices on behalf of the preemption log: what a request waits for, when its own work begins and ends. */
export class PreemptionWatch {
  #waits: { preemption: Preemption; slices: Set<Slice> } | null = null;
  #first: FirstSlice | null = null;

  constructor(private readonly log: PreemptionLog) {}

  /** Somebody waits for slices to finish. */
  get waits(): boolean {
    return this.#waits !== null;
  }

  /** Somebody of lower priority is running, or would. */
  request({ asker, ...request }: Request, yielding: Yielding): void {
    const { resident, phase, others, slices, budgetMs, leaves } = yielding;
    const inFlightUs = slices.reduce((sum, { predictedUs }) => sum + predictedUs, 0);
    const names = others.length === 0 ? { job: resident.job } : { job: resident.job, alsoYielded: others };
    const told = { ...request, ...names, asker: asker.job, budgetMs, inFlightUs, phase };
    const preemption = this.log.request(told);
    if (preemption === null) return;
    this.#first = { resident: asker, onBegun: (atMs) => preemption.begun(atMs) };
    this.#waits = { preemption, slices: new Set(slices) };
    this.settle(leaves, request.detectedMs);
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

  /** Those that leave go on until they are gone: what they submit meanwhile is waited for too. */
  submitted(slice: Slice): void {
    this.#waits?.slices.add(slice);
  }

  /** A slice is done; `isLeaving` says whether somebody still has to leave. */
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
    this.settle(isLeaving, finishedMs);
  }

  /** Nothing is waited for once nobody has to leave and no slice is in the way. */
  settle(isLeaving: boolean, atMs: number): void {
    if (this.#waits === null || this.#waits.slices.size > 0 || isLeaving) return;
    this.#waits.preemption.yielded(atMs);
    this.#waits = null;
  }

  /** No stage has anything half done, in flight or waiting: who yielded may come back. */
  released(atMs: number): void {
    this.log.released(atMs);
  }
}
