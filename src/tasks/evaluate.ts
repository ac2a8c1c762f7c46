import { textOf } from './any-error.js';
import { rewardFailure, type RewardResult } from './reward-result.js';
import type { Environment, Episode } from './task.js';

/** All rewards of one episode, one after the other. A reward function's failure is a result, not an error. */
export async function evaluate(rewards: Environment['rewards'], episode: Episode): Promise<RewardResult> {
  const scores: Record<string, number> = {};
  let total = 0;
  for (const [name, { fn, weight }] of Object.entries(rewards)) {
    let score: unknown;
    try {
      score = await fn(episode);
    } catch (error) {
      return rewardFailure('threw', `reward "${name}" threw: ${textOf(error)}`);
    }
    if (typeof score !== 'number' || !Number.isFinite(score)) {
      const shown = typeof score === 'number' ? String(score) : `a value of type ${typeof score}`;
      return rewardFailure('not a number', `reward "${name}" returned ${shown}, not a finite number`);
    }
    scores[name] = score;
    total += weight * score;
  }
  if (!Number.isFinite(total)) {
    return rewardFailure('not a number', `the weighted rewards add up to ${total}`);
  }
  return { failed: false, reward: total, scores };
}
