import type { Gpu } from '../gpu/device.js';
import type { DispatchOp, Op, Program } from '../gpu/ops.js';
import { assert } from '../lib/assert.js';
import { nowMs } from '../lib/clock.js';
import { errorText } from '../lib/errors.js';
import type { SliceRecord } from '../telemetry/records.js';
import type { CostModel } from './cost-model.js';
import type { Doorbell } from './doorbell.js';
import { InFlight, learnFrom, type Slice, sliceRecord } from './in-flight.js';
import type { PreemptionLog } from './preemption-log.js';
import type { Resident } from './resident.js';
import { SliceLog } from './slice-log.js';
import { type OnBegun, SliceTimer } from './slice-timer.js';

export interface ExecutorBudgets {
  /** Predicted µs of one slice at most (one longer dispatch is a slice of its own). */
  readonly sliceUs: number;
  /** Predicted µs submitted and unfinished at most. */
  readonly inFlightUs: number;
}

interface Entry {
  readonly resident: Resident;
  program: Program | null;
  /** Pulled from the program, not yet encoded: it did not fit the slice before. */
  held: Op | null;
}

/** Sleeping shorter than this costs more than the spinning it saves. */
const NAP_MS_MIN = 0.3;
const NAP_MS_MAX = 50;
const NAP_SHARE = 0.8;

/**
 * Runs the residents of one device by priority, a slice at a time. Nothing submitted can be recalled, so how long
 * the device stays taken is bounded on the way in: a slice is predicted to take at most `sliceUs`, and all that is
 * unfinished at most `inFlightUs`. A resident of higher priority needs no handshake: its ops go behind what is in
 * flight, and that is all it waits for. (The idea of bounding the commands in flight is XSched's, OSDI 2025.)
 */
export class Executor {
  readonly #entries: Entry[] = [];
  readonly #inFlight = new InFlight();
  readonly #log = new SliceLog();
  readonly #timer: SliceTimer;
  /** The engine's last slice that a preemption has to wait for. */
  #yieldsWith: Slice | null = null;
  /** Waits for the first dispatch after a preemption. */
  #onTrainerBegun: OnBegun | null = null;
  #stopping = false;
  #failure: Error | null = null;
  #signalled = false;
  #waiter: (() => void) | null = null;
  #idleWaiters: (() => void)[] = [];

  constructor(
    private readonly gpu: Gpu,
    private readonly lane: number,
    private readonly budgets: ExecutorBudgets,
    private readonly cost: CostModel,
    private readonly preemptions: PreemptionLog,
    /** Ends a nap when a message is posted to this thread; null where nobody naps. */
    private readonly doorbell: Doorbell | null,
  ) {
    this.#timer = new SliceTimer(gpu, cost, (error) => this.#fail(error));
  }

  addResident(resident: Resident): void {
    this.#entries.push({ resident, program: null, held: null });
    this.#entries.sort((a, b) => a.resident.priority - b.resident.priority);
    this.wake();
  }

  /** Forgets a resident; it must have no program half done. */
  removeResident(resident: Resident): void {
    const index = this.#entries.findIndex((entry) => entry.resident === resident);
    assert(index >= 0, 'removeResident of a stranger');
    assert(!this.isBusy(resident), `removeResident of a busy ${resident.kind}`);
    this.#entries.splice(index, 1);
  }

  /** True while the resident has a program half done or slices in flight. */
  isBusy(resident: Resident): boolean {
    const entry = this.#entries.find((candidate) => candidate.resident === resident);
    return entry?.program != null || this.#inFlight.lastOf(resident) !== null;
  }

  /** There may be new work, or a reason to stop. */
  wake(): void {
    this.#signalled = true;
    this.#waiter?.();
    this.#waiter = null;
  }

