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

/** What the model wrote in one turn. */
export interface Action {
  /** Without special tokens; a stop text that ended the turn is part of it. */
  readonly text: string;
  readonly finishReason: FinishReason;
}

/** One turn: what the model did and what came of it. */
export interface Turn {
  readonly action: Action;
  /** What the environment answered. After the last turn it is on record only; no model reads it. */
  readonly observation: string;
  /** 0 where the environment gave none. */
  readonly reward: number;
  /** The environment's own time for this turn: its code, and the wait it asked for. */
  readonly environmentMs: number;
}

/** What a reward function judges: the whole of one finished rollout. */
export interface Episode<I extends Json = Json> {
  readonly task: Task<I>;
  /** The completion, without special tokens; where there were several turns, that of the last. */
  readonly text: string;
  readonly finishReason: FinishReason;
  /** Absent in environments of a single turn. */
  readonly turns?: readonly Turn[];
  /** The environment's last state; absent in environments of a single turn. */
  readonly state?: Json;
}

/** What an environment may draw on beside its state. */
export interface EnvironmentContext {
  /** A safe whole number, a function of (run seed, task key, sample index); the same in every turn of a rollout. */
  readonly seed: number;
}

export interface ResetResult<S extends Json = Json> {
  /** Text the model reads next; may be empty. */
  readonly observation: string;
  /** All the environment has to remember. It is sent between threads and kept in files, always as JSON. */
  readonly state: S;
  /** How long the answer really takes beyond the call itself: the pool lets that time pass, and holds no thread. */
  readonly waitMs?: number;
}

export interface StepResult<S extends Json = Json> extends ResetResult<S> {
  /** This turn's share; what it counts for is up to the environment's `rewards`. */
  readonly reward?: number;
  /** The episode came to its own end. */
  readonly terminated: boolean;
  /** The environment cut the episode off. */
  readonly truncated: boolean;
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
 * A world of tasks and how they are judged. Without `step` an episode is one turn: prompt, completion, rewards. With
 * it, the model's completions and the environment's observations take turns; `reset` opens an episode, and what it
 * shows stands behind the task's prompt (which all rollouts of a group share). Both are pure functions of what they
 * are given, so that a rollout can be stopped, kept in a file and go on in another thread.
 */
export interface Environment<I extends Json = Json, S extends Json = Json> {
  readonly id: string;
  /** Changes whenever the same seed would give other tasks or the same text another reward. */
  readonly version: string;
  /** `train` never ends. `heldout` gives each task at most once and ends when there is no other. */
  tasks(options: { readonly split: Split; readonly seed: number }): Iterable<Task<I>>;
  readonly rewards: Readonly<Record<string, Reward<I>>>;
  /** Comes with `step`. A throw ends the rollout with stop condition `error`. */
  reset?(task: Task<I>, context: EnvironmentContext): ResetResult<S> | Promise<ResetResult<S>>;
  /** Absent in environments of a single turn. A throw ends the rollout with stop condition `error`. */
  step?(action: Action, state: S, context: EnvironmentContext): StepResult<S> | Promise<StepResult<S>>;
  /** Texts that end a turn beside the end-of-sequence token, and stay in it; each one token of the model. */
  readonly stops?: readonly string[];
  /** Every character a prompt, an observation or a good completion holds, once each, for a character tokenizer. */
  readonly alphabet?: string;
  /**
   * Endless examples for supervised pre-training, of the train split only, in which each written digit or word
   * is wrong with probability `sloppiness` (0 to 1). An example of a later turn has all before it as its prompt.
   */
  corpus?(options: { readonly seed: number; readonly sloppiness: number }): Iterable<Example>;
}

/** An environment whose episodes have turns. */
export type MultiTurnEnvironment<I extends Json = Json, S extends Json = Json> = Environment<I, S> &
  Required<Pick<Environment<I, S>, 'reset' | 'step'>>;

export function isMultiTurn(environment: Environment): environment is MultiTurnEnvironment {
  return environment.step !== undefined && environment.reset !== undefined;
}

/** What the rewards of all turns add up to; 0 in environments of a single turn. */
export function sumOfTurnRewards(episode: { readonly turns?: readonly Turn[] }): number {
  return (episode.turns ?? []).reduce((sum, turn) => sum + turn.reward, 0);
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
