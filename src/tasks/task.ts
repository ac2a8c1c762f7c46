import type { FinishReason } from '../engine/sequence.js';

export type { FinishReason };

/** What crosses threads and goes into files: plain data, no functions. */
export type Json = null | boolean | number | string | readonly Json[] | { readonly [key: string]: Json };

export type Split = 'train' | 'heldout';

/** One problem to solve. */
export interface Task<I extends Json = Json> {
  /** Names the problem: equal keys mean the same problem. Sampling and the split depend on it. */
  readonly key: string;
  readonly prompt: string;
  /** What the rewards need to know and the model must not see. */
  readonly info: I;
}

/** What a reward function judges: the whole of one finished rollout. */
export interface Episode<I extends Json = Json> {
  readonly task: Task<I>;
  /** The completion, without special tokens. */
  readonly text: string;
  readonly finishReason: FinishReason;
}

/** A finite number; anything else, or a throw, marks this rollout as failed. Higher is better. */
export type RewardFunction<I extends Json = Json> = (episode: Episode<I>) => number | Promise<number>;

/** `weight` is this score's share in the rollout's reward, Σ weight · score; weight 0 makes it a metric only. */
export interface Reward<I extends Json = Json> {
  readonly fn: RewardFunction<I>;
  readonly weight: number;
}

/** A worked example to learn from by imitation. */
export interface Example {
  readonly prompt: string;
  readonly completion: string;
}

/**
 * A world of tasks and how they are judged. One turn today: prompt, completion, rewards. Turns can be added as
 * optional members without changing what is here, since everything a rollout needs to be moved or resumed is Json.
 */
export interface Environment<I extends Json = Json> {
  readonly id: string;
  /** Changes whenever the same seed would give other tasks or the same text another reward. */
  readonly version: string;
  /** `train` never ends. `heldout` gives each task at most once and ends when there is no other. */
  tasks(options: { readonly split: Split; readonly seed: number }): Iterable<Task<I>>;
  readonly rewards: Readonly<Record<string, Reward<I>>>;
  /** Every character a prompt or a good completion holds, once each; what a character tokenizer needs. */
  readonly alphabet?: string;
  /**
   * Endless examples for supervised pre-training, of the train split only, in which each written digit or word
   * is wrong with probability `sloppiness` (0 to 1).
   */
  corpus?(options: { readonly seed: number; readonly sloppiness: number }): Iterable<Example>;
}

/** What a task module exports under the name `createEnvironment`. */
export type EnvironmentFactory<I extends Json = Json> = (
  options: Json,
) => Environment<I> | Promise<Environment<I>>;

/**
 * Enough to build the same environment in any thread: functions do not cross threads, so the module that makes
 * them is named instead.
 */
export interface EnvironmentRef {
  /** The URL of a module that exports `createEnvironment`. */
  readonly module: string;
  readonly options: Json;
}
