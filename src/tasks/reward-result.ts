import { shortLine } from './any-error.js';

/**
 * Why a rollout has no reward: its reward function threw, ran past its limit, returned something other than a
 * finite number, took its worker down (exit, out of memory), or the pool closed first.
 */
export type RewardFailureReason = 'threw' | 'timed out' | 'not a number' | 'exited' | 'closed';

export interface RewardFailure {
  readonly failed: true;
  readonly reason: RewardFailureReason;
  /** One line for people. */
  readonly message: string;
}

export interface RewardScores {
  readonly failed: false;
  /** Σ weight · score */
  readonly reward: number;
  /** By the reward's name, metrics of weight 0 included. */
  readonly scores: Readonly<Record<string, number>>;
}

export type RewardResult = RewardScores | RewardFailure;

export function rewardFailure(reason: RewardFailureReason, message: string): RewardFailure {
  return { failed: true, reason, message: shortLine(message) };
}
