import type { Gpu } from '../gpu/device.js';
import type { Op } from '../gpu/ops.js';
import { assert } from '../lib/assert.js';
import { nowMs } from '../lib/clock.js';
import { toError } from '../lib/errors.js';
import type { SliceRecord, StarvationRecord } from '../telemetry/records.js';
import type { CostModel } from './cost-model.js';
import type { Doorbell } from './doorbell.js';
import type { Entry } from './entry.js';
import { GenerationFloor } from './generation-floor.js';
import { type DoneSlice, InFlight, learnFrom, type Slice, sliceRecord } from './in-flight.js';
import { Pace } from './pace.js';
import type { PreemptionLog } from './preemption-log.js';
import { PreemptionWatch } from './preemption-watch.js';
import { type Resident, whoOf } from './resident.js';
import type { ExecutorBudgets, LaneSettings } from './settings.js';
import { Rest } from './rest.js';
import { SliceFiller } from './slice-filler.js';
import { SliceLog } from './slice-log.js';
import { SliceTimer } from './slice-timer.js';
import { Turns } from './turns.js';

/** Slices of whom nobody outranks: as long as keeps the host out of the way, and the device within reach of `stop`. */
const URGENT_SLICE_US = 5000;

/** A first slice is short: the device begins with it while the next one is put together. */
const FIRST_SLICE_US = 500;

/** Of the time that is queued behind the oldest slice, so much is slept through as well. */
const SPARE_SHARE = 0.25;
const SPARE_MS_MAX = 2;

/** What an executor tells of its time since it last did. */
export interface ExecutorRecords {
  readonly slices: SliceRecord[];
  readonly slicesDropped: number;
  readonly starved: StarvationRecord[];
  readonly hintIdleMs: number;
}

/**
 * Runs the residents of one device by priority, equals by turns, a slice at a time. Nothing submitted can be recalled,
 * so how long the device stays taken is bounded on the way in: a slice is predicted to take at most `sliceUs`, and all
 * that is unfinished at most `inFlightUs`. A resident of higher priority needs no handshake: its ops go behind what is
 * in flight, and that is all it waits for. (The idea of bounding the commands in flight is XSched's, OSDI 2025.)
 */
export class Executor {
  readonly #turns: Turns;
  readonly #inFlight = new InFlight();
  readonly #log = new SliceLog();
  readonly #timer: SliceTimer;
  readonly #filler: SliceFiller;
  readonly #pace: Pace;
  readonly #floor: GenerationFloor;
  readonly #watch: PreemptionWatch;
  readonly #rest: Rest;
  #budgets: ExecutorBudgets;
  #hintIdleMs = 0;
  #idleSinceMs: number | null = null;
  /** So long until there is room for the next slice, if the device is as fast as predicted. */
  #roomInMs = Infinity;
  #stopping = false;
  #failure: Error | null = null;
  #signalled = false;
  #waiter: (() => void) | null = null;
  #idleWaiters: (() => void)[] = [];

  constructor(
    private readonly gpu: Gpu,
    private readonly lane: number,
    settings: LaneSettings,
    private readonly cost: CostModel,
    preemptions: PreemptionLog,
    /** Ends a nap when a message is posted to this thread; null where nobody naps. */
    private readonly doorbell: Doorbell | null,
    /** Those who outrank others have nothing more to do. */
    private readonly onReleased: () => void = () => undefined,
  ) {
    this.#rest = new Rest(this.#inFlight);
    this.#timer = new SliceTimer(gpu, cost, (error) => this.#fail(error));
    this.#filler = new SliceFiller(gpu, cost, this.#timer);
    this.#budgets = settings.budgets;
    this.#pace = new Pace(settings.budgets, cost);
    this.#floor = new GenerationFloor(lane, settings.generationFloor);
    this.#turns = new Turns(cost, this.#floor);
    this.#watch = new PreemptionWatch(preemptions);
  }

  configure({ budgets, generationFloor }: LaneSettings): void {
    this.#budgets = budgets;
    this.#pace.configure(budgets);
    this.#floor.configure(generationFloor);
    this.wake();
  }

