import type { SimEvaluation } from './scenario.js';
import type { SimSequence } from './sequence.js';

/** Rollouts of a job that belong together: of a training step, or of a held-out evaluation. */
export interface Round {
  readonly sequences: readonly SimSequence[];
  /** Sequences without their reward. */
  unscored: number;
  /** Of a held-out evaluation: what then goes on. */
  readonly onScored?: () => void;
}

/** The round of a held-out evaluation; those of training steps begin at 1. */
export const EVALUATION = 0;

/** @param done of `steps` */
export function isEvaluationDue(
  { prompts, everySteps }: SimEvaluation,
  done: number,
  steps: number,
): boolean {
  if (prompts === 0) return false;
  return done === 0 || done === steps || (everySteps > 0 && done % everySteps === 0);
}
