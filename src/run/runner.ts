import { join } from 'node:path';
import { pino, type Logger } from 'pino';
import { nowMs } from '../lib/clock.js';
import { errorText, UserError, toError } from '../lib/errors.js';
import { saveCheckpoint } from '../model/checkpoint.js';
import type { Buckets } from '../model/layout.js';
import type { LaneFault } from '../lanes/faults.js';
import { LaneLost } from '../lanes/remote-lane.js';
import type { LaneSettings } from '../lanes/settings.js';
import { RewardPool } from '../tasks/reward-pool.js';
import { rewardFailure, type RewardResult } from '../tasks/reward-result.js';
import { createProgress, type Progress } from '../telemetry/progress.js';
import { RunFolder } from '../telemetry/run-folder.js';
import { RunRecords } from '../telemetry/run-records.js';
import type { Summary } from '../telemetry/summary.js';
import { policyNamed } from '../scheduler/policies/index.js';
import type { TrainerOptions } from '../train/trainer.js';
import { Conductor, type NamedPolicy } from './conductor.js';
import { formatConfig, type RunConfig } from './config.js';
import { DurableCritic } from './durable-critic.js';
import { DurableTrainer } from './durable-trainer.js';
import { Fleet, TRAINER_LANE } from './fleet.js';
import { GrpoJob } from './grpo-job.js';
import { Inbox } from './inbox.js';
import { LaneNews } from './lane-news.js';
import { TokenLedger } from './ledger.js';
import { Interrupted, Lifeline } from './lifeline.js';
import { type Prepared, prepareRun } from './prepare.js';
import { type Rollout, RolloutPool } from './rollouts.js';
import { RunLog, type RunSources } from './run-log.js';
import { WeightsAccount } from './weights-account.js';

export interface RunOptions {
  readonly outFolder: string;
  /** Aborted when the user wants the run to end: it ends cleanly, with every file written. */
  readonly interrupted: AbortSignal;
  /** In place of the one that the config names, which then is only told of. */
  readonly policy?: NamedPolicy;
  /** What `config.toml` of the run folder holds; the config by default. */
  readonly configText?: string;
  /** What is to go wrong in the lane of that number, and how often it was replaced before: for tests. */
  readonly faults?: (lane: number, epoch: number) => readonly LaneFault[];
}

const JOB = 'main';
const REWARDS_QUEUED_MAX = 65_536;

/**
 * Runs one job from its config to its run folder. The folder is made last, once model, task and adapter have been
 * found good: a run that cannot begin leaves nothing behind.
 *
 * @throws UserError for whatever the config, model, task, adapter or folder gets wrong, before anything starts.
 */
export async function runJob(config: RunConfig, options: RunOptions): Promise<Summary> {
  const { outFolder, interrupted, faults = () => [] } = options;
  const { policy = policyOf(config), configText = formatConfig(config) } = options;
  const { weights, ...prepared } = await prepareRun(config);
  const progress = createProgress(process.stderr);
  const lifeline = new Lifeline();
  const interrupt = (): void => {
    progress.note('interrupted: finishing what holds the device; once more ends at once');
    lifeline.end(new Interrupted());
  };
  interrupted.addEventListener('abort', interrupt, { once: true });
  try {
    progress.phase('opening devices');
    const records = new RunRecords({ startMs: nowMs() });
    const inbox = new Inbox((_, error) => lifeline.end(error));
    const fleet = await openFleet(prepared, records, inbox, faults);
    try {
      if (interrupted.aborted)
        throw new UserError('interrupted before the run began: no run folder was made');
      const folder = await RunFolder.create(outFolder, (text) => progress.note(text));
      try {
        const log = openLog(folder);
        const shared = { prepared, fleet, records, inbox, folder, logger: log.logger, progress, lifeline };
        const parts = { ...shared, policy, configText };
        try {
          return await new Run(parts).go(weights);
        } finally {
          log.close();
        }
      } finally {
        await folder.close();
      }
    } finally {
      await fleet.close();
    }
  } catch (error) {
    await progress.close('failed');
    throw error;
  } finally {
    interrupted.removeEventListener('abort', interrupt);
  }
}

function policyOf({ scheduler: { policy: name } }: RunConfig): NamedPolicy {
  return { name, plan: policyNamed(name) };
}

