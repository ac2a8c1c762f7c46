import { assert, at } from '../lib/assert.js';
import { nowMs } from '../lib/clock.js';
import { UserError } from '../lib/errors.js';
import type { Buckets } from '../model/layout.js';
import type { TrainSequence } from '../train/batch.js';
import type { TrainResult } from '../train/results.js';
import { learningRateAt } from '../train/schedule.js';
import type { DurableTrainer } from './durable-trainer.js';
import { meanReward, startEvaluation } from './evaluation.js';
import type { TokenLedger } from './ledger.js';
import type { Prepared } from './prepare.js';
import type { Prompt } from './prompt-source.js';
import type { Group, RolloutKind, RolloutPool } from './rollouts.js';
import type { JobConductor } from './job-conductor.js';
import { joinResults } from './join-results.js';
import { makeTrainBatch, type TrainBatch, type TrainUpdate } from './train-batch.js';

export interface StepReport {
  readonly step: number;
  readonly groups: readonly Group[];
  readonly batch: TrainBatch;
  /** Null when no rollout of the step had anything to teach: the weights stayed as they were. */
  readonly result: TrainResult | null;
  readonly learningRate: number;
  readonly heldoutReward: number | null;
  readonly seconds: StepSeconds;
}

interface StepSeconds {
  /** From the end of the step before, held-out evaluation included. */
  readonly step: number;
  /** Until the last of its rollouts was finished, and from then until the last had its reward. */
  readonly generationWait: number;
  readonly rewardWait: number;
  readonly train: number;
}

export interface GrpoJobParts {
  readonly prepared: Prepared;
  readonly trainer: DurableTrainer;
  readonly conductor: JobConductor;
  readonly pool: RolloutPool;
  readonly ledger: TokenLedger;
  readonly onPhase: (text: string) => void;
  readonly onStep: (report: StepReport) => void;
  readonly onHeldout: (step: number, reward: number | null) => void;
  /** Throws when the run is to end, however long the work would still take. */
  readonly alive: <T>(work: Promise<T>) => Promise<T>;
}

/**
 * One GRPO run (Shao et al., "DeepSeekMath", 2024), from the first rollout to the last update. Rollouts of a step
 * start as soon as the staleness bound lets them, so generation goes on while the step before is scored and trained.
 *
 * A run that is to end leaves its waits at once, but never a step that holds the device: that is finished, told and
 * counted, so that weights, steps and tokens agree.
 */
export class GrpoJob {
  readonly #kind: RolloutKind;
  readonly #evaluationKind: RolloutKind;
  readonly #train: Iterator<Prompt>;
  /** By step, from the first rollout started until the step has been told of. */
  readonly #groups = new Map<number, Group[]>();
  readonly #reserved = new Set<number>();
  #stepsDone = 0;
  #versions = 0;

