import type { RewardResult } from './reward-result.js';
import type {
  Action,
  EnvironmentContext,
  EnvironmentRef,
  Episode,
  Json,
  ResetResult,
  StepResult,
  Task,
} from './task.js';

/** What can be asked of an environment in a worker. */
export type Call =
  | { readonly kind: 'score'; readonly episode: Episode }
  | { readonly kind: 'reset'; readonly task: Task; readonly context: EnvironmentContext }
  | {
      readonly kind: 'step';
      readonly action: Action;
      readonly state: Json;
      readonly context: EnvironmentContext;
    };

/** What a pool sends to a worker, one call at a time. */
export interface CallMessage {
  readonly environment: EnvironmentRef;
  readonly call: Call;
  /** Shared; the worker stores the time at which it begins on the call. */
  readonly startedNs: BigInt64Array;
}

/** What a worker sends back. `failed` tells of an environment that threw, or gave what is no answer. */
export type CallAnswer =
  | { readonly kind: 'score'; readonly result: RewardResult }
  | { readonly kind: 'reset'; readonly result: ResetResult }
  | { readonly kind: 'step'; readonly result: StepResult }
  | { readonly kind: 'failed'; readonly reason: 'threw' | 'malformed'; readonly message: string };