function openFleet(
  { config, model, layout, engine }: Prepared,
  records: RunRecords,
  inbox: Inbox,
  faults: NonNullable<RunOptions['faults']>,
): Promise<Fleet> {
  const { lanes, optimizer } = config;
  return Fleet.open(
    {
      job: JOB,
      lanes: lanes.count,
      adapter: lanes.adapter === '' ? null : lanes.adapter,
      settings: settingsOf(lanes),
      config: model,
      layout,
      engine,
      trainerRows: optimizer.microBatchTokens,
      rebuildsMax: lanes.rebuildsMax,
      recover: lanes.recover,
      faults,
    },
    records,
    inbox,
  );
}

function settingsOf(lanes: RunConfig['lanes']): LaneSettings {
  const { sliceBudgetUs, inFlightBudgetUs, kvOnPreempt, kvBlocksWhileTraining, generationFloor } = lanes;
  return {
    budgets: { sliceUs: sliceBudgetUs, inFlightUs: inFlightBudgetUs },
    kvOnPreempt:
      kvOnPreempt === 'pressure'
        ? { kind: kvOnPreempt, blocksMax: kvBlocksWhileTraining }
        : { kind: kvOnPreempt },
    generationFloor,
  };
}

function openLog(folder: RunFolder): { logger: Logger; close: () => void } {
  const destination = pino.destination({ dest: folder.logPath, sync: true });
  // A full disk costs log lines, not the run.
  destination.on('error', () => undefined);
  return { logger: pino({ base: null }, destination), close: () => destination.end() };
}

interface RunParts {
  readonly prepared: Prepared;
  readonly fleet: Fleet;
  readonly records: RunRecords;
  readonly inbox: Inbox;
  readonly folder: RunFolder;
  readonly logger: Logger;
  readonly progress: Progress;
  readonly lifeline: Lifeline;
  readonly policy: NamedPolicy;
  readonly configText: string;
}

/** One run on open lanes: it wires the parts, watches them, and writes down what came of it. */
class Run {
  readonly #ledger = new TokenLedger();
  readonly #log: RunLog;
  readonly #rewards: RewardPool;

