import { assert, at } from '../lib/assert.js';
import { nowMs } from '../lib/clock.js';
import type { Buckets } from '../model/layout.js';
import type { Tokenizer } from '../model/tokenizer.js';
import type { Environment, Task } from '../tasks/task.js';
import type { TrainSequence } from '../train/batch.js';
import type { TrainResult } from '../train/results.js';
import { learningRateAt } from '../train/schedule.js';
import type { RunConfig } from './config.js';
import type { Conductor } from './conductor.js';
import { heldoutTasks, meanReward, startEvaluation } from './evaluation.js';
import type { Fleet } from './fleet.js';
import type { TokenLedger } from './ledger.js';
import type { Group, RolloutKind, RolloutPool } from './rollouts.js';
import { makeTrainBatch, type TrainBatch } from './train-batch.js';

export interface StepReport {
  readonly step: number;
  readonly groups: readonly Group[];
  readonly batch: TrainBatch;
  /** Null when no rollout of the step had anything to teach: the weights stayed as they were. */
  readonly result: TrainResult | null;
  readonly learningRate: number;
  readonly heldoutReward: number | null;
  readonly seconds: { readonly step: number; readonly generationWait: number; readonly train: number };
}

export interface GrpoJobParts {
  readonly config: RunConfig;
  readonly tokenizer: Tokenizer;
  readonly environment: Environment;
  readonly stopTokenIds: readonly number[];
  readonly fleet: Fleet;
  readonly conductor: Conductor;
  readonly pool: RolloutPool;
  readonly ledger: TokenLedger;
  readonly onPhase: (text: string) => void;
  readonly onStep: (report: StepReport) => void;
  readonly onHeldout: (step: number, reward: number | null) => void;
  /** Throws when the run is to end, whatever it is waiting for. */
  readonly alive: <T>(work: Promise<T>) => Promise<T>;
}

/**
 * One GRPO run (Shao et al., "DeepSeekMath", 2024), from the first rollout to the last update. Rollouts of a step
 * start as soon as the staleness bound lets them, so generation goes on while the step before is scored and trained.
 */
export class GrpoJob {
  readonly #kind: RolloutKind;
  readonly #evaluationKind: RolloutKind;
  readonly #train: Iterator<Task>;
  readonly #heldout: readonly Task[];
  readonly #started = new Map<number, Group[]>();
  #stepsDone = 0;
  #updates = 0;