  /**
   * The trainer has new work since `requestedMs`: opens a preemption, unless the engine has nothing to do or the
   * trainer holds the device already.
   */
  request(stage: string, requestedMs: number, engineHasWork: boolean): void {
    const engine = this.#entries.find((entry) => entry.resident.kind === 'engine');
    if (engine !== undefined) {
      const last = this.#inFlight.lastOf(engine.resident);
      const waits = !this.#trainerIsBusy() && (engine.program !== null || engineHasWork);
      const yieldedMs = last === null ? nowMs() : null;
      if (last !== null || waits) {
        const onBegun = this.preemptions.request(engine.resident.job, stage, requestedMs, yieldedMs);
        if (onBegun !== null) [this.#yieldsWith, this.#onTrainerBegun] = [last, onBegun];
      }
    }
    this.wake();
  }

  /** Works until `stop`; rejects when the device refuses a command or a program throws. */
  async run(): Promise<void> {
    try {
      while (!this.#stopping || this.#inFlight.count > 0) {
        this.#signalled = false;
        if (this.#failure !== null) throw this.#failure;
        this.gpu.assertHealthy();
        if (!this.#stopping && this.#submitSlice()) continue;
        this.#nap();
        await this.#signal();
      }
      await this.#timer.settled();
    } catch (error) {
      this.#fail(error);
    }
    if (this.#failure !== null) throw this.#failure;
  }

  /** Ends `run` once everything in flight has finished. Programs half done are abandoned. */
  stop(): void {
    this.#stopping = true;
    for (const entry of this.#entries) {
      entry.program?.return();
      entry.program = null;
      entry.held = null;
    }
    this.#checkIdle();
    this.wake();
  }

  /** Slices finished since the last call. */
  takeSlices(): { slices: SliceRecord[]; dropped: number } {
    return this.#log.take();
  }

  /**
   * Resolves once the resident has nothing half done and nothing in flight. It must offer nothing new meanwhile.
   *
   * @throws Error when the executor fails first.
   */
  async idle(resident: Resident): Promise<void> {
    while (this.isBusy(resident)) {
      if (this.#failure !== null) throw this.#failure;
      await new Promise<void>((resolve) => {
        this.#idleWaiters.push(resolve);
      });
    }
  }

  /** Submits one slice of the most urgent resident with work; false when there is none or no room in flight. */
  #submitSlice(): boolean {
    const entry = this.#mostUrgent();
    if (entry === null) return false;
    const first = this.#peek(entry);
    if (first === null) return true;
    const roomUs = Math.min(this.budgets.sliceUs, this.budgets.inFlightUs - this.#inFlight.predictedUs);
    if (this.#inFlight.count > 0 && this.cost.predictUs(first) > roomUs) return false;
    this.#encode(entry, first, roomUs);
    return true;
  }

  #mostUrgent(): Entry | null {
    for (const entry of this.#entries) {
      entry.program ??= entry.resident.next();
      if (entry.program !== null) return entry;
    }
    return null;
  }

  /** The entry's next op without consuming it; null, and the program forgotten, at its end. */
  #peek(entry: Entry): Op | null {
    if (entry.held !== null) return entry.held;
    const step = entry.program?.next();
    if (step === undefined || step.done === true) {
      entry.program = null;
      this.#checkIdle();
      return null;
    }
    entry.held = step.value;
    return entry.held;
  }

  /** Submits ops from `first` on for as long as they are predicted to fit; the first one always goes. */
  #encode(entry: Entry, first: Op, roomUs: number): void {
    const yields = entry.resident.kind === 'engine';
    const onBegun = yields ? null : this.#onTrainerBegun;
    const { encoder, timed, submit } = this.#timer.begin({ isNew: this.#isNew(first), yields, onBegun });
    const dispatches: DispatchOp[] = [];
    let predictedUs = 0;
    for (let op: Op | null = first; op !== null; op = this.#peek(entry)) {
      const us = this.cost.predictUs(op);
      const fits = op === first || us === 0 || predictedUs + us <= roomUs;
      if (!fits || !encoder.accepts(op)) break;
      if (dispatches.length > 0 && !timed && this.#wantsOwnSlice(op, dispatches)) break;
      encoder.add(op);
      if (op.kind === 'dispatch') dispatches.push(op);
      predictedUs += us;
      entry.held = null;
    }
    submit(dispatches);
    if (onBegun !== null && dispatches.length > 0) this.#onTrainerBegun = null;
    const slice = { resident: entry.resident, predictedUs, submittedMs: nowMs(), dispatches, timed };
    this.#inFlight.add(slice);
    void this.gpu.device.queue
      .onSubmittedWorkDone()
      .then(() => this.#finished(slice))
      .catch((error: unknown) => this.#fail(error));
  }

  #isNew(op: Op): boolean {
    return op.kind === 'dispatch' && this.cost.isNew(op);
  }

  /** A new kernel begins a slice, so that it is timed soon; without timestamps that slice holds nothing else. */
  #wantsOwnSlice(op: Op, before: readonly DispatchOp[]): boolean {
    if (op.kind === 'submitted') return false;
    if (this.gpu.hasTimestamps) return this.#timer.ready && this.#isNew(op);
    return this.#isNew(op) || before.some((earlier) => this.cost.isNew(earlier));
  }

  #finished(last: Slice): void {
    const finishedMs = nowMs();
    const done = this.#inFlight.finish(last, finishedMs);
    learnFrom(done, finishedMs, this.cost, this.gpu.hasTimestamps);
    for (const { slice, startedMs } of done) {
      this.#log.add(sliceRecord(this.lane, slice, startedMs, finishedMs));
      this.#followPreemption(slice, finishedMs);
    }
    this.#checkIdle();
    this.wake();
  }

  #checkIdle(): void {
    for (const check of this.#idleWaiters.splice(0)) check();
  }

  #fail(error: unknown): void {
    this.#failure ??= error instanceof Error ? error : new Error(errorText(error));
    this.#checkIdle();
    this.wake();
  }

  #followPreemption(slice: Slice, atMs: number): void {
    if (slice === this.#yieldsWith) {
      this.#yieldsWith = null;
      this.preemptions.yielded(atMs);
    }
    if (slice.resident.kind !== 'trainer') return;
    for (const entry of this.#trainers()) entry.program ??= entry.resident.next();
    if (!this.#trainerIsBusy()) this.preemptions.released(atMs);
  }

  #trainers(): Entry[] {
    return this.#entries.filter((entry) => entry.resident.kind === 'trainer');
  }

  #trainerIsBusy(): boolean {
    return this.#trainers().some(({ resident }) => this.isBusy(resident));
  }

  /**
   * While a promise of the device is pending, Dawn spins this thread to poll it, and on a software adapter that
   * takes a core from the device itself. So sleep through most of what is predicted to be left; a message wakes.
   */
  #nap(): void {
    if (this.doorbell === null || this.#signalled) return;
    const napMs = Math.min(NAP_MS_MAX, this.#inFlight.nextDoneMs(nowMs()) * NAP_SHARE);
    if (napMs >= NAP_MS_MIN) this.doorbell.nap(napMs);
  }

  #signal(): Promise<void> {
    if (this.#signalled) return Promise.resolve();
    return new Promise((resolve) => {
      this.#waiter = resolve;
    });
  }
}
