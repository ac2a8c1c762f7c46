import type { Scheduler } from '../scheduler/scheduler.js';
import type { EndedRollout } from '../scheduler/lengths.js';
import type { Demand, JobId, LaneId } from '../scheduler/state.js';
import { Timer, type SimClock } from './clock.js';
import type { LatencyHistogram } from './latency.js';

/** Between two reports of an engine that somebody waits for, in ms, while it samples. */
const LATENCY_REPORT_MS = 100;

export interface DeskOptions {
  /** What happens within so long of the first of it is told to the scheduler together, and planned for once. */
  readonly coalesceMs: number;
  /** An engine tells of its progress no more often than this, unless it fell idle, got work or has new weights. */
  readonly progressMs: number;
}

/** A job that wants something of generation. */
interface Demanding {
  readonly id: JobId;
  readonly isOver: boolean;
  readonly demand: Demand;
  /** Rollouts that ended since it was asked last. */
  takeEnded(): readonly EndedRollout[];
}

/** An engine that tells of its progress. */
export interface Reporting {
  readonly jobId: JobId;
  readonly laneId: LaneId;
  /** Still on its lane. */
  readonly isOpen: boolean;
  readonly running: number;
  readonly version: number;
  /** At this very moment: it has something to do, and its lane's time to do it. */
  readonly isSampling: boolean;
  /** Sampled so far. */
  readonly tokens: number;
  /** Times between tokens since it told last; null where nobody waits for them. */
  readonly latency: LatencyHistogram | null;
  /** A decode step of what it runs, alone on the lane; null when nothing runs. */
  readonly decodeStepMs: number | null;
  /** What the scheduler was told last. */
  readonly told: { running: number; version: number; atMs: number; tokens: number };
  commit(): void;
}

/**
 * Between the simulated world and the scheduler: what happens is gathered here and told in one go. What the
 * scheduler then decides happens at the time of the telling.
 */
export class Desk {
  /** Set when the scheduler was told something: its promises are due to be looked at. */
  hasTold = false;
  readonly #timer = new Timer('scheduler', () => this.#tell());
  #news: (() => void)[] = [];
  readonly #demands = new Map<JobId, Demanding>();
  readonly #engines = new Set<Reporting>();

  constructor(
    private readonly clock: SimClock,
    private readonly options: DeskOptions,
    private readonly scheduler: () => Scheduler,
  ) {}

  /** Something happened: it is dispatched, or an order answered, when the scheduler is told. */
  tell(news: () => void): void {
    this.#news.push(news);
    this.#wish(this.clock.nowMs + this.options.coalesceMs);
  }

  demandChanged(job: Demanding): void {
    this.#demands.set(job.id, job);
    this.#wish(this.clock.nowMs + this.options.coalesceMs);
  }

  engineChanged(engine: Reporting): void {
    const { told, running, version } = engine;
    if (told.running === running && told.version === version) return;
    this.#engines.add(engine);
    this.#wish(Math.max(this.clock.nowMs + this.options.coalesceMs, this.#dueMs(engine)));
  }

  /** An engine that somebody waits for samples from now on, whether anything else changes or not. */
  watch(engine: Reporting): void {
    if (engine.latency === null) return;
    this.#engines.add(engine);
    this.#wish(Math.max(this.clock.nowMs + this.options.coalesceMs, this.#dueMs(engine)));
  }

  /** Engines that were still waking by the scheduler's books are told of next time. */
  settled(): void {
    this.hasTold = false;
    let earliestMs = Infinity;
    for (const engine of this.#engines) earliestMs = Math.min(earliestMs, this.#dueMs(engine));
    if (earliestMs < Infinity) this.#wish(Math.max(this.clock.nowMs + this.options.coalesceMs, earliestMs));
  }

  #dueMs({ told, running, version, latency }: Reporting): number {
    const isUrgent = (told.running === 0) !== (running === 0) || told.version !== version;
    if (isUrgent) return 0;
    const isOnlyTime = latency !== null && told.running === running;
    return told.atMs + (isOnlyTime ? LATENCY_REPORT_MS : this.options.progressMs);
  }

  #wish(timeMs: number): void {
    if (!this.#timer.isSet || timeMs < this.#timer.key) this.clock.set(this.#timer, timeMs);
  }

  #tell(): void {
    this.hasTold = true;
    for (const news of this.#news.splice(0)) news();
    const scheduler = this.scheduler();
    for (const job of this.#demands.values()) this.#tellDemand(scheduler, job);
    this.#demands.clear();
    for (const engine of this.#engines) {
      if (this.#dueMs(engine) <= this.clock.nowMs) this.#tellProgress(scheduler, engine);
    }
    scheduler.plan();
  }

  #tellDemand(scheduler: Scheduler, job: Demanding): void {
    const { id, isOver, demand } = job;
    const told = scheduler.snapshot.jobs.get(id)?.demand;
    if (isOver || told === undefined) return;
    const isSame =
      told.rollouts === demand.rollouts &&
      told.runnable === demand.runnable &&
      (told.deferredPrompts ?? 0) === (demand.deferredPrompts ?? 0);
    if (isSame) return;
    const ended = job.takeEnded();
    scheduler.dispatch({ kind: 'demandChanged', job: id, demand, ...(ended.length > 0 ? { ended } : {}) });
  }

  #tellProgress(scheduler: Scheduler, engine: Reporting): void {
    const { told, running, version, latency, decodeStepMs, jobId: job, laneId: lane } = engine;
    const known = scheduler.snapshot.jobs.get(job)?.engines.find((state) => state.lane === lane);
    // Its answer is on the way: what it does is told right after.
    if (known?.status === 'waking' && engine.isOpen) return;
    this.#engines.delete(engine);
    if (known?.status !== 'awake' || !engine.isOpen) return;
    if (latency !== null) engine.commit();
    const tokens = Math.max(0, engine.tokens - told.tokens);
    const tokenLatencyMs = latency?.quantile(0.99) ?? null;
    if (tokenLatencyMs !== null) latency?.clear();
    scheduler.dispatch({
      kind: 'progress',
      job,
      lane,
      running,
      version,
      tokens,
      ...(tokenLatencyMs === null ? {} : { tokenLatencyMs }),
      ...(decodeStepMs === null ? {} : { stepMs: decodeStepMs }),
    });
    told.running = running;
    told.version = version;
    told.atMs = this.clock.nowMs;
    told.tokens += tokens;
    if (engine.isSampling) this.watch(engine);
  }
}
