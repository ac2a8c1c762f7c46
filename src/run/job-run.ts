import { join } from 'node:path';
import type { Logger } from 'pino';
import { nowMs } from '../lib/clock.js';
import { errorText, toError } from '../lib/errors.js';
import { BLOCK_TOKENS } from '../kernels/kv-cache.js';
import { saveCheckpoint } from '../model/checkpoint.js';
import type { Buckets } from '../model/layout.js';
import type { JobSpec } from '../scheduler/state.js';
import type { EnvironmentPool } from '../tasks/environment-pool.js';
import { rewardFailure, type RewardResult } from '../tasks/reward-result.js';
import type { JobFolder } from '../telemetry/job-folder.js';
import type { Progress } from '../telemetry/progress.js';
import type { SharedRecords } from '../telemetry/shared-records.js';
import type { Summary } from '../telemetry/summary.js';
import type { TrainerOptions } from '../train/trainer.js';
import type { Conductor } from './conductor.js';
import { DurableCritic } from './durable-critic.js';
import { DurableTrainer } from './durable-trainer.js';
import { episodeEvents, openEnvironmentPool } from './episode-wiring.js';
import { judged } from './episodes.js';
import type { Fleet } from './fleet.js';
import { JobLoop } from './job-loop.js';
import { JobConductor } from './job-conductor.js';
import { JobFleet } from './job-fleet.js';
import { JobLog, type JobSources, type JobSpan } from './job-log.js';
import { TokenLedger } from './ledger.js';
import { residentBytes } from './lane-memory.js';
import { Lifeline } from './lifeline.js';
import type { Prepared } from './prepare.js';
import { type Rollout, RolloutPool } from './rollouts.js';
import type { ScenarioJob } from './scenario.js';
import { sent } from './sent.js';
import { TokenLatency } from './token-latency.js';
import { TokenPace } from './token-pace.js';
import { WeightsAccount } from './weights-account.js';

export interface JobRunParts {
  readonly job: ScenarioJob;
  readonly prepared: Prepared;
  readonly fleet: Fleet;
  readonly conductor: Conductor;
  readonly records: SharedRecords;
  readonly folder: JobFolder;
  readonly logger: Logger;
  readonly progress: Pick<Progress, 'phase' | 'step' | 'note'>;
  /** Of the whole run: when it ends, so does the job. */
  readonly lifeline: Lifeline;
}

/**
 * One job on open lanes, from its arrival on: wires its parts, watches them, and knows what came of it. It knows of no
 * other job, and what ends it ends no other.
 */
export class JobRun {
  readonly log: JobLog;
  readonly arrivedMs = nowMs();
  #isOver = false;
  #finishedMs: number | null = null;
  readonly #lifeline = new Lifeline();
  readonly #ledger = new TokenLedger();
  readonly #latency = new TokenLatency();
  readonly #rewards: EnvironmentPool;
  readonly #fleet: JobFleet;
  readonly #sources: JobSources;
  readonly #work: JobLoop;

  /** @throws Error when there is no room for what it needs; nothing of it is left then. */
  static async open(parts: JobRunParts): Promise<JobRun> {
    const rewards = openEnvironmentPool(parts.prepared);
    try {
      return new JobRun(parts, rewards);
    } catch (error) {
      parts.fleet.leave(parts.job.id);
      await rewards.close();
      throw error;
    }
  }

