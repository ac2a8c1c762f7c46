import type { Prompt } from './prompt-source.js';
import type { Group, RolloutKind, RolloutPool } from './rollouts.js';

/** Starts one rollout of each held-out prompt; `meanReward` of the groups, once scored, is the evaluation. */
export function startEvaluation(pool: RolloutPool, heldout: readonly Prompt[], kind: RolloutKind): Group[] {
  return heldout.map((prompt) => pool.start(prompt, 0, 1, kind));
}

/** Mean over all rollouts; one whose reward failed counts as 0. Null of none. */
export function meanReward(groups: readonly Group[]): number | null {
  const rewards = groups.flatMap((group) =>
    group.rollouts.map(({ reward }) => (reward === null || reward.failed ? 0 : reward.reward)),
  );
  return rewards.length === 0 ? null : rewards.reduce((sum, reward) => sum + reward, 0) / rewards.length;
}