  constructor(private readonly parts: GrpoJobParts) {
    const { config, prompts, stopTokenIds } = parts.prepared;
    const { seed, rollout, evaluation } = config;
    const { temperature, topK, topP, minP, maxTokens: tokensMax } = rollout;
    this.#kind = { seed, tokensMax, sampling: { temperature, topK, topP, minP }, stopTokenIds };
    this.#evaluationKind = {
      ...this.#kind,
      sampling: { temperature: evaluation.temperature, topK: 0, topP: 1, minP: 0 },
    };
    this.#train = prompts.train();
  }

  /** Steps finished so far. */
  get stepsDone(): number {
    return this.#stepsDone;
  }

  /** Groups that `onStep` has not told of. */
  get unreported(): readonly Group[] {
    return [...this.#groups.values()].flat();
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
    const { trainer, conductor } = this.parts;
    const startedMs = nowMs();
    await trainer.start(weights);
    conductor.published(0, (nowMs() - startedMs) / 1000);
    // Not waited for: a policy may let engines wake only after this stage.
    conductor.weightsReady();
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
    const groups = this.#groups.get(step);
    assert(groups !== undefined, `step ${step} has no rollouts`);
    // While the last of them are scored and the batch is made, the device can be made easy to take.
    void Promise.all(groups.map(({ finished }) => finished)).then(() => conductor.hint());
    await alive(Promise.all(groups.map(({ scored }) => scored)));
    const scoredMs = nowMs();
    const batch = this.#makeBatch(groups);
    const learningRate = learningRateAt(this.#schedule(), step - 1);
    const result = batch.updates.length === 0 ? null : await this.#update(batch, learningRate);
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
      this.#groups.delete(step);
      onStep({ step, groups, batch, result, learningRate, heldoutReward, seconds });
    }
  }

  /** Rollouts of step s sample under versions from s − 1 − bound on: they start once so many steps are done. */
  #startWhatMay(): void {
    const { conductor, prepared } = this.parts;
    const { steps, algorithm, rollout } = prepared.config;
    const last = Math.min(steps, this.#stepsDone + 1 + algorithm.stalenessVersionsMax);
    for (let step = this.#stepsDone + 1; step <= last; step++) {
      if (this.#groups.has(step)) continue;
      const groups: Group[] = [];
      this.#groups.set(step, groups);
      for (let i = 0; i < rollout.promptsPerStep; i++) groups.push(this.#startGroup(step));
    }
    conductor.update();
  }

  #startGroup(step: number): Group {
    const { prepared, pool } = this.parts;
    const { config, prompts, promptTokensMax } = prepared;
    const next = this.#train.next();
    assert(next.done !== true, 'prompts without end');
    const { task, tokenIds } = next.value;
    if (tokenIds.length > promptTokensMax) {
      throw new UserError(
        `task "${prompts.taskName}": the prompt of ${JSON.stringify(task.key)} has ${tokenIds.length} tokens, judging by the first ones there is room for ${promptTokensMax}: shorten it, or give the longest prompts first`,
      );
    }
    return pool.start(next.value, step, config.rollout.samplesPerPrompt, this.#kind);
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
      keepsEqualGroups: algorithm.klCoefficient > 0,
      updates: algorithm.updatesPerStep,
    };
    return makeTrainBatch(groups, rules, ledger);
  }

  /** Scores under the frozen reference where the loss has a KL term, then takes the optimizer steps and publishes. */
  async #update(batch: TrainBatch, learningRate: number): Promise<TrainResult> {
    const { prepared, conductor, trainer, ledger } = this.parts;
    const { clipLow, clipHigh, klCoefficient, oldLogProbs } = prepared.config.algorithm;
    let { updates } = batch;
    if (oldLogProbs === 'recomputed') {
      updates = await this.#scored('oldLogProbs', 'policy', updates, (sequence, oldLogprobs) => ({
        ...sequence,
        oldLogprobs,
      }));
    }
    if (klCoefficient > 0) {
      updates = await this.#scored('refLogProbs', 'reference', updates, (sequence, refLogprobs) => ({
        ...sequence,
        refLogprobs,
      }));
    }
    return conductor.stage('actorTraining', async (requestedMs) => {
      const objective = { algorithm: 'grpo', clipLow, clipHigh, klCoefficient } as const;
      const options = { objective, learningRate };
      const version = this.#versions + 1;
      const sequences = updates.map((update) => update.sequences);
      const order = { step: this.#stepsDone + 1, updates: sequences, options, version, requestedMs };
      const { results, publishSeconds } = await trainer.train(order);
      this.#versions = version;
      for (const [i, { rollouts }] of updates.entries()) {
        const fate = at(results, i).skipped ? 'filtered' : 'trained';
        for (const rollout of rollouts) ledger.settle(rollout, fate);
      }
      conductor.published(version, publishSeconds);
      return joinResults(results);
    });
  }

  /** The updates with each sequence's log-probabilities, scored in a stage of its own, put in. */
  #scored(
    stage: 'oldLogProbs' | 'refLogProbs',
    which: 'policy' | 'reference',
    updates: readonly TrainUpdate[],
    put: (sequence: TrainSequence, logprobs: Float32Array<ArrayBuffer>) => TrainSequence,
  ): Promise<readonly TrainUpdate[]> {
    const { conductor, trainer } = this.parts;
    return conductor.stage(stage, async (requestedMs) => {
      const sequences = updates.flatMap((update) => update.sequences);
      const logprobs = await trainer.score({ requestedMs, stage, which }, sequences);
      let next = 0;
      return updates.map((update) => ({
        ...update,
        sequences: update.sequences.map((sequence) => put(sequence, at(logprobs, next++))),
      }));
    });
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
