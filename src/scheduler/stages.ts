/**
 * What a job wants to do, highest priority first; a stage's place in this list is its tier, 0 to 6. Tiers and order
 * are RLix's, so its traces and ours can be read side by side.
 */
export const STAGES = [
  /** Load the model, build what the job needs on its lanes. */
  'init',
  /** A gradient step of the policy. */
  'actorTraining',
  /** A gradient step of the value function. */
  'criticTraining',
  /** Log-probabilities under the policy that made the rollouts. */
  'oldLogProbs',
  /** Log-probabilities under the frozen reference. */
  'refLogProbs',
  /** Values of the rollouts' tokens. */
  'valueCompute',
  /** Rollouts: the only stage that can be preempted, and always can. */
  'generation',
] as const;

export type Stage = (typeof STAGES)[number];

/** A stage that is asked for, granted and given back: at most one of these holds a lane at a time. */
export type ExclusiveStage = Exclude<Stage, 'generation'>;

/** Lower goes first. */
export function tierOf(stage: Stage): number {
  return STAGES.indexOf(stage);
}

/** Generation is never asked for: it follows demand and gives way to every other stage. */
export function isExclusive(stage: Stage): stage is ExclusiveStage {
  return stage !== 'generation';
}
