import { assert } from '../lib/assert.js';
import { nowMs } from '../lib/clock.js';
import { UserError } from '../lib/errors.js';
import type { Buckets } from '../model/layout.js';
import type { RoundKind } from '../scheduler/rounds.js';
import type { TrainResult } from '../train/results.js';
import { learningRateAt } from '../train/schedule.js';
import { ActorStages } from './actor-stages.js';
import type { Algorithm, CriticReport, UpdateReport } from './algorithm.js';
import type { DurableCritic } from './durable-critic.js';
import type { DurableTrainer } from './durable-trainer.js';
import { meanReward, startEvaluation } from './evaluation.js';
import { GrpoUpdate } from './grpo-update.js';
import type { JobConductor } from './job-conductor.js';
import type { TokenLedger } from './ledger.js';
import { PpoUpdate } from './ppo-update.js';
import type { Prepared } from './prepare.js';
import type { Prompt } from './prompt-source.js';
import type { Group, RolloutKind, RolloutPool } from './rollouts.js';
import { Rounds, type StepRound } from './rounds.js';
import { makeTrainBatch, type TrainBatch } from './train-batch.js';

export interface StepReport {
  readonly step: number;
  /** What it had to train on. */
  readonly groups: readonly Group[];
  readonly round: RoundReport;
  readonly batch: TrainBatch;
  /** Null when no rollout of the step had anything to teach the policy: the weights stayed as they were. */
  readonly result: TrainResult | null;
  /** Null as well without a critic. */
  readonly critic: CriticReport | null;
  /** Over trained tokens. */
  readonly advantageMean: number;
  readonly learningRate: number;
  readonly heldoutReward: number | null;
  readonly seconds: StepSeconds;
}

/** How the step's rollouts were started. */
export interface RoundReport {
  readonly kind: RoundKind;
  /** Those that were aborted included. */
  readonly started: readonly Group[];
  /** Prompts that wait for a long round. */
  readonly deferredPrompts: number;
}

interface StepSeconds {
  /** From the end of the step before, held-out evaluation included. */
  readonly step: number;
  /** Until the last of its rollouts was finished, and from then until the last had its reward. */
  readonly generationWait: number;
  readonly rewardWait: number;
  readonly train: number;
}

export interface JobLoopParts {
  readonly prepared: Prepared;
  readonly trainer: DurableTrainer;
  /** Null for an algorithm without one. */
  readonly critic: DurableCritic | null;
  readonly conductor: JobConductor;
  readonly pool: RolloutPool;
  readonly ledger: TokenLedger;
  readonly onPhase: (text: string) => void;
  readonly onStep: (report: StepReport) => void;
  readonly onHeldout: (step: number, reward: number | null) => void;
  /** Throws when the run is to end, however long the work would still take. */
  readonly alive: <T>(work: Promise<T>) => Promise<T>;
}

const NOTHING_TO_TEACH: UpdateReport = { result: null, critic: null };

/**
 * One run, from the first rollout to the last update; what an update is, its algorithm knows. Rollouts of a step start as
 * soon as the staleness bound lets them, so generation goes on while the step before is scored and trained.
 *
 * A run that is to end leaves its waits at once, but never a step that holds the device: that is finished, told and
 * counted, so that weights, steps and tokens agree.
 */
export class JobLoop {
  readonly #evaluationKind: RolloutKind;
  readonly #train: Iterator<Prompt>;
  /** By step, from the first rollout started until the step has been told of. */
  readonly #open = new Map<number, StepRound>();
  readonly #rounds: Rounds;
  readonly #reserved = new Set<number>();
  readonly #algorithm: Algorithm;
  #stepsDone = 0;