  private constructor(
    private readonly parts: JobRunParts,
    rewards: EnvironmentPool,
  ) {
    const { job, prepared, fleet, records, folder, logger, progress, lifeline } = parts;
    const { config, tokenizer } = prepared;
    const onStep = progress.step.bind(progress);
    const told = { job: job.id, config, tokenizer, folder, logger, onStep };
    this.log = new JobLog({ ...told, ledger: this.#ledger, records });
    this.#rewards = rewards;
    this.#fleet = new JobFleet(fleet, fleetOptions(job, prepared), records.all);
    this.#sources = this.#wire();
    this.#work = new JobLoop({
      prepared,
      ...this.#sources,
      ledger: this.#ledger,
      onPhase: (text) => progress.phase(text),
      onStep: (report) => this.log.step(report, this.#sources),
      onHeldout: (step, reward) => this.log.heldout(step, reward),
      alive: (work) => this.#lifeline.alive(work),
    });
    lifeline.onEnd(() => this.#lifeline.end(lifeline.reason ?? new Error('the run is over')));
  }

  get id(): string {
    return this.parts.job.id;
  }

  get stepsDone(): number {
    return this.#work.stepsDone;
  }

  /** The optimizer step that is being taken; 0 when none is. */
  get stepUnderWay(): number {
    return this.#sources.trainer.stepUnderWay;
  }

  get trainerLane(): number {
    return this.#fleet.trainerLane;
  }

  /** Between two tokens of a sequence, training and waits included. */
  get tokenLatencyMs(): TokenLatency['quantiles'] {
    return this.#latency.quantiles;
  }

  /** It wants nothing more of its lanes. */
  get isOver(): boolean {
    return this.#isOver;
  }

  /** Null while it goes on. */
  get finishedMs(): number | null {
    return this.#finishedMs;
  }

  /**
   * Trains to the last step. Never rejects: resolves with what ended it before, or null.
   *
   * @param onTrained called when it wants nothing more of its lanes but its weights
   */
  async train(weights: Buckets, onTrained: () => void): Promise<Error | null> {
    const { conductor, logger, progress } = this.parts;
    conductor.add(this.#sources.conductor);
    let failure = await outcome(this.#work.run(weights));
    // What the end of the job makes fail is not why it ended.
    failure = this.#lifeline.reason ?? failure;
    this.#lifeline.end(failure ?? new Error('the job is over'));
    this.#isOver = true;
    onTrained();
    this.#sources.conductor.close();
    if (this.stepsDone > 0) {
      const unsaved = await outcome(this.#saveModel());
      if (unsaved !== null) logger.error(`no checkpoint: ${unsaved.message}`);
      if (unsaved !== null && failure !== null) progress.note(`no checkpoint: ${unsaved.message}`);
      failure ??= unsaved;
    }
    this.#finishedMs = nowMs();
    conductor.finished(this.id);
    await this.#rewards.close();
    return failure;
  }

  /** Frees the trainer, for the jobs that go on. What a broken lane had is free already. */
  async leave(): Promise<void> {
    const { trainer, critic } = this.#sources;
    await outcome(trainer.remove());
    if (critic !== null) await outcome(critic.remove());
    this.#fleet.trainerLeft();
  }

  /** The run is over: what is awake has been so until now, and what no step has told of is written as it is. */
  tellRest(): void {
    this.#fleet.endAwake();
    this.log.appendRollouts(this.#work.unreported);
  }

  summary(span: JobSpan): Summary {
    return this.log.summary(this.stepsDone, this.#sources, span);
  }

  #wire(): JobSources {
    const { job, prepared, fleet, conductor: everybody, records } = this.parts;
    const { config } = prepared;
    const own = this.#fleet;
    const weights = new WeightsAccount(own.weightBytes, own.engineLanes.length);
    const trainer = this.#makeTrainer();
    const critic = this.#makeCritic(trainer);
    const pace = new TokenPace();
    const fail = (error: Error): void => this.#lifeline.end(error);
    const pool: RolloutPool = new RolloutPool({
      send: (lane, sequences) => sent(own.add(lane, sequences), fail),
      abort: (lane, ids) => sent(own.abort(lane, ids), fail),
      ...episodeEvents(prepared, this.#rewards, own, fail),
      score: (rollout) => this.#score(rollout),
      changed: () => conductor.changed(),
    });
    const conductor: JobConductor = new JobConductor(jobSpec(job, prepared, own, critic), {
      scheduler: everybody.scheduler,
      fleet: own,
      pool,
      pace,
      trainer,
      records: records.all,
      weights,
      hints: config.lanes.hints,
      onFailed: fail,
    });
    own.listener = {
      onTokens: (lane, update, stepMs) => {
        pace.hear(lane, update, stepMs);
        this.#latency.hear(update);
        pool.receive(lane, update);
        conductor.heard(lane);
      },
      furnish: async (lane) => {
        await trainer.furnish(lane);
        await critic?.furnish(lane);
      },
    };
    return { fleet, pool, conductor, trainer, critic, weights, cycles: () => everybody.cycles };
  }

  #makeTrainer(): DurableTrainer {
    const { prepared } = this.parts;
    const { config, model, layout } = prepared;
    return new DurableTrainer({
      fleet: this.#fleet,
      shape: { config: model, layout, options: learnerOptions(prepared) },
      hasReference: config.algorithm.klCoefficient > 0,
      recover: config.lanes.recover,
    });
  }

  #makeCritic({ steps }: DurableTrainer): DurableCritic | null {
    const { prepared } = this.parts;
    const { config, model, criticLayout: layout } = prepared;
    if (layout === null) return null;
    const shape = { config: model, layout, options: learnerOptions(prepared) };
    return new DurableCritic({ fleet: this.#fleet, shape, recover: config.lanes.recover, steps });
  }

  /** Never rejects: a rollout that cannot even be read is a marked failure, and ends the job. */
  async #score(rollout: Rollout): Promise<RewardResult> {
    const { opened, tokenizer } = this.parts.prepared;
    const startedMs = nowMs();
    try {
      const episode = judged(rollout, opened.environment, tokenizer);
      const result =
        'failed' in episode
          ? episode
          : await this.#rewards.score({ rolloutId: String(rollout.id), ...episode });
      // Those that the closing pool fails are no news.
      if (this.#lifeline.reason === null) this.log.scored(rollout, result, startedMs);
      return result;
    } catch (error) {
      this.#lifeline.end(toError(error));
      return rewardFailure('threw', errorText(error));
    }
  }

  async #saveModel(): Promise<void> {
    const { prepared, folder } = this.parts;
    const { config, model, layout } = prepared;
    if (!config.output.checkpoint) return;
    const weights = await this.#sources.trainer.weights();
    await saveCheckpoint(join(folder.path, 'model'), model, layout, weights, config.model.path);
  }
}

function fleetOptions(
  { id, weight, trainerLane, lanes }: ScenarioJob,
  { model, layout, engine }: Prepared,
): ConstructorParameters<typeof JobFleet>[1] {
  return { job: id, weight, trainerLane, engineLanes: lanes, config: model, layout, engine };
}

function jobSpec(
  { id, weight, tokenLatencyMs }: ScenarioJob,
  prepared: Prepared,
  { trainerLane, engineLanes }: JobFleet,
  critic: DurableCritic | null,
): JobSpec {
  const { config } = prepared;
  const { kvBlocks, contextTokensMax } = prepared.engine;
  const { promptsPerStep: prompts, samplesPerPrompt: samples } = config.rollout;
  const bytes = residentBytes(prepared);
  return {
    id,
    trainerLane,
    engineLanes,
    slotsMax: config.engine.slots,
    engineBytes: bytes.engine,
    trainerBytes: bytes.trainer + (critic?.bytes ?? 0),
    version: 0,
    weight,
    stepRollouts: prompts * samples,
    // A rollout of several turns cannot be ended early: its rounds are plain.
    ...(prepared.turns === null ? { step: { prompts, samples } } : {}),
    tokenLatencyMs,
    kv: { tokens: kvBlocks * BLOCK_TOKENS, sequenceTokensMax: contextTokensMax },
  };
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
