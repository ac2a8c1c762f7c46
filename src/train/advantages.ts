/** `std` divides by the group's standard deviation (GRPO); `mean` does not (Dr. GRPO). */
export type AdvantageScale = 'std' | 'mean';

/** Keeps a group of nearly equal rewards from blowing up. */
const STANDARD_DEVIATION_FLOOR = 1e-4;

/**
 * Group-relative advantages: how much better each rollout of one prompt did than its siblings (Shao et al.,
 * "DeepSeekMath", 2024), with the sample standard deviation (n − 1), or without dividing (Liu et al., "Dr. GRPO",
 * 2025). A group whose rewards are all equal has nothing to teach: exactly 0 for each.
 */
export function groupAdvantages(rewards: readonly number[], scale: AdvantageScale): number[] {
  if (rewards.every((reward) => reward === rewards[0])) return rewards.map(() => 0);
  const mean = rewards.reduce((sum, reward) => sum + reward, 0) / rewards.length;
  const distances = rewards.map((reward) => reward - mean);
  if (scale === 'mean') return distances;
  const variance = distances.reduce((sum, distance) => sum + distance * distance, 0) / (rewards.length - 1);
  const divisor = Math.sqrt(variance) + STANDARD_DEVIATION_FLOOR;
  return distances.map((distance) => distance / divisor);
}