  constructor(private readonly parts: GrpoJobParts) {
    const { config, environment, stopTokenIds } = parts;
    const { seed, rollout, evaluation } = config;
    const { temperature, topK, topP, minP, maxTokens: tokensMax } = rollout;
    this.#kind = { seed, tokensMax, sampling: { temperature, topK, topP, minP }, stopTokenIds };
    this.#evaluationKind = {
      ...this.#kind,
      sampling: { temperature: evaluation.temperature, topK: 0, topP: 1, minP: 0 },
    };
    this.#train = environment.tasks({ split: 'train', seed })[Symbol.iterator]();
    this.#heldout = heldoutTasks(environment, seed, evaluation.heldoutPrompts);
  }

  /** Steps finished so far. */
  get stepsDone(): number {
    return this.#stepsDone;
  }

  /** Gives the trainer its weights, measures held-out reward, trains `steps` steps, measures again. */
  async run(weights: Buckets): Promise<void> {
    const { config, conductor, alive, onPhase } = this.parts;
    onPhase('preparing the trainer');
    await alive(conductor.stage('init', () => this.#prepare(weights)));
    await this.#evaluate(0);
    onPhase('training');
    while (this.#stepsDone < config.steps) await this.#step(this.#stepsDone + 1);
  }

  async #prepare(weights: Buckets): Promise<void> {
    const { config, fleet, conductor } = this.parts;
    const { beta1, beta2, epsilon, weightDecay, gradNormMax, microBatchTokens } = config.optimizer;
    await fleet.trainer.request({
      kind: 'createTrainer',
      config: fleet.model,
      layout: fleet.layout,
      options: {
        rowsMax: microBatchTokens,
        contextTokensMax: fleet.contextTokensMax,
        adamw: { beta1, beta2, epsilon, weightDecay, gradNormMax },
      },
      weights,
    });
    if (config.algorithm.klCoefficient > 0) await fleet.trainer.request({ kind: 'keepReference' });
    await conductor.publish(0);
    conductor.weightsReady();
  }

  async #evaluate(step: number): Promise<number | null> {
    const { pool, tokenizer, conductor, alive, onPhase, onHeldout } = this.parts;
    if (this.#heldout.length === 0) return null;
    onPhase(
      step === 0
        ? 'measuring held-out reward before training'
        : `measuring held-out reward after step ${step}`,
    );
    const groups = startEvaluation(pool, tokenizer, this.#heldout, this.#evaluationKind);
    conductor.update();
    await alive(Promise.all(groups.map(({ scored }) => scored)));
    const reward = meanReward(groups);
    onHeldout(step, reward);
    return reward;
  }

  async #step(step: number): Promise<void> {
    const { config, conductor, alive, onStep, ledger } = this.parts;
    const startedMs = nowMs();
    this.#applyReservations(step);
    this.#startWhatMay();
    const groups = this.#started.get(step);
    assert(groups !== undefined, `step ${step} has no rollouts`);
    this.#started.delete(step);
    await alive(Promise.all(groups.map(({ scored }) => scored)));
    const generationWait = (nowMs() - startedMs) / 1000;
    const batch = makeTrainBatch(
      groups,
      {
        advantage: config.algorithm.advantage,
        lossAggregation: config.algorithm.lossAggregation,
        tokensMax: config.rollout.maxTokens,
        version: conductor.version,
        stalenessVersionsMax: config.algorithm.stalenessVersionsMax,
        keepsEqualGroups: config.algorithm.klCoefficient > 0,
        updates: config.algorithm.updatesPerStep,
      },
      ledger,
    );
    const learningRate = learningRateAt(this.#schedule(), step - 1);
    const trainStartedMs = nowMs();
    const result = batch.updates.length === 0 ? null : await alive(this.#update(batch, learningRate));
    const train = (nowMs() - trainStartedMs) / 1000;
    this.#stepsDone = step;
    const every = config.evaluation.everySteps;
    const measures = step === config.steps || (every > 0 && step % every === 0);
    const seconds = { step: (nowMs() - startedMs) / 1000, generationWait, train };
    const heldoutReward = measures ? await this.#evaluate(step) : null;
    onStep({ step, groups, batch, result, learningRate, heldoutReward, seconds });
  }

  /** Rollouts of step s sample under versions from s − 1 − bound on: they start once so many steps are done. */
  #startWhatMay(): void {
    const { config, pool, tokenizer, conductor } = this.parts;
    const { promptsPerStep, samplesPerPrompt } = config.rollout;
    const last = Math.min(config.steps, this.#stepsDone + 1 + config.algorithm.stalenessVersionsMax);
    for (let step = this.#stepsDone + 1; step <= last; step++) {
      if (this.#started.has(step)) continue;
      const groups = Array.from({ length: promptsPerStep }, () => {
        const next = this.#train.next();
        assert(next.done !== true, 'the train split has no end');
        return pool.start(
          next.value,
          tokenizer.encode(next.value.prompt),
          step,
          samplesPerPrompt,
          this.#kind,
        );
      });
      this.#started.set(step, groups);
    }
    conductor.update();
  }

  /** Score under the frozen reference where the loss has a KL term, one optimizer step, and the new version. */
  async #update(batch: TrainBatch, learningRate: number): Promise<TrainResult> {
    const { config, conductor, fleet, ledger } = this.parts;
    const { clipLow, clipHigh, klCoefficient } = config.algorithm;
    let updates = batch.updates;
    if (config.algorithm.oldLogProbs === 'recomputed') {
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
      const results: TrainResult[] = [];
      for (const [i, sequences] of updates.entries()) {
        // Only the first has waited since the stage was asked for.
        const since = i === 0 ? requestedMs : nowMs();
        results.push(await fleet.trainer.request({ kind: 'train', requestedMs: since, sequences, options }));
      }
      const result = joinResults(results);
      const tokens = batch.rollouts.reduce((sum, { generated }) => sum + generated.tokenIds.length, 0);
      ledger.settle(result.skipped ? 'filtered' : 'trained', tokens);
      await conductor.publish(++this.#updates);
      return result;
    });
  }

  /** The updates with each sequence's log-probabilities, scored in a stage of its own, put in. */
  #scored(
    stage: 'oldLogProbs' | 'refLogProbs',
    which: 'policy' | 'reference',
    updates: TrainBatch['updates'],
    put: (sequence: TrainSequence, logprobs: Float32Array<ArrayBuffer>) => TrainSequence,
  ): Promise<TrainBatch['updates']> {
    const { conductor, fleet } = this.parts;
    return conductor.stage(stage, async (requestedMs) => {
      const sequences = updates.flat();
      const { logprobs } = await fleet.trainer.request({
        kind: 'score',
        requestedMs,
        stage,
        which,
        sequences,
      });
      let next = 0;
      return updates.map((update) => update.map((sequence) => put(sequence, at(logprobs, next++))));
    });
  }

  #applyReservations(step: number): void {
    const { config, conductor } = this.parts;
    for (const { lane, fromStep, untilStep } of config.scheduler.reserve) {
      if (step === fromStep) conductor.scheduler.dispatch({ kind: 'laneReserved', lane });
      if (step === untilStep) conductor.scheduler.dispatch({ kind: 'laneUnreserved', lane });
    }
  }

  #schedule(): Parameters<typeof learningRateAt>[0] {
    const { learningRate: peak, warmupSteps } = this.parts.config.optimizer;
    return { peak, warmupSteps, decay: { kind: 'constant' } };
  }
}

/** One result for a step of several updates: means over all tokens, the largest norm. */
function joinResults(results: readonly TrainResult[]): TrainResult {
  const tokens = results.reduce((sum, result) => sum + result.tokens, 0);
  const mean = (of: (result: TrainResult) => number): number =>
    results.reduce((sum, result) => sum + of(result) * result.tokens, 0) / tokens;
  return {
    tokens,
    loss: mean(({ loss }) => loss),
    meanRatio: mean(({ meanRatio }) => meanRatio),
    maxRatio: Math.max(...results.map(({ maxRatio }) => maxRatio)),
    clipFraction: mean(({ clipFraction }) => clipFraction),
    kl: mean(({ kl }) => kl),
    entropy: mean(({ entropy }) => entropy),
    mismatch: mean(({ mismatch }) => mismatch),
    gradNorm: Math.max(...results.map(({ gradNorm }) => gradNorm)),
    skipped: results.every(({ skipped }) => skipped),
    logprobs: results.flatMap(({ logprobs }) => logprobs),
  };
}
