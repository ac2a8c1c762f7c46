import { join } from 'node:path';
import { pino, type Logger } from 'pino';
import { nowMs } from '../lib/clock.js';
import { errorText, UserError } from '../lib/errors.js';
import { loadCheckpoint, loadWeights, saveCheckpoint } from '../model/checkpoint.js';
import type { ModelConfig } from '../model/config.js';
import type { Tokenizer } from '../model/tokenizer.js';
import { openEnvironment, type OpenedEnvironment } from '../tasks/registry.js';
import { RewardPool } from '../tasks/reward-pool.js';
import type { RewardResult } from '../tasks/reward-result.js';
import { createProgress, type Progress } from '../telemetry/progress.js';
import { RunFolder } from '../telemetry/run-folder.js';
import type { Summary } from '../telemetry/summary.js';
import { Conductor } from './conductor.js';
import { formatConfig, type RunConfig } from './config.js';
import { engineOptions } from './engine-sizing.js';
import { heldoutTasks } from './evaluation.js';
import { Fleet } from './fleet.js';
import { GrpoJob } from './grpo-job.js';
import { TokenLedger } from './ledger.js';
import { type Rollout, RolloutPool } from './rollouts.js';
import { RunLog, type RunSources } from './run-log.js';
import { WeightsAccount } from './weights-account.js';

export interface RunOptions {
  readonly outFolder: string;
  /** Aborted when the user wants the run to end: it ends cleanly, with every file written. */
  readonly interrupted: AbortSignal;
}

const JOB = 'main';
const PROMPTS_PROBED = 512;
const REWARDS_QUEUED_MAX = 65_536;

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
  readonly #ledger = new TokenLedger();
  readonly #log: RunLog;
  readonly #rewards: RewardPool;
  readonly #ended: Promise<never>;
  #end: (error: Error) => void = () => undefined;
  #onTokens: (lane: number, update: Parameters<RolloutPool['receive']>[1]) => void = () => undefined;

  constructor(
    private readonly parts: RunParts,
    { interrupted }: RunOptions,
  ) {
    const { reward } = parts.config;
    this.#log = new RunLog({ ...parts, ledger: this.#ledger, job: JOB });
    this.#rewards = new RewardPool({
      environment: parts.opened.ref,
      workersMax: reward.workers,
      timeoutMs: reward.timeoutMs,
      queueMax: REWARDS_QUEUED_MAX,
    });
    this.#ended = new Promise((_, reject) => {
      this.#end = reject;
    });
    this.#ended.catch(() => undefined);
    const interrupt = (): void => this.#end(new Interrupted('interrupted'));
    interrupted.addEventListener('abort', interrupt, { once: true });
    if (interrupted.aborted) interrupt();
  }

  async go(): Promise<Summary> {
    this.parts.progress.phase('opening devices');
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

  /** Settles as `work` does, or rejects when the run is to end. */
  readonly #alive = <T>(work: Promise<T>): Promise<T> => Promise.race([work, this.#ended]);

  async #train(fleet: Fleet): Promise<Summary> {
    const { config, model, tokenizer, opened, progress } = this.parts;
    const weights = await loadWeights(config.model.path, model, fleet.layout);
    const sources = this.#wire(fleet);
    const job = new GrpoJob({
      config,
      tokenizer,
      environment: opened.environment,
      stopTokenIds: [...model.eosTokenIds, ...config.rollout.stopTokenIds],
      ...sources,
      ledger: this.#ledger,
      onPhase: (text) => progress.phase(text),
      onStep: (report) => this.#log.step(report, sources),
      onHeldout: (step, reward) => this.#log.heldout(step, reward),
      alive: this.#alive,
    });
    const failure = await this.#outcome(async () => {
      await job.run(weights);
      if (config.output.checkpoint) await this.#saveModel(fleet);
    });
    sources.conductor.close();
    if (failure !== null)
      progress.note(`${failure.message} after ${job.stepsDone} steps; the files hold what there was`);
    progress.phase('writing the report');
    // A broken lane has nothing more to tell; what it told before is there.
    await fleet.flush().catch((error: unknown) => this.parts.logger.warn(`flush: ${errorText(error)}`));
    const summary = await this.#log.write(job.stepsDone, sources);
    if (failure !== null && !(failure instanceof Interrupted)) throw failure;
    await progress.close();
    return summary;
  }

  /** The error that ended the work, or null when it came to its end. */
  async #outcome(work: () => Promise<void>): Promise<Error | null> {
    try {
      await work();
      return null;
    } catch (error) {
      return toError(error);
    }
  }

  #wire(fleet: Fleet): RunSources {
    const { config, logger } = this.parts;
    const weights = new WeightsAccount(fleet.weightBytes, fleet.lanes.length);
    const pool: RolloutPool = new RolloutPool(config.engine.slots, {
      send: (lane, sequences) => {
        fleet.add(lane, sequences).catch((error: unknown) => this.#end(toError(error)));
      },
      score: (rollout) => this.#score(rollout),
      changed: () => conductor.update(),
    });
    const job = {
      id: JOB,
      trainerLane: 0,
      engineLanes: fleet.lanes.map(({ lane }) => lane),
      slotsMax: config.engine.slots,
      engineBytes: 2 * fleet.weightBytes,
      trainerBytes: 4 * fleet.weightBytes,
      version: 0,
    };
    const conductor: Conductor = new Conductor(config.scheduler.policy, job, {
      fleet,
      pool,
      records: this.#log.records,
      weights,
      onViolation: (text) => logger.warn(text),
      onFailed: (error) => this.#end(error),
    });
    this.#onTokens = (lane, update) => pool.receive(lane, update);
    return { fleet, pool, conductor, weights };
  }

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
      this.#log.records,
      {
        onTokens: (lane, update) => this.#onTokens(lane, update),
        onBroken: (lane, error) => {
          this.parts.logger.error(`lane ${lane}: ${error.message}`);
          this.#end(error);
        },
      },
    );
  }

  async #score(rollout: Rollout): Promise<RewardResult> {
    const startedMs = nowMs();
    const { task, promptTokenIds } = rollout.group;
    const result = await this.#rewards.score({
      rolloutId: String(rollout.id),
      task,
      text: this.parts.tokenizer.decode(rollout.generated.tokenIds, promptTokenIds),
      finishReason: rollout.finishReason ?? 'abort',
    });
    this.#log.scored(rollout, result, startedMs);
    return result;
  }

  async #saveModel(fleet: Fleet): Promise<void> {
    const { config, model, folder } = this.parts;
    const { weights } = await this.#alive(fleet.trainer.request({ kind: 'exportWeights' }));
    await saveCheckpoint(join(folder.path, 'model'), model, fleet.layout, weights, config.model.path);
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
