/**
 * Advantages of one group's rewards. `std` is GRPO's (r − mean) / (std + 1e-4) with the sample standard deviation
 * (n − 1), as TRL computes it; `mean` is Dr. GRPO's r − mean (Liu et al. 2025). A group whose rewards are all equal,
 * one of a single rollout too, teaches nothing: exactly zero.
 */
export function groupAdvantages(rewards: readonly number[], mode: 'std' | 'mean'): number[] {
  if (rewards.every((reward) => reward === rewards[0])) return rewards.map(() => 0);
  const mean = rewards.reduce((total, reward) => total + reward, 0) / rewards.length;
  const centred = rewards.map((reward) => reward - mean);
  if (mode === 'mean') return centred;
  const squares = centred.reduce((total, value) => total + value * value, 0);
  const std = Math.sqrt(squares / (rewards.length - 1));
  return centred.map((value) => value / (std + 1e-4));
}
