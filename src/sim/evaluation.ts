import type { SimEvaluation } from './scenario.js';
import type { SimSequence } from './sequence.js';

/** A held-out evaluation under way. */
export interface Evaluation {
  readonly sequences: readonly SimSequence[];
  /** Sequences without their reward. */
  unscored: number;
  /** What then goes on. */
  readonly onScored: () => void;
}

/** The step of its sequences; those of training begin at 1. */
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
