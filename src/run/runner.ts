import { join } from 'node:path';
import { pino, type Logger } from 'pino';
import { nowMs } from '../lib/clock.js';
import { errorText, UserError } from '../lib/errors.js';
import { loadCheckpoint, loadWeights, saveCheckpoint } from '../model/checkpoint.js';
import type { ModelConfig } from '../model/config.js';
import type { Tokenizer } from '../model/tokenizer.js';
import { openEnvironment, type OpenedEnvironment } from '../tasks/registry.js';
import { RewardPool } from '../tasks/reward-pool.js';
import type { MetricsRecord } from '../telemetry/metrics.js';
import { createProgress, type Progress } from '../telemetry/progress.js';
import { mean, quantiles } from '../telemetry/quantiles.js';
import { timeToYieldMs } from '../telemetry/records.js';
import { type HeldoutPoint, reportHtml } from '../telemetry/report.js';
import { RunFolder } from '../telemetry/run-folder.js';
import { RunRecords } from '../telemetry/run-records.js';
import { runTrace } from '../telemetry/run-trace.js';
import type { Summary } from '../telemetry/summary.js';
import { Conductor } from './conductor.js';
import { formatConfig, type RunConfig } from './config.js';
import { engineOptions } from './engine-sizing.js';
import { heldoutTasks } from './evaluation.js';
import { Fleet } from './fleet.js';
import { GrpoJob, type StepReport } from './grpo-job.js';
import { TokenLedger } from './ledger.js';
import { rolloutRecord } from './rollout-record.js';
import { type Rollout, RolloutPool } from './rollouts.js';
import { stepMetrics } from './step-metrics.js';
import { WeightsAccount } from './weights-account.js';

export interface RunOptions {
  readonly outFolder: string;
  /** Aborted when the user wants the run to end: it ends cleanly, with every file written. */
  readonly interrupted: AbortSignal;
}

const JOB = 'main';
const PROMPTS_PROBED = 512;

/** The run was asked to end before its last step. */
class Interrupted extends Error {
  override readonly name = 'Interrupted';
}

/**
 * Runs one job from its config to its run folder.
 *
 * @throws UserError for whatever the config, model, task, adapter or folder gets wrong, before anything starts.
 */
export async function runJob(config: RunConfig, options: RunOptions): Promise<Summary> {
  const { tokenizer, config: model } = await loadCheckpoint(config.model.path);
  const opened = await openEnvironment(config.task.name, config.task.options, process.cwd());
  checkTask(opened, config);
  const folder = await RunFolder.create(options.outFolder, (text) => process.stderr.write(`${text}\n`));
  const logger = pino({ base: null }, pino.destination({ dest: folder.logPath, sync: true }));
  const progress = createProgress(process.stderr);
  try {
    await folder.writeConfig(formatConfig(config));
    return await new Run({ config, model, tokenizer, opened, folder, logger, progress }, options).go();
  } catch (error) {
    await progress.close('failed');
    logger.error(errorText(error));
    throw error;
  } finally {
    await folder.close();
  }
}

function checkTask({ environment }: OpenedEnvironment, config: RunConfig): void {
  const wanted = config.evaluation.heldoutPrompts;
  const found = heldoutTasks(environment, config.seed, wanted).length;
  if (found === wanted) return;
  throw new UserError(
    `evaluation.heldout_prompts is ${wanted}, the task "${environment.id}" has ${found} held-out tasks with these options: lower it or widen the task`,
  );
}

interface RunParts {
  readonly config: RunConfig;
  readonly model: ModelConfig;
  readonly tokenizer: Tokenizer;
  readonly opened: OpenedEnvironment;
  readonly folder: RunFolder;
  readonly logger: Logger;
  readonly progress: Progress;
}

/** Everything that lives as long as one run: it wires the parts, watches them, and closes them. */
class Run {
  readonly #startedAt = new Date();
  readonly #records = new RunRecords({ startMs: nowMs() });
  readonly #ledger = new TokenLedger();
  readonly #metrics: MetricsRecord[] = [];
  readonly #heldout: HeldoutPoint[] = [];
  readonly #stepRewards: number[] = [];
  readonly #rewards: RewardPool;
  readonly #ended: Promise<never>;
  #end: (error: Error) => void = () => undefined;
  #seen = { decoded: 0, preemptions: 0, failed: 0, rewardMs: 0 };