  /** How engines share the device: a slice of `segment` each in turn; null: by weight, in slices as the budgets say. */
  align(segment: ExecutorBudgets | null): void {
    this.#pace.align(segment);
    this.#turns.setEven(segment !== null);
    this.wake();
  }

  addResident(resident: Resident): void {
    this.#turns.add(resident);
    this.cost.joined(whoOf(resident));
    this.wake();
  }

  /** Forgets a resident; it must have no program half done. */
  removeResident(resident: Resident): void {
    const entry = this.#turns.of(resident);
    assert(entry !== null, 'removeResident of a stranger');
    assert(!this.isBusy(resident), `removeResident of a busy ${resident.kind}`);
    this.#turns.remove(entry);
    this.cost.left(entry.who);
    // It may have been the last that had to leave.
    this.#watch.settle(this.#someoneLeaves, nowMs());
    this.wake();
  }

  /** True while the resident has a program half done or slices in flight. */
  isBusy(resident: Resident): boolean {
    return this.#turns.of(resident)?.isHalfDone === true || this.#inFlight.lastOf(resident) !== null;
  }

  /** Longest single dispatch lately submitted of a resident that yields, in predicted µs. */
  get largestDispatchUs(): number {
    return this.#pace.largestUs;
  }

  /** There may be new work, or a reason to stop. */
  wake(): void {
    this.#signalled = true;
    this.#waiter?.();
    this.#waiter = null;
  }

  /** A stage will want the device at about `expectedMs`: until it does, or `untilMs`, little is kept in flight. */
  hint(expectedMs: number, untilMs: number): void {
    this.#pace.hint(expectedMs, untilMs);
    this.wake();
  }