  constructor(private readonly parts: RunParts) {
    const { config, opened, tokenizer } = parts.prepared;
    this.#log = new RunLog({ ...parts, config, tokenizer, ledger: this.#ledger, job: JOB });
    this.#rewards = new RewardPool({
      environment: opened.ref,
      workersMax: config.reward.workers,
      timeoutMs: config.reward.timeoutMs,
      queueMax: REWARDS_QUEUED_MAX,
    });
  }

  async go(weights: Buckets): Promise<Summary> {
    try {
      await this.parts.folder.writeConfig(this.parts.configText);
      return await this.#train(weights);
    } catch (error) {
      this.parts.logger.error(errorText(error));
      throw error;
    } finally {
      await this.#rewards.close();
    }
  }

  async #train(weights: Buckets): Promise<Summary> {
    const { fleet, progress, logger, lifeline } = this.parts;
    const sources = this.#wire();
    const job = this.#makeJob(sources);
    let failure = await outcome(job.run(weights));
    fleet.retire();
    // What the end of the run makes fail is not why it ended.
    failure = lifeline.reason ?? failure;
    lifeline.end(failure ?? new Error('the run is over'));
    if (failure !== null)
      progress.note(`${failure.message} after ${job.stepsDone} steps; the files hold what there was`);
    if (job.stepsDone > 0) {
      const unsaved = await outcome(this.#saveModel(sources.trainer));
      if (unsaved !== null) logger.error(`no checkpoint: ${unsaved.message}`);
      failure ??= unsaved;
    }
    progress.phase('writing the report');
    await fleet.flush((lane, error) => logger.warn(`lane ${lane} told no more: ${error.message}`));
    const summary = await this.#log.write(job.stepsDone, job.unreported, sources);
    if (failure !== null && !(failure instanceof Interrupted)) throw failure;
    await progress.close();
    return summary;
  }

  #makeJob(sources: RunSources): GrpoJob {
    const { prepared, progress, lifeline } = this.parts;
    return new GrpoJob({
      prepared,
      ...sources,
      ledger: this.#ledger,
      onPhase: (text) => progress.phase(text),
      onStep: (report) => this.#log.step(report, sources),
      onHeldout: (step, reward) => this.#log.heldout(step, reward),
      alive: (work) => lifeline.alive(work),
    });
  }

  #wire(): RunSources {
    const { prepared, fleet, records, inbox, logger, progress, lifeline } = this.parts;
    const { config } = prepared;
    const weights = new WeightsAccount(fleet.weightBytes, fleet.numbers.length);
    const trainer = this.#makeTrainer();
    const critic = this.#makeCritic(trainer);
    const pool: RolloutPool = new RolloutPool({
      send: (lane, sequences) => {
        // What a lane is sent that is lost comes back with the rest of what it had.
        fleet.add(lane, sequences).catch((error: unknown) => {
          if (!(error instanceof LaneLost)) lifeline.end(toError(error));
        });
      },
      score: (rollout) => this.#score(rollout),
      changed: () => conductor.update(),
    });
    const job = {
      id: JOB,
      trainerLane: TRAINER_LANE,
      engineLanes: fleet.numbers,
      slotsMax: config.engine.slots,
      engineBytes: 2 * fleet.weightBytes,
      trainerBytes: 4 * fleet.weightBytes + (critic?.bytes ?? 0),
      version: 0,
      weight: 1,
      stepRollouts: config.rollout.promptsPerStep * config.rollout.samplesPerPrompt,
      tokenLatencyMs: null,
    };
    const conductor: Conductor = new Conductor(this.parts.policy, job, {
      fleet,
      pool,
      trainer,
      records,
      weights,
      hints: config.lanes.hints,
      onViolation: (text) => logger.warn(text),
      onFailed: (error) => lifeline.end(error),
    });
    lifeline.onEnd(() => conductor.close());
    const news = new LaneNews({ conductor, trainer, logger, progress });
    inbox.listener = {
      onTokens: (lane, update) => pool.receive(lane, update),
      onLost: (lane, error) => news.lost(lane, error),
      furnish: async (lane) => {
        await trainer.furnish(lane);
        await critic?.furnish(lane);
      },
      onRebuilt: (lane, seconds) => news.rebuilt(lane, seconds),
    };
    return { fleet, pool, conductor, trainer, critic, weights };
  }

  #makeTrainer(): DurableTrainer {
    const { prepared, fleet } = this.parts;
    const { config, model } = prepared;
    return new DurableTrainer({
      fleet,
      shape: { config: model, layout: fleet.layout, options: learnerOptions(prepared) },
      hasReference: config.algorithm.klCoefficient > 0,
      recover: config.lanes.recover,
    });
  }

  #makeCritic({ steps }: DurableTrainer): DurableCritic | null {
    const { prepared, fleet } = this.parts;
    const { config, model, criticLayout: layout } = prepared;
    if (layout === null) return null;
    const shape = { config: model, layout, options: learnerOptions(prepared) };
    return new DurableCritic({ fleet, shape, recover: config.lanes.recover, steps });
  }

  /** Never rejects: a rollout that cannot even be read is a marked failure, and ends the run. */
  async #score(rollout: Rollout): Promise<RewardResult> {
    const { prepared, lifeline } = this.parts;
    const { task, promptTokenIds } = rollout.group;
    const startedMs = nowMs();
    try {
      const result = await this.#rewards.score({
        rolloutId: String(rollout.id),
        task,
        text: prepared.tokenizer.decode(rollout.generated.tokenIds, promptTokenIds),
        finishReason: rollout.finishReason ?? 'abort',
      });
      // Those that the closing pool fails are no news.
      if (lifeline.reason === null) this.#log.scored(rollout, result, startedMs);
      return result;
    } catch (error) {
      lifeline.end(toError(error));
      return rewardFailure('threw', errorText(error));
    }
  }

  async #saveModel(trainer: DurableTrainer): Promise<void> {
    const { prepared, fleet, folder } = this.parts;
    const { config, model } = prepared;
    if (!config.output.checkpoint) return;
    const path = join(folder.path, 'model');
    await saveCheckpoint(path, model, fleet.layout, await trainer.weights(), config.model.path);
  }
}

function learnerOptions({ config, engine: { contextTokensMax } }: Prepared): TrainerOptions {
  const { beta1, beta2, epsilon, weightDecay, gradNormMax, microBatchTokens } = config.optimizer;
  const adamw = { beta1, beta2, epsilon, weightDecay, gradNormMax };
  return { rowsMax: microBatchTokens, contextTokensMax, adamw };
}

/** The error that ended the work, or null when it came to its end. */
async function outcome(work: Promise<void>): Promise<Error | null> {
  try {
    await work;
    return null;
  } catch (error) {
    return toError(error);
  }
}