  constructor(
    private readonly parts: RunParts,
    private readonly options: RunOptions,
  ) {
    const { reward } = parts.config;
    this.#rewards = new RewardPool({
      environment: parts.opened.ref,
      workersMax: reward.workers,
      timeoutMs: reward.timeoutMs,
      queueMax: 65_536,
    });
    this.#ended = new Promise((_, reject) => {
      this.#end = reject;
    });
    this.#ended.catch(() => undefined);
    options.interrupted.addEventListener('abort', () => this.#end(new Interrupted('interrupted')), { once: true });
  }

  async go(): Promise<Summary> {
    const { progress } = this.parts;
    progress.phase('opening devices');
    try {
      const fleet = await this.#openFleet();
      try {
        return await this.#train(fleet);
      } finally {
        await fleet.close();
      }
    } finally {
      await this.#rewards.close();
    }
  }

  readonly #alive = <T>(work: Promise<T>): Promise<T> => Promise.race([work, this.#ended]);

  async #train(fleet: Fleet): Promise<Summary> {
    const { config, model, tokenizer, opened, progress } = this.parts;
    const weights = await loadWeights(config.model.path, model, fleet.layout);
    const account = new WeightsAccount(fleet.weightBytes, fleet.lanes.length);
    const { pool, conductor } = this.#wire(fleet, account);
    const job = new GrpoJob({
      config,
      tokenizer,
      environment: opened.environment,
      stopTokenIds: [...model.eosTokenIds, ...config.rollout.stopTokenIds],
      fleet,
      conductor,
      pool,
      ledger: this.#ledger,
      onPhase: (text) => progress.phase(text),
      onStep: (report) => this.#onStep(report, pool, conductor, account),
      onHeldout: (step, reward) => {
        if (reward !== null) this.#heldout.push({ step, score: reward });
      },
      alive: this.#alive,
    });
    let failure: unknown = null;
    try {
      if (this.options.interrupted.aborted) throw new Interrupted('interrupted');
      await job.run(weights);
      if (config.output.checkpoint) await this.#saveModel(fleet);
    } catch (error) {
      failure = error;
    }
    conductor.close();
    if (failure !== null && !(failure instanceof Interrupted)) {
      progress.note(`the run failed after ${job.stepsDone} steps; its files hold what there was`);
    } else if (failure !== null) {
      progress.note(`interrupted after ${job.stepsDone} steps`);
    }
    const summary = await this.#writeFiles(fleet, job, pool, account);
    await progress.close(failure === null || failure instanceof Interrupted ? 'done' : 'failed');
    if (failure !== null && !(failure instanceof Interrupted)) throw failure;
    return summary;
  }

  #wire(fleet: Fleet, account: WeightsAccount): { pool: RolloutPool; conductor: Conductor } {
    const { config, logger } = this.parts;
    const pool: RolloutPool = new RolloutPool(config.engine.slots, {
      send: (lane, sequences) => {
        fleet.add(lane, sequences).catch((error: unknown) => this.#end(toError(error)));
      },
      score: (rollout) => this.#score(rollout),
      changed: () => conductor.update(),
    });
    const lanes = fleet.lanes.map(({ lane }) => lane);
    const job = {
      id: JOB,
      trainerLane: 0,
      engineLanes: lanes,
      slotsMax: config.engine.slots,
      engineBytes: 2 * fleet.weightBytes,
      trainerBytes: 4 * fleet.weightBytes,
      version: 0,
    };
    const conductor: Conductor = new Conductor(config.scheduler.policy, job, {
      fleet,
      pool,
      records: this.#records,
      weights: account,
      onViolation: (text) => logger.warn(text),
      onFailed: (error) => this.#end(error),
    });
    this.#onTokens = (lane, update) => pool.receive(lane, update);
    return { pool, conductor };
  }

  #onTokens: (lane: number, update: Parameters<RolloutPool['receive']>[1]) => void = () => undefined;

  async #openFleet(): Promise<Fleet> {
    const { config, model, tokenizer, opened } = this.parts;
    const { lanes, engine, rollout } = config;
    const options = engineOptions(model, {
      ...engine,
      promptTokensMax: longestPrompt(opened, tokenizer, config.seed),
      completionTokensMax: rollout.maxTokens,
    });
    return Fleet.open(
      {
        job: JOB,
        lanes: lanes.count,
        adapter: lanes.adapter === '' ? null : lanes.adapter,
        budgets: { sliceUs: lanes.sliceBudgetUs, inFlightUs: lanes.inFlightBudgetUs },
        config: model,
        engine: options,
      },
      this.#records,
      {
        onTokens: (lane, update) => this.#onTokens(lane, update),
        onBroken: (lane, error) => {
          this.parts.logger.error(`lane ${lane}: ${error.message}`);
          this.#end(error);
        },
      },
    );
  }

  async #score(rollout: Rollout): ReturnType<RewardPool['score']> {
    const startedMs = nowMs();
    const { task, promptTokenIds } = rollout.group;
    const result = await this.#rewards.score({
      rolloutId: String(rollout.id),
      task,
      text: this.parts.tokenizer.decode(rollout.generated.tokenIds, promptTokenIds),
      finishReason: rollout.finishReason ?? 'abort',
    });
    const finishedMs = nowMs();
    this.#seen.rewardMs += finishedMs - startedMs;
    const failure = result.failed ? `${result.reason}: ${result.message}` : null;
    if (failure !== null) this.parts.logger.warn({ rollout: rollout.id }, `reward failed: ${failure}`);
    this.#records.rewards.push({ job: JOB, rollout: String(rollout.id), startedMs, finishedMs, failure });
    return result;
  }

  #onStep(report: StepReport, pool: RolloutPool, conductor: Conductor, account: WeightsAccount): void {
    const { folder, progress, tokenizer, config } = this.parts;
    const preemptions = this.#records.preemptions.items.slice(this.#seen.preemptions);
    const record = stepMetrics(report, {
      timeS: (nowMs() - this.#records.startMs) / 1000,
      decoded: pool.decoded,
      decodedInStep: pool.decoded - this.#seen.decoded,
      trained: this.#ledger.trained,
      version: conductor.version,
      bytesSent: account.bytesSent,
      rewardsFailed: pool.failed - this.#seen.failed,
      rewardSeconds: this.#seen.rewardMs / 1000,
      cycles: conductor.cycles,
      preemptions,
    });
    this.#seen = {
      decoded: pool.decoded,
      preemptions: this.#records.preemptions.items.length,
      failed: pool.failed,
      rewardMs: 0,
    };
    this.#metrics.push(record);
    folder.appendMetrics(record);
    const trained = new Set(report.batch.rollouts);
    for (const rollout of report.groups.flatMap((group) => group.rollouts)) {
      folder.appendRollout(rolloutRecord(rollout, tokenizer, trained.has(rollout)));
    }
    const reward = record['rollout/score/mean'] ?? null;
    if (reward !== null) this.#stepRewards.push(reward);
    progress.step({
      step: report.step,
      steps: config.steps,
      reward,
      tokensPerSecond: record['tokens/per_second'] ?? 0,
      loss: report.result?.loss ?? null,
      kl: config.algorithm.klCoefficient > 0 ? (report.result?.kl ?? null) : null,
      entropy: report.result?.entropy ?? null,
      timeToYieldMs: preemptions.length === 0 ? null : Math.max(...preemptions.map(timeToYieldMs)),
      version: conductor.version,
    });
  }

  async #saveModel(fleet: Fleet): Promise<void> {
    const { config, model, folder } = this.parts;
    const { weights } = await this.#alive(fleet.trainer.request({ kind: 'exportWeights' }));
    await saveCheckpoint(join(folder.path, 'model'), model, fleet.layout, weights, config.model.path);
  }

  async #writeFiles(fleet: Fleet, job: GrpoJob, pool: RolloutPool, account: WeightsAccount): Promise<Summary> {
    const { config, folder, progress, logger } = this.parts;
    progress.phase('writing the report');
    // A broken lane has nothing more to tell; what it told before is there.
    await fleet.flush().catch((error: unknown) => logger.warn(`flush: ${errorText(error)}`));
    const endMs = nowMs();
    const summary = this.#summary(fleet, job, pool, account, endMs);
    await folder.writeSummary(summary);
    await folder.writeTrace(runTrace(this.#records, { endMs }).chunks());
    await folder.writeReport(
      reportHtml({
        summary,
        metrics: this.#metrics,
        heldout: this.#heldout,
        records: this.#records,
        endMs,
        startedAt: this.#startedAt,
        config: formatConfig(config),
      }),
    );
    return summary;
  }

  #summary(fleet: Fleet, job: GrpoJob, pool: RolloutPool, account: WeightsAccount, endMs: number): Summary {
    const { config } = this.parts;
    const { vendor, architecture, description, software } = fleet.trainer.adapter;
    const seconds = (endMs - this.#records.startMs) / 1000;
    const preemptions = this.#records.preemptions.items;
    const heldoutAt = (step: number): number | null => this.#heldout.find((point) => point.step === step)?.score ?? null;
    return {
      adapter: { vendor, architecture, description, software },
      model: config.model.path.split('/').at(-1) ?? config.model.path,
      seed: config.seed,
      steps: job.stepsDone,
      reward: {
        first5: mean(this.#stepRewards.slice(0, 5)),
        last5: mean(this.#stepRewards.slice(-5)),
        heldout_before: heldoutAt(0),
        heldout_after: heldoutAt(config.steps),
      },
      tokens: this.#ledger.counts(pool.decoded),
      tokens_per_second: pool.decoded / seconds,
      preemption: {
        count: preemptions.length + this.#records.preemptions.dropped,
        time_to_yield_ms: quantiles(this.#records.timesToYieldMs()),
        resume_ms: quantiles(this.#records.resumesMs()),
        tokens_recomputed: preemptions.reduce((sum, { tokensRecomputed }) => sum + tokensRecomputed, 0),
        slice_budget_us: config.lanes.sliceBudgetUs,
        in_flight_budget_us: config.lanes.inFlightBudgetUs,
        largest_dispatch_us: fleet.largestDispatchUs,
      },
      weights: account.summary,
      wall_seconds: seconds,
    };
  }
}

/** Longest prompt among a sample of both splits, in tokens; tasks of one environment are alike in length. */
function longestPrompt({ environment }: OpenedEnvironment, tokenizer: Tokenizer, seed: number): number {
  let longest = 1;
  for (const split of ['train', 'heldout'] as const) {
    let left = PROMPTS_PROBED;
    for (const task of environment.tasks({ split, seed })) {
      longest = Math.max(longest, tokenizer.encode(task.prompt).length);
      if (--left === 0) break;
    }
  }
  return longest;
}

function toError(error: unknown): Error {
  return error instanceof Error ? error : new Error(errorText(error));
}
