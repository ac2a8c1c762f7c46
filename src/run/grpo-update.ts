import type { Buckets } from '../model/layout.js';
import type { ActorStages } from './actor-stages.js';
import type { Algorithm, StepOrder, UpdateReport } from './algorithm.js';

/**
 * GRPO (Shao et al., "DeepSeekMath", 2024): a rollout's advantage is how much better than its group it did, which the
 * batch says already. Only a KL term has anything to say about a group without any difference.
 */
export class GrpoUpdate implements Algorithm {
  constructor(
    private readonly actor: ActorStages,
    readonly keepsEqualGroups: boolean,
  ) {}

  prepare(weights: Buckets): Promise<void> {
    return this.actor.start(weights);
  }

  async train(order: StepOrder): Promise<UpdateReport> {
    const updates = await this.actor.scored(order.updates);
    const result = await this.actor.train({ ...order, updates });
    return { result, critic: null };
  }
}
