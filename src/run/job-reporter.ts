import { nowMs } from '../lib/clock.js';
import type { Scheduler } from '../scheduler/scheduler.js';
import type { EngineState, JobSpec, JobState } from '../scheduler/state.js';
import type { RolloutPool } from './rollouts.js';
import type { TokenPace } from './token-pace.js';

/** Between two reports of what can wait a little, in ms: rollouts that end or pause here and there. */
const REPORT_MS = 10;
/** Between two reports of an engine that does nothing but sample, in ms; as in the simulator. */
const SAMPLING_REPORT_MS = 100;
/** A step of another length by this factor is worth a report of its own: steps grow and shrink with every sequence. */
const STEP_NEWS = 1.25;

export interface JobReporterParts {
  readonly scheduler: Scheduler;
  readonly pool: Pick<RolloutPool, 'demand' | 'runnable' | 'runningOn' | 'takeEnded'>;
  readonly pace: TokenPace;
  /** The version that each engine awake holds, by lane. */
  readonly held: ReadonlyMap<number, number>;
  /** Prompts that wait for a long round. */
  readonly deferredPrompts: () => number;
}

/**
 * What the scheduler is told of a job, and when. Each report costs a plan for everybody, and rollouts end, pause and go
 * on by the hundred a second; so what changes what there is to decide is told at the end of the event loop's turn, and
 * the rest with the next report, the first of it at once. Bounded: one timer, whatever happens.
 */
export class JobReporter {
  #immediate: NodeJS.Immediate | undefined;
  #timer: NodeJS.Timeout | undefined;
  #toldMs = -Infinity;
  /** By lane: when the engine was told of last. */
  readonly #engineToldMs = new Map<number, number>();
  #closed = false;

  constructor(
    private readonly job: JobSpec,
    private readonly parts: JobReporterParts,
  ) {}

  /** Demand or room changed: tells of it soon. */
  changed(): void {
    if (this.#closed || this.#immediate !== undefined) return;
    const waitMs = this.#toldMs + REPORT_MS - nowMs();
    if (waitMs <= 0 || this.#isUrgent()) this.#soon();
    else this.#timer ??= setTimeout(() => this.tell(), waitMs);
  }

  /** An engine sampled: tells how fast now and then, where a policy may ask for it. */
  heard(lane: number, atMs = nowMs()): void {
    if (this.#closed || this.#immediate !== undefined) return;
    if (atMs < (this.#engineToldMs.get(lane) ?? -Infinity) + SAMPLING_REPORT_MS) return;
    const engine = this.#state?.engines.find((each) => each.lane === lane);
    if (engine?.status !== 'awake') return;
    const isWaitedFor = this.job.tokenLatencyMs !== null;
    if (isWaitedFor || isNews(this.parts.pace.stepMs(lane), engine.stepMs)) this.#soon();
  }

  /** Tells what has not been told yet, if there is anything. */
  tellRest(): void {
    if (this.#timer !== undefined || this.#immediate !== undefined) this.tell();
  }

  /** Tells how things are now. */
  tell(): void {
    this.#cancel();
    const state = this.#state;
    if (this.#closed || state === undefined) return;
    const { scheduler, pool, deferredPrompts } = this.parts;
    const { id: job } = this.job;
    this.#toldMs = nowMs();
    const ended = pool.takeEnded();
    const demand = { ...pool.demand, deferredPrompts: deferredPrompts() };
    const news = { job, demand, ...(ended.length > 0 ? { ended } : {}) };
    scheduler.dispatch({ kind: 'demandChanged', ...news });
    for (const engine of state.engines) if (engine.status === 'awake') this.#tellProgress(engine);
  }

  /** Nothing is told any more. */
  close(): void {
    this.#closed = true;
    this.#cancel();
  }

  #tellProgress(engine: EngineState): void {
    const { scheduler, pace } = this.parts;
    const { lane } = engine;
    const { running, version } = this.#present(engine);
    const paced = pace.take(lane, this.#toldMs);
    const isSame = engine.running === running && engine.version === version;
    if (isSame && paced.tokens === 0 && paced.tokenLatencyMs === undefined) return;
    this.#engineToldMs.set(lane, this.#toldMs);
    scheduler.dispatch({ kind: 'progress', job: this.job.id, lane, running, version, ...paced });
  }

  /** There is work where there was none, or none where there was, or an engine has other weights. */
  #isUrgent(): boolean {
    const state = this.#state;
    if (state === undefined) return false;
    if ((state.demand.runnable === 0) !== (this.parts.pool.runnable === 0)) return true;
    return state.engines.some((engine) => {
      const { running, version } = this.#present(engine);
      const isChanged = (engine.running === 0) !== (running === 0) || engine.version !== version;
      return engine.status === 'awake' && isChanged;
    });
  }

  #present({ lane, version }: EngineState): { running: number; version: number } {
    const { pool, held } = this.parts;
    return { running: pool.runningOn(lane), version: held.get(lane) ?? version };
  }

  get #state(): JobState | undefined {
    return this.parts.scheduler.snapshot.jobs.get(this.job.id);
  }

  #soon(): void {
    this.#immediate ??= setImmediate(() => this.tell());
  }

  #cancel(): void {
    clearImmediate(this.#immediate);
    clearTimeout(this.#timer);
    this.#immediate = undefined;
    this.#timer = undefined;
  }
}

/** Whether the length of a step says anything new. */
function isNews(stepMs: number | null, told: number | null): boolean {
  if (stepMs === null || told === null) return stepMs !== told && stepMs !== null;
  return stepMs > told * STEP_NEWS || told > stepMs * STEP_NEWS;
}
