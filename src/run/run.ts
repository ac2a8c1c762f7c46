import type { Logger } from 'pino';
import { setTimeout as sleep } from 'node:timers/promises';
import { nowMs } from '../lib/clock.js';
import { toError, UserError } from '../lib/errors.js';
import type { Buckets } from '../model/layout.js';
import type { Progress } from '../telemetry/progress.js';
import type { PlanRecord } from '../scheduler/scheduler.js';
import { reportHtml } from '../telemetry/report.js';
import type { RunFolder } from '../telemetry/run-folder.js';
import type { RunRecords } from '../telemetry/run-records.js';
import { runTrace } from '../telemetry/run-trace.js';
import { scenarioReportHtml } from '../telemetry/scenario-report.js';
import { type ScenarioSummary, scenarioSummary } from '../telemetry/scenario-summary.js';
import type { SharedRecords } from '../telemetry/shared-records.js';
import type { Summary } from '../telemetry/summary.js';
import { Conductor, type NamedPolicy } from './conductor.js';
import { formatConfig } from './config.js';
import type { Fleet } from './fleet.js';
import type { Inbox } from './inbox.js';
import { JobRun } from './job-run.js';
import { laneCapacityBytes } from './lane-memory.js';
import { LaneNews } from './lane-news.js';
import { Interrupted, type Lifeline } from './lifeline.js';
import type { Prepared } from './prepare.js';
import type { Scenario, ScenarioJob } from './scenario.js';

/** A timer of Node that is to wait longer does not wait at all. */
const WAIT_MS_MAX = 2 ** 31 - 1;

/** One job of a run that is over. */
export interface JobOutcome {
  readonly id: string;
  /** On lib/clock. */
  readonly arrivedMs: number;
  readonly finishedMs: number;
  readonly summary: Summary;
  /** Trained tokens by how many versions before the trained one they were sampled. */
  readonly stalenessTokens: ReadonlyMap<number, number>;
  /** Between two tokens of a sequence, as the host heard of them: training, held and moved included. */
  readonly tokenLatencyMs: { readonly p50: number | null; readonly p99: number | null };
}

/** What came of a run. */
export interface ScenarioOutcome {
  /** Of all jobs and lanes. */
  readonly records: RunRecords;
  /** On lib/clock. */
  readonly endMs: number;
  /** Of all jobs; null when none had arrived. */
  readonly summary: ScenarioSummary | null;
  /** Those that arrived, in the order of the scenario. */
  readonly jobs: readonly JobOutcome[];
}

/** A job and what it is made of. */
export interface PreparedJob {
  readonly job: Scenario['jobs'][number];
  readonly prepared: Prepared;
  /** Handed to the trainer when the job arrives. */
  readonly weights: Buckets;
}

export interface RunParts {
  readonly scenario: Scenario;
  readonly policy: NamedPolicy;
  readonly configText: string;
  readonly fleet: Fleet;
  readonly records: SharedRecords;
  readonly inbox: Inbox;
  readonly folder: RunFolder;
  readonly logger: Logger;
  readonly progress: Progress;
  readonly lifeline: Lifeline;
  readonly onPlan?: ((record: PlanRecord) => void) | undefined;
}

/** One run on open lanes: lets its jobs arrive, waits for all of them, and writes down what came of it. */
export class Run {
  readonly #startedAt = new Date();
  readonly #conductor: Conductor;
  readonly #jobs: JobRun[] = [];
  readonly #failures: { readonly job: string; readonly error: Error }[] = [];
  /** Jobs that still want something of the lanes. */
  #left: number;
  /** Why the run ended before all of them were done; null when it did not. */
  #ended: Error | null = null;