  constructor(private readonly parts: JobLoopParts) {
    const { config, prompts, stopTokenIds } = parts.prepared;
    const { seed, rollout, evaluation } = config;
    const { temperature, topK, topP, minP, maxTokens: tokensMax } = rollout;
    const kind: RolloutKind = { seed, tokensMax, sampling: { temperature, topK, topP, minP }, stopTokenIds };
    this.#evaluationKind = {
      ...kind,
      sampling: { temperature: evaluation.temperature, topK: 0, topP: 1, minP: 0 },
    };
    this.#train = prompts.train();
    this.#rounds = new Rounds({
      ...parts,
      step: { prompts: rollout.promptsPerStep, samples: rollout.samplesPerPrompt },
      kind,
      fresh: () => this.#nextPrompt(),
      onDeferred: (count) => (parts.conductor.deferredPrompts = count),
    });
    this.#algorithm = algorithmOf(parts);
  }

  /** Steps finished so far. */
  get stepsDone(): number {
    return this.#stepsDone;
  }

  /** Groups that `onStep` has not told of. */
  get unreported(): readonly Group[] {
    return [...this.#open.values()].flatMap(({ started }) => started);
  }

  /** Gives the trainer its weights, measures held-out reward, trains `steps` steps, measures again. */
  async run(weights: Buckets): Promise<void> {
    const { prepared, conductor, alive, onPhase } = this.parts;
    onPhase('preparing the trainer');
    await alive(conductor.stage('init', () => this.#prepare(weights)));
    await this.#evaluate(0);
    onPhase('training');
    while (this.#stepsDone < prepared.config.steps) await this.#step(this.#stepsDone + 1);
  }

  async #prepare(weights: Buckets): Promise<void> {
    await this.#algorithm.prepare(weights);
    // Not waited for: a policy may let engines wake only after this stage.
    this.parts.conductor.weightsReady();
  }

  async #evaluate(step: number): Promise<number | null> {
    const { prepared, pool, conductor, alive, onPhase, onHeldout } = this.parts;
    if (prepared.heldout.length === 0) return null;
    onPhase(
      step === 0
        ? 'measuring held-out reward before training'
        : `measuring held-out reward after step ${step}`,
    );
    const groups = startEvaluation(pool, prepared.heldout, this.#evaluationKind);
    conductor.update();
    await alive(Promise.all(groups.map(({ scored }) => scored)));
    const reward = meanReward(groups);
    onHeldout(step, reward);
    return reward;
  }

  async #step(step: number): Promise<void> {
    const { prepared, conductor, alive, onStep, onPhase } = this.parts;
    const { config } = prepared;
    const startedMs = nowMs();
    this.#applyReservations(step);
    this.#startWhatMay();
    const round = this.#open.get(step);
    assert(round !== undefined, `step ${step} has no rollouts`);
    // While the last of them are scored and the batch is made, the device can be made easy to take.
    void round.whenFinished.then(() => conductor.hint());
    await alive(round.whenScored);
    const scoredMs = nowMs();
    const groups = round.taken;
    const batch = this.#makeBatch(groups);
    const learningRate = learningRateAt(this.#schedule(), step - 1);
    const { updates } = batch;
    const taught =
      updates.length === 0 ? NOTHING_TO_TEACH : await this.#algorithm.train({ step, updates, learningRate });
    const { result, critic, advantageMean = batch.advantageMean } = taught;
    const train = (nowMs() - scoredMs) / 1000;
    this.#stepsDone = step;
    let heldoutReward: number | null = null;
    try {
      const every = config.evaluation.everySteps;
      const isLast = step === config.steps;
      if (isLast || (every > 0 && step % every === 0)) {
        heldoutReward = await this.#evaluate(step);
        if (!isLast) onPhase('training');
      }
    } finally {
      // The step was taken, however its evaluation ended.
      const finishedMs = Math.max(startedMs, ...groups.map(lastFinishedMs));
      const generationWait = (finishedMs - startedMs) / 1000;
      const rewardWait = (scoredMs - finishedMs) / 1000;
      const seconds = { step: (nowMs() - startedMs) / 1000, generationWait, rewardWait, train };
      this.#open.delete(step);
      const { kind, started } = round;
      const { deferredPrompts } = this.#rounds;
      const told = { step, groups, round: { kind, started, deferredPrompts } };
      onStep({ ...told, batch, result, critic, advantageMean, learningRate, heldoutReward, seconds });
    }
  }

  /** Rollouts of step s sample under versions from s − 1 − bound on: they start once so many steps are done. */
  #startWhatMay(): void {
    const { conductor, prepared } = this.parts;
    const { steps, algorithm } = prepared.config;
    const last = Math.min(steps, this.#stepsDone + 1 + algorithm.stalenessVersionsMax);
    for (let step = this.#stepsDone + 1; step <= last; step++) {
      if (!this.#open.has(step)) this.#open.set(step, this.#rounds.start(step, conductor.rounds));
    }
    conductor.update();
  }

  #nextPrompt(): Prompt {
    const { prompts, promptTokensMax } = this.parts.prepared;
    const next = this.#train.next();
    assert(next.done !== true, 'prompts without end');
    const { task, tokenIds } = next.value;
    if (tokenIds.length > promptTokensMax) {
      throw new UserError(
        `task "${prompts.taskName}": the prompt of ${JSON.stringify(task.key)} has ${tokenIds.length} tokens, judging by the first ones there is room for ${promptTokensMax}: shorten it, or give the longest prompts first`,
      );
    }
    return next.value;
  }

  #makeBatch(groups: readonly Group[]): TrainBatch {
    const { prepared, conductor, ledger } = this.parts;
    const { algorithm, rollout } = prepared.config;
    const rules = {
      advantage: algorithm.advantage,
      lossAggregation: algorithm.lossAggregation,
      tokensMax: rollout.maxTokens,
      version: conductor.version,
      stalenessVersionsMax: algorithm.stalenessVersionsMax,
      keepsEqualGroups: this.#algorithm.keepsEqualGroups,
      updates: algorithm.updatesPerStep,
    };
    return makeTrainBatch(groups, rules, ledger);
  }

  /** Reservations may overlap: a lane is out of use in every step that one of its own covers. */
  #applyReservations(step: number): void {
    const { prepared, conductor } = this.parts;
    const { reserve } = prepared.config.scheduler;
    for (const lane of new Set(reserve.map((reservation) => reservation.lane))) {
      const isReserved = reserve.some(
        (own) => own.lane === lane && own.fromStep <= step && step < own.untilStep,
      );
      if (isReserved === this.#reserved.has(lane)) continue;
      if (isReserved) this.#reserved.add(lane);
      else this.#reserved.delete(lane);
      conductor.scheduler.dispatch({ kind: isReserved ? 'laneReserved' : 'laneUnreserved', lane });
    }
  }

  #schedule(): Parameters<typeof learningRateAt>[0] {
    const { learningRate: peak, warmupSteps } = this.parts.prepared.config.optimizer;
    return { peak, warmupSteps, decay: { kind: 'constant' } };
  }
}

function lastFinishedMs({ rollouts }: Group): number {
  return Math.max(...rollouts.map(({ finishedMs }) => finishedMs ?? -Infinity));
}

function algorithmOf({ prepared, trainer, critic, conductor, ledger }: JobLoopParts): Algorithm {
  const { config, layout } = prepared;
  const { algorithm } = config;
  const actor = new ActorStages({ algorithm, trainer, conductor, ledger });
  if (algorithm.name === 'grpo') return new GrpoUpdate(actor, algorithm.klCoefficient > 0);
  assert(critic !== null, 'PPO has a critic');
  return new PpoUpdate({ config, policyLayout: layout, actor, critic, conductor });
}
