import { assert, at } from '../lib/assert.js';
import type { Buckets, ParamLayout } from '../model/layout.js';
import { criticWeights } from '../train/critic-layout.js';
import type { CriticResult } from '../train/critic-results.js';
import type { ActorStages } from './actor-stages.js';
import type { Algorithm, CriticReport, StepOrder, UpdateReport } from './algorithm.js';
import type { JobConductor } from './job-conductor.js';
import type { RunConfig } from './config.js';
import type { DurableCritic } from './durable-critic.js';
import { tokenMean } from './join-results.js';
import { type Episode, ppoEstimates, type PpoEstimates } from './ppo-advantages.js';
import type { Rollout } from './rollouts.js';
import type { TrainUpdate } from './train-batch.js';

export interface PpoUpdateParts {
  readonly config: Pick<RunConfig, 'algorithm' | 'critic'>;
  /** Of the policy, whose layers the critic begins with. */
  readonly policyLayout: ParamLayout;
  readonly actor: ActorStages;
  readonly critic: DurableCritic;
  readonly conductor: JobConductor;
}

/**
 * PPO (Schulman et al., 2017) with a critic: every token has an advantage of its own, by how much better it went on from
 * there than the critic's values said. The critic begins as the policy with a value head of zeros, is trained before the
 * policy in every step, and alone in the first ones.
 */
export class PpoUpdate implements Algorithm {
  readonly keepsEqualGroups = true;

  constructor(private readonly parts: PpoUpdateParts) {}

  async prepare(weights: Buckets): Promise<void> {
    const { actor, critic, policyLayout } = this.parts;
    // The weights are not here any more once the actor has them.
    const start = criticWeights(critic.layout, policyLayout, weights);
    await actor.start(weights);
    await critic.start(start);
  }

  async train(order: StepOrder): Promise<UpdateReport> {
    const { actor, config } = this.parts;
    const { algorithm, critic } = config;
    const episodes = await this.#episodes(order.updates);
    const trainsActor = order.step > critic.warmupSteps;
    const scored = trainsActor ? await actor.scored(order.updates) : order.updates;
    const estimates = ppoEstimates(episodes, algorithm.gamma, algorithm.gaeLambda);
    const fits = await this.#fitCritic(order, episodes, estimates);
    // What only the critic was trained on has reached a gradient too.
    if (!trainsActor) actor.settle(order.updates, fits);
    const updates = withAdvantages(scored, estimates);
    const result = trainsActor ? await actor.train({ ...order, updates }) : null;
    return {
      result,
      critic: criticReport(fits, estimates, critic.learningRate),
      advantageMean: estimates.means.advantage,
    };
  }

  /** Each rollout with the critic's values, in the order of the updates. */
  #episodes(updates: readonly TrainUpdate[]): Promise<readonly Episode[]> {
    const { conductor, critic } = this.parts;
    return conductor.stage('valueCompute', async (requestedMs) => {
      const sequences = updates.flatMap((update) =>
        update.sequences.map(({ tokens, weights }) => ({ tokens, weights })),
      );
      const rollouts = updates.flatMap((update) => update.rollouts);
      const values = await critic.values(sequences, requestedMs);
      return sequences.map(({ weights }, i) => {
        return { weights, values: at(values, i), reward: rewardOf(at(rollouts, i)) };
      });
    });
  }

  /** One result an update, over and over for each epoch. */
  #fitCritic(
    { step, updates }: StepOrder,
    episodes: readonly Episode[],
    { returns }: PpoEstimates,
  ): Promise<readonly CriticResult[]> {
    const { conductor, critic, config } = this.parts;
    const { learningRate, cliprangeValue: clip, epochs } = config.critic;
    return conductor.stage('criticTraining', (requestedMs) => {
      let next = 0;
      const pass = updates.map(({ sequences }) =>
        sequences.map(({ tokens, weights }) => {
          const oldValues = at(episodes, next).values;
          return { tokens, weights, oldValues, returns: at(returns, next++) };
        }),
      );
      const passes = Array.from({ length: epochs }, () => pass).flat();
      return critic.train({ step, updates: passes, options: { clip, learningRate }, requestedMs });
    });
  }
}

function withAdvantages(
  updates: readonly TrainUpdate[],
  { advantages }: PpoEstimates,
): readonly TrainUpdate[] {
  let next = 0;
  return updates.map((update) => ({
    ...update,
    sequences: update.sequences.map((sequence) => ({ ...sequence, advantage: at(advantages, next++) })),
  }));
}

function rewardOf({ id, reward }: Rollout): number {
  assert(reward !== null && !reward.failed, `rollout ${id} is trained on without a reward`);
  return reward.reward;
}

function criticReport(
  fits: readonly CriticResult[],
  { means, explainedVariance }: PpoEstimates,
  learningRate: number,
): CriticReport {
  return {
    learningRate,
    loss: tokenMean(fits, ({ loss }) => loss),
    clipFraction: tokenMean(fits, ({ clipFraction }) => clipFraction),
    gradNorm: Math.max(...fits.map(({ gradNorm }) => gradNorm)),
    valueMean: means.value,
    returnMean: means.return,
    explainedVariance,
  };
}