  /** `asker` has new work since `requestedMs`: opens a preemption if anybody less urgent is in its way. */
  request(asker: Resident, stage: string, requestedMs: number, detectedMs = nowMs()): void {
    this.#pace.endHint();
    this.wake();
    const { order } = this.#turns;
    // Who comes while an equal has the device takes it from nobody.
    if (order.some(({ resident }) => resident.priority <= asker.priority && this.isBusy(resident))) return;
    const request = { asker, stage, requestedMs, detectedMs };
    const isLower = ({ priority }: Resident): boolean => priority > asker.priority;
    const lower = order.filter(
      ({ resident, hasWork }) => isLower(resident) && (hasWork || this.isBusy(resident)),
    );
    const slices = this.#inFlight.slices.filter(({ resident }) => isLower(resident));
    const holder = lower.find(({ resident }) => resident === slices[0]?.resident) ?? lower[0];
    if (holder === undefined) {
      this.#watch.undisturbed(request, nowMs);
      return;
    }
    const { resident, phase } = holder;
    const jobs = new Set(lower.map((entry) => entry.resident.job));
    jobs.delete(resident.job);
    const [others, budgetMs] = [[...jobs], this.#pace.lawMs];
    const leaves = lower.some(({ isLeaving }) => isLeaving);
    this.#watch.request(request, { resident, phase, others, slices, budgetMs, leaves });
  }

  /**
   * From now on the resident goes first, whoever outranks it: it finishes its step and then what it was given to do
   * before it yields. Call the function returned when the last op of that is submitted.
   */
  leave(resident: Resident): () => void {
    const entry = this.#turns.of(resident);
    assert(entry !== null, 'leave by a stranger');
    entry.isLeaving = true;
    return () => {
      entry.isLeaving = false;
    };
  }

  /** Learns how the device's clock stands to the host's: before `run`, while nothing else is on the device. */
  synchronise(): Promise<void> {
    return this.#timer.synchronise();
  }

  /** Works until `stop`; rejects when the device refuses a command or a program throws. */
  async run(): Promise<void> {
    try {
      while (!this.#stopping || this.#inFlight.count > 0) {
        this.#signalled = false;
        if (this.#failure !== null) throw this.#failure;
        this.gpu.assertHealthy();
        if (!this.#stopping && this.#submitSlice()) continue;
        await this.#wait();
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
    for (const entry of this.#turns.entries) entry.abandon();
    this.#checkIdle();
    this.wake();
  }

  /** What happened since the last call. */
  takeRecords(): ExecutorRecords {
    const { slices, dropped: slicesDropped } = this.#log.take();
    const hintIdleMs = this.#hintIdleMs;
    this.#hintIdleMs = 0;
    return { slices, slicesDropped, starved: this.#floor.take(), hintIdleMs };
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

  /** Resolves when every timing asked for so far is in. */
  timed(): Promise<void> {
    return this.#timer.settled();
  }

  /** Submits one slice of whoever is next; false when nobody has work or there is no room in flight. */
  #submitSlice(): boolean {
    this.#roomInMs = Infinity;
    const entry = this.#turns.next(nowMs());
    if (entry === null) return false;
    const first = entry.peek();
    if (first === null) {
      this.#checkIdle();
      return true;
    }
    const { sliceUs, inFlightUs } = this.#limits(entry);
    // Where nothing may be put behind it, or nothing is to be cut, a short one would only be one more.
    const isShort = this.#isFirst(entry) && inFlightUs > 0 && sliceUs < Infinity;
    const longUs = isShort ? Math.min(FIRST_SLICE_US, sliceUs) : entry.evenUs(sliceUs);
    const wantedUs = Math.max(longUs, this.cost.predictUs(first, entry.who));
    const roomUs = inFlightUs - this.#inFlight.remainingUs(nowMs());
    // On a free device there is room for a slice, even when the budget lets nothing be queued behind one.
    const isFree = this.#inFlight.count === 0 || this.#mayQueueBehind(entry);
    // A slice waits until there is room for all of it: bits that fit at once would cost a submission each.
    this.#roomInMs = isFree ? 0 : (wantedUs - roomUs) / 1000;
    if (this.#roomInMs > 0) return false;
    this.#submit(entry, first, wantedUs);
    return true;
  }

  /** Who may have to yield is held to what experience allows; for who never does, long slices cost nobody anything. */
  #limits({ resident }: Entry): ExecutorBudgets {
    if (this.#yields(resident)) return this.#pace.limits(nowMs());
    const { sliceUs, inFlightUs } = this.#budgets;
    return {
      sliceUs: Math.max(sliceUs, URGENT_SLICE_US),
      inFlightUs: Math.max(inFlightUs, 2 * URGENT_SLICE_US),
    };
  }

  #yields(resident: Resident): boolean {
    return this.#turns.yields(resident);
  }

  get #someoneLeaves(): boolean {
    return this.#turns.entries.some(({ isLeaving }) => isLeaving);
  }

  /**
   * Whom nobody outranks may put a first slice behind what others have in flight, however much that is: nobody will
   * have to wait for it, and the device need not stand still until the host has heard that it is free.
   */
  #mayQueueBehind(entry: Entry): boolean {
    return !this.#yields(entry.resident) && this.#isFirst(entry);
  }

  /** Neither it nor an equal has anything in flight. */
  #isFirst({ resident: { priority } }: Entry): boolean {
    return this.#inFlight.slices.every(({ resident }) => resident.priority !== priority);
  }

  #submit(entry: Entry, first: Op, roomUs: number): void {
    // Its last op may end the leaving.
    const { resident, isLeaving } = entry;
    const onBegun = this.#watch.onBegun(resident);
    const slice = this.#filler.submit(entry, first, roomUs, onBegun);
    this.#turns.ran(entry, slice.predictedUs);
    this.#countIdle(slice);
    if (onBegun !== null && slice.dispatches.length > 0) this.#watch.begun();
    if (isLeaving) this.#watch.submitted(slice);
    if (this.#yields(resident)) this.#pace.submitted(slice.longest?.us ?? 0);
    if (resident.kind === 'engine') this.#floor.ran(resident.job, slice.predictedUs, slice.submittedMs);
    this.#inFlight.add(slice);
    void this.gpu.device.queue
      .onSubmittedWorkDone()
      .then(() => this.#finished(slice))
      .catch((error: unknown) => this.#fail(error));
  }

  /** The device stands still, for want of a slice that a hint did not let be queued behind the last one. */
  #noteIdle(finishedMs: number): void {
    const couldRun = this.#turns.entries.some((entry) => entry.isHalfDone && this.#yields(entry.resident));
    const isIdle = this.#inFlight.count === 0 && couldRun && this.#pace.isShallow(finishedMs);
    this.#idleSinceMs = isIdle ? finishedMs : null;
  }

  #countIdle({ resident, submittedMs }: Slice): void {
    if (this.#idleSinceMs !== null && this.#yields(resident))
      this.#hintIdleMs += submittedMs - this.#idleSinceMs;
    this.#idleSinceMs = null;
  }

  #finished(last: Slice): void {
    if (!this.#inFlight.slices.includes(last)) return;
    const seenMs = nowMs();
    const finishedMs = this.#rest.finishedMs(last, seenMs);
    // What outranks a slice and lies before it makes it stay longer, and is not its fault.
    const urgent = this.#inFlight.slices.findIndex(({ resident }) => !this.#yields(resident));
    const coveredMs = this.#inFlight.lastFinishedMs;
    const done = this.#inFlight.finish(last, finishedMs);
    learnFrom(done, finishedMs, this.cost, this.gpu.hasTimestamps);
    done.forEach((each, index) => {
      const { slice } = each;
      this.#log.add(sliceRecord(this.lane, each, finishedMs));
      // A preemption is told by what was seen, never by what was predicted.
      this.#watch.finished(each, seenMs, this.#someoneLeaves);
      if (slice.resident.kind === 'engine')
        this.#floor.took((finishedMs - each.startedMs) * 1000, slice.predictedUs);
      if (!this.#yields(slice.resident)) this.#used(each, finishedMs);
      else if (urgent < 0 || index < urgent) {
        const stayMs = finishedMs - slice.submittedMs;
        this.#pace.observe(stayMs, index === 0 ? Math.min(stayMs, finishedMs - coveredMs) : 0);
      }
    });
    this.#noteIdle(finishedMs);
    this.#checkIdle();
    this.wake();
  }

  /** Whoever outranks generation has used the device, and may be done with it. */
  #used({ slice, startedMs }: DoneSlice, finishedMs: number): void {
    const { entries } = this.#turns;
    if (entries.some(({ resident, hasWork }) => resident.kind === 'engine' && hasWork))
      this.#floor.earn((finishedMs - startedMs) * 1000);
    const { priority } = slice.resident;
    const stages = entries.filter(({ resident }) => resident.priority <= priority);
    if (stages.some(({ resident, hasWork }) => hasWork || this.isBusy(resident))) return;
    this.#watch.released(finishedMs);
    this.onReleased();
  }

  #checkIdle(): void {
    for (const check of this.#idleWaiters.splice(0)) check();
  }

  #fail(error: unknown): void {
    this.#failure ??= toError(error);
    this.#checkIdle();
    this.wake();
  }

  /** While nobody waits for the oldest slice to end, what is queued behind it leaves time to look. */
  #spareMs(): number {
    const [oldest] = this.#inFlight.slices;
    if (oldest === undefined || this.#watch.waits || !this.#yields(oldest.resident)) return 0;
    return Math.min(SPARE_MS_MAX, this.#inFlight.behindMs * SPARE_SHARE);
  }

  /** With nothing in flight, sleeps until it is woken; otherwise naps, and lets the event loop turn. */
  async #wait(): Promise<void> {
    if (this.#signalled) return;
    if (this.doorbell !== null && this.#inFlight.count > 0) {
      return this.#rest.nap(this.doorbell, { spareMs: this.#spareMs(), roomInMs: this.#roomInMs });
    }
    await new Promise<void>((resolve) => {
      this.#waiter = resolve;
    });
  }
}