  constructor(private readonly parts: RunParts) {
    const { policy, fleet, records, logger, lifeline, inbox, progress, scenario, onPlan } = parts;
    this.#left = scenario.jobs.length;
    this.#conductor = new Conductor(policy, {
      fleet,
      records: records.all,
      laneBytes: laneCapacityBytes(scenario.lanes),
      onPlan,
      onViolation: (text) => logger.warn(text),
      onFailed: (error) => lifeline.end(error),
    });
    lifeline.onEnd(() => this.#conductor.close());
    const conductor = this.#conductor;
    const news = new LaneNews({ conductor, jobs: () => this.#jobs, logger, progress });
    inbox.listener = {
      onLost: (lane, error) => news.lost(lane, error),
      onRebuilt: (lane, seconds) => news.rebuilt(lane, seconds),
    };
  }

  async go(prepared: readonly PreparedJob[]): Promise<ScenarioOutcome> {
    const { folder, fleet, progress, logger, configText, scenario } = this.parts;
    await folder.writeConfig(configText);
    if (this.#isShared) {
      for (const { id, config } of scenario.jobs) await folder.job(id).writeConfig(formatConfig(config));
      progress.phase(`running ${scenario.jobs.length} jobs`);
    }
    await Promise.all(prepared.map((job) => this.#run(job)));
    progress.phase('writing the report');
    await fleet.flush((lane, error) => logger.warn(`lane ${lane} told no more: ${error.message}`));
    const outcome = await this.#write();
    const failure = this.#failure();
    if (failure !== null) throw failure;
    await progress.close();
    return outcome;
  }

  get #isShared(): boolean {
    return this.parts.scenario.jobs.length > 1;
  }

  /** From a job's arrival to its end. Never rejects. */
  async #run({ job, prepared, weights }: PreparedJob): Promise<void> {
    const { progress, logger, fleet, records, folder, lifeline } = this.parts;
    try {
      if (job.arrivesS > 0) await arrival(job, lifeline);
    } catch {
      // The run ended before it came.
      this.#trained();
      return;
    }
    const conductor = this.#conductor;
    const own = this.#isShared
      ? { logger: logger.child({ job: job.id }), progress: named(progress, job.id) }
      : { logger, progress };
    const shared = { fleet, conductor, records, lifeline, ...own };
    let run: JobRun;
    try {
      run = await JobRun.open({ job, prepared, folder: folder.job(job.id), ...shared });
    } catch (error) {
      this.#failures.push({ job: job.id, error: toError(error) });
      own.progress.note(`could not begin: ${toError(error).message}`);
      this.#trained();
      return;
    }
    this.#jobs.push(run);
    const failure = await run.train(weights, () => this.#trained());
    if (failure !== null) {
      this.#failures.push({ job: job.id, error: failure });
      own.progress.note(`${failure.message} after ${run.stepsDone} steps; the files hold what there was`);
    } else if (this.#isShared) own.progress.note(`done after ${run.stepsDone} steps`);
    if (this.#left > 0) await run.leave();
  }

  /** One job less wants the lanes; with the last one the run is over. */
  #trained(): void {
    this.#left--;
    if (this.#left > 0) return;
    const { fleet, lifeline } = this.parts;
    this.#ended = lifeline.reason;
    fleet.retire();
    lifeline.end(new Error('the run is over'));
  }

  /** Why the run failed; null when it came to its end, or somebody ended it. */
  #failure(): Error | null {
    if (this.#ended instanceof Interrupted) return null;
    const first = this.#failures.find(({ error }) => error !== this.#ended);
    // What ended the run is no one job's, and maybe there was no job at that time.
    if (first === undefined) return this.#ended;
    const { job, error } = first;
    if (!this.#isShared) return error;
    const text = `job ${job}: ${error.message}`;
    return error instanceof UserError ? new UserError(text) : new Error(text, { cause: error });
  }

  async #write(): Promise<ScenarioOutcome> {
    const { folder, records, scenario, policy } = this.parts;
    const order = scenario.jobs.map(({ id }) => id);
    const jobs = [...this.#jobs].sort((a, b) => order.indexOf(a.id) - order.indexOf(b.id));
    const endMs = nowMs();
    // In one go with the summaries' counts, since lanes at work go on sending tokens.
    for (const job of jobs) job.tellRest();
    const outcomes = jobs.map((job) => this.#outcome(job, endMs));
    const { name, seed } = scenario;
    const told = { name, seed, policy: policy.name, jobs: outcomes, records: records.all, endMs };
    const summary = outcomes.length === 0 ? null : scenarioSummary(told);
    for (const job of outcomes) await folder.job(job.id).writeSummary(job.summary);
    await folder.writeTrace(runTrace(records.all, { endMs }).chunks());
    if (summary !== null) await this.#report(summary, jobs, endMs);
    return { records: records.all, endMs, summary, jobs: outcomes };
  }

  /** The page, and of several jobs the summary too. */
  async #report(summary: ScenarioSummary, jobs: readonly JobRun[], endMs: number): Promise<void> {
    const { folder, records, configText: config } = this.parts;
    const page = { records: records.all, endMs, startedAt: this.#startedAt, config };
    const told = jobs.map(({ id, log: { metrics, heldoutPoints: heldout } }) => ({ id, metrics, heldout }));
    const [sole] = told;
    const only = sole === undefined ? undefined : summary.jobs[sole.id];
    if (!this.#isShared && sole !== undefined && only !== undefined) {
      await folder.writeReport(reportHtml({ summary: only, ...sole, ...page }));
      return;
    }
    await folder.writeSummary(summary);
    await folder.writeReport(scenarioReportHtml({ summary, jobs: told, ...page }));
  }

  #outcome(job: JobRun, endMs: number): JobOutcome {
    const { id, arrivedMs, finishedMs } = job;
    // An only job is the run, devices opened and files fetched.
    const span = this.#isShared
      ? { arrivedMs, finishedMs: finishedMs ?? endMs }
      : { arrivedMs: this.parts.records.all.startMs, finishedMs: endMs };
    return {
      id,
      ...span,
      summary: job.summary(span),
      stalenessTokens: job.log.stalenessTokens,
      tokenLatencyMs: job.tokenLatencyMs,
    };
  }
}

/** Resolves when the job is to arrive, counted from now. @throws when the run ends before. */
async function arrival({ arrivesS }: ScenarioJob, lifeline: Lifeline): Promise<void> {
  const waiting = new AbortController();
  lifeline.onEnd(() => waiting.abort());
  const { signal } = waiting;
  const atMs = nowMs() + arrivesS * 1000;
  for (let leftMs = arrivesS * 1000; leftMs > 0; leftMs = atMs - nowMs())
    await sleep(Math.min(WAIT_MS_MAX, leftMs), undefined, { signal });
}

/** The progress of a run, from one job's mouth: its phases are no phases of the run. */
function named(progress: Progress, id: string): Pick<Progress, 'phase' | 'step' | 'note'> {
  return {
    phase: (text) => progress.note(`${id}: ${text}`),
    step: (record) => progress.step({ ...record, job: id }),
    note: (text) => progress.note(`${id}: ${text}`),
  };
}
