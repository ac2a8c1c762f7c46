import type { PolicyDefinition } from '../plan.js';
import type { JobState } from '../state.js';
import { gapRatioPolicy } from './gap-ratio.js';
import { NO_OPTIONS } from './options.js';

/**
 * The gap-ratio planner over tokens instead of rollouts, times the job's weight: a job whose rollouts are ten times as
 * long gets ten times the share, which RLix, counting rollouts, does not see.
 */
export const tokenWeighted: PolicyDefinition<object> = {
  name: 'tokenWeighted',
  after: 'RLix (gap-ratio planner), over tokens',
  summary: "each job's share of lanes or slots follows its weight times the tokens that remain",
  isWorkConserving: true,
  turnsMax: 1,
  options: NO_OPTIONS,
  create: () => gapRatioPolicy(tokensLeft),
};

/** Tokens that remain, and those of a step while no engine is awake yet. */
export function tokensLeft({ demand, stepRollouts, engines, weight }: JobState): number {
  const { tokensRemaining, rollouts } = demand;
  const isAwake = engines.some((engine) => engine.status === 'awake');
  const stepTokens = (tokensRemaining / rollouts) * stepRollouts;
  // A rollout that nobody can tell the length of has at least one token to come.
  return weight * Math.max(tokensRemaining + (isAwake ? 0 : stepTokens), 1);
}
