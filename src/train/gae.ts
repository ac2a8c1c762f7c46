import { assert, at } from '../lib/assert.js';

/** One number for each step of an episode. */
export interface Estimated {
  readonly advantages: Float64Array<ArrayBuffer>;
  /** advantages + values: what a critic should have said. */
  readonly returns: Float64Array<ArrayBuffer>;
}

/**
 * Generalised advantage estimation (Schulman et al., "High-dimensional continuous control using generalized advantage
 * estimation", 2016): A_t = Σ_k (gamma · lambda)^k · δ_{t+k} with δ_t = r_t + gamma · V_{t+1} − V_t. With lambda 0 an
 * advantage looks one step ahead; with lambda 1 it is the discounted return less the value.
 *
 * @param rewards Of each step, a token for instance.
 * @param values Of the state before each step, as many.
 * @param gamma Discount of a step, 0 … 1.
 * @param lambda How far to trust rewards over values, 0 … 1.
 * @param valueAfter Of the state after the last step: 0 where the episode ended, the critic's where it was cut short.
 */
export function gae(
  rewards: ArrayLike<number>,
  values: ArrayLike<number>,
  gamma: number,
  lambda: number,
  valueAfter = 0,
): Estimated {
  assert(rewards.length === values.length, `${rewards.length} rewards and ${values.length} values`);
  assert(gamma >= 0 && gamma <= 1 && lambda >= 0 && lambda <= 1, `gamma ${gamma}, lambda ${lambda}`);
  const advantages = new Float64Array(rewards.length);
  const returns = new Float64Array(rewards.length);
  let next = valueAfter;
  let advantage = 0;
  for (let step = rewards.length - 1; step >= 0; step--) {
    const value = at(values, step);
    advantage = at(rewards, step) + gamma * next - value + gamma * lambda * advantage;
    advantages[step] = advantage;
    returns[step] = advantage + value;
    next = value;
  }
  return { advantages, returns };
}
