import { at } from '../lib/assert.js';
import { nowMs } from '../lib/clock.js';
import type { Buckets } from '../model/layout.js';
import type { TrainSequence } from '../train/batch.js';
import type { TrainResult } from '../train/results.js';
import type { StepOrder } from './algorithm.js';
import type { JobConductor } from './job-conductor.js';
import type { RunConfig } from './config.js';
import type { DurableTrainer } from './durable-trainer.js';
import { joinResults } from './join-results.js';
import type { TokenLedger } from './ledger.js';
import type { TrainUpdate } from './train-batch.js';

export interface ActorStagesParts {
  readonly algorithm: RunConfig['algorithm'];
  readonly trainer: DurableTrainer;
  readonly conductor: JobConductor;
  readonly ledger: TokenLedger;
}

/** The stages of the policy that is trained, which every algorithm has. */
export class ActorStages {
  #versions = 0;

  constructor(private readonly parts: ActorStagesParts) {}

  /** Makes the trainer; its weights are version 0. */
  async start(weights: Buckets): Promise<void> {
    const { trainer, conductor } = this.parts;
    const startedMs = nowMs();
    await trainer.start(weights);
    conductor.published(0, (nowMs() - startedMs) / 1000);
  }

  /** The updates with old log-probabilities computed anew and those of the reference, as far as the loss wants them. */
  async scored(updates: readonly TrainUpdate[]): Promise<readonly TrainUpdate[]> {
    const { klCoefficient, oldLogProbs } = this.parts.algorithm;
    let scored = updates;
    if (oldLogProbs === 'recomputed') {
      scored = await this.#scored('oldLogProbs', 'policy', scored, (sequence, oldLogprobs) => ({
        ...sequence,
        oldLogprobs,
      }));
    }
    if (klCoefficient > 0) {
      scored = await this.#scored('refLogProbs', 'reference', scored, (sequence, refLogprobs) => ({
        ...sequence,
        refLogprobs,
      }));
    }
    return scored;
  }

  /**
   * Takes the optimizer steps, one an update, publishes what they lead to, and settles the rollouts. The loss is PPO's
   * clipped one, with the k3 estimate of the KL to the reference: GRPO's differs in its advantages alone.
   */
  train({ step, updates, learningRate }: StepOrder): Promise<TrainResult> {
    const { algorithm, conductor, trainer } = this.parts;
    const { clipLow, clipHigh, klCoefficient } = algorithm;
    return conductor.stage('actorTraining', async (requestedMs) => {
      const objective = { algorithm: 'grpo', clipLow, clipHigh, klCoefficient } as const;
      const options = { objective, learningRate };
      const version = this.#versions + 1;
      const batches = updates.map((update) => update.sequences);
      const order = { step, updates: batches, options, version, requestedMs };
      const { results, publishSeconds } = await trainer.train(order);
      this.#versions = version;
      this.settle(updates, results);
      conductor.published(version, publishSeconds);
      return joinResults(results);
    });
  }

  /** The rollouts of an update whose step was skipped taught nothing. */
  settle(updates: readonly TrainUpdate[], results: readonly { readonly skipped: boolean }[]): void {
    for (const [i, { rollouts }] of updates.entries()) {
      const fate = at(results, i).skipped ? 'filtered' : 'trained';
      for (const rollout of rollouts) this.parts.ledger.settle(rollout, fate);
    }
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
}
