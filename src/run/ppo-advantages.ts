import { assert, at } from '../lib/assert.js';
import { gae } from '../train/gae.js';

/** What PPO knows of one rollout before its critic and its policy are trained. */
export interface Episode {
  /** The loss mask: the positions with a weight are the steps of the episode, whatever lies between them. */
  readonly weights: Float32Array;
  /** Of the state at each position, aligned as `weights`. */
  readonly values: Float32Array;
  /** Of the whole rollout; its last step gets it. */
  readonly reward: number;
}

/** Lists are aligned as each episode's weights, and 0 where that is 0. */
export interface PpoEstimates {
  /** Whitened: mean 0 and standard deviation 1 over all steps. */
  readonly advantages: readonly Float32Array<ArrayBuffer>[];
  readonly returns: readonly Float32Array<ArrayBuffer>[];
  /** Over all steps; of the advantages before they were whitened. */
  readonly means: { readonly advantage: number; readonly value: number; readonly return: number };
  /** 1 − Var(return − value) / Var(return); null where the returns do not vary. */
  readonly explainedVariance: number | null;
}

/** Keeps a batch whose advantages hardly differ from blowing up. */
const VARIANCE_FLOOR = 1e-8;

/**
 * Advantages and returns of a batch by generalised advantage estimation, the advantages whitened over the batch as TRL
 * and verl do it. A rollout that was cut off at its longest counts as ended: it has its reward, and nothing follows.
 */
export function ppoEstimates(episodes: readonly Episode[], gamma: number, lambda: number): PpoEstimates {
  const estimated = episodes.map(({ weights, values, reward }) => {
    const steps = stepsOf(weights);
    assert(values.length === weights.length, `${values.length} values, ${weights.length} weights`);
    const stepValues = steps.map((position) => at(values, position));
    const rewards = steps.map((_, step) => (step + 1 === steps.length ? reward : 0));
    return { steps, stepValues, length: weights.length, ...gae(rewards, stepValues, gamma, lambda) };
  });
  const advantages = estimated.flatMap((episode) => [...episode.advantages]);
  const returns = estimated.flatMap((episode) => [...episode.returns]);
  const values = estimated.flatMap(({ stepValues }) => stepValues);
  const mean = meanOf(advantages);
  const scale = 1 / Math.sqrt(varianceOf(advantages) + VARIANCE_FLOOR);
  const spread = varianceOf(returns);
  const missed = returns.map((expected, step) => expected - at(values, step));
  return {
    advantages: estimated.map(({ steps, length, advantages: own }) =>
      spreadOut(steps, length, (step) => (at(own, step) - mean) * scale),
    ),
    returns: estimated.map(({ steps, length, returns: own }) =>
      spreadOut(steps, length, (step) => at(own, step)),
    ),
    means: { advantage: mean, value: meanOf(values), return: meanOf(returns) },
    explainedVariance: spread === 0 ? null : 1 - varianceOf(missed) / spread,
  };
}

/** Positions with a weight, ascending. */
function stepsOf(weights: Float32Array): number[] {
  return [...weights.keys()].filter((position) => weights[position] !== 0);
}

function spreadOut(
  steps: readonly number[],
  length: number,
  of: (step: number) => number,
): Float32Array<ArrayBuffer> {
  const list = new Float32Array(length);
  for (const [step, position] of steps.entries()) list[position] = of(step);
  return list;
}

function meanOf(numbers: readonly number[]): number {
  return numbers.reduce((sum, number) => sum + number, 0) / numbers.length;
}

function varianceOf(numbers: readonly number[]): number {
  const mean = meanOf(numbers);
  return numbers.reduce((sum, number) => sum + (number - mean) ** 2, 0) / numbers.length;
}
