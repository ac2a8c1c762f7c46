import { allTokens, type Observation } from '../engine/episode.js';
import {
  type FinishReason,
  type GeneratedTokens,
  noTokens,
  type SequenceRequest,
} from '../engine/sequence.js';
import type { SamplingParams } from '../kernels/output-head.js';
import { rolloutKey } from '../lib/prng.js';
import type { EndedRollout } from '../scheduler/lengths.js';
import { environmentSeed, type EpisodeRecord } from '../tasks/episode.js';
import type { RewardResult } from '../tasks/reward-result.js';
import type { Task } from '../tasks/task.js';

/** Where a rollout's tokens ended up. */
export type Fate = 'trained' | 'aborted' | 'expired' | 'filtered';

/** What all rollouts of a kind have in common. */
export interface RolloutKind {
  readonly seed: number;
  readonly tokensMax: number;
  readonly sampling: SamplingParams;
  readonly stopTokenIds: readonly number[];
}

/** What makes a rollout one of several turns. */
export interface RolloutEpisode {
  /** What its environment draws from. */
  readonly seed: number;
  /** What the model read between its own tokens, the opening of `reset` included. */
  readonly observations: Observation[];
  /** By turn that is over: how many tokens were sampled by its end. */
  readonly turnEnds: number[];
  /** Tokens sampled by the end of the present turn at most. */
  tokensMax: number;
  /** How it went; null until it is over. */
  record: EpisodeRecord | null;
}

/** One whole episode of a task: a completion of its prompt, or several with the environment's answers in between. */
export interface Rollout {
  readonly id: number;
  readonly group: Group;
  readonly sampleIndex: number;
  /** As it began; `tokensMax` is that of all turns together. */
  readonly request: SequenceRequest;
  /** Everything the host has heard of, whichever lanes it came from. */
  readonly generated: GeneratedTokens;
  /** Absent in tasks of a single turn. */
  readonly episode?: RolloutEpisode;
  /** Where it runs or is parked; null while it waits. */
  lane: number | null;
  /** Every lane it was given to, in order. */
  readonly lanes: number[];
  /** How it ended; of an episode, how its last turn did. */
  finishReason: FinishReason | null;
  /** When the host heard of its end, on lib/clock. */
  finishedMs: number | null;
  reward: RewardResult | null;
  /** Null while it is in flight: unfinished, or finished and waiting to be used. */
  fate: Fate | null;
}

/** The n rollouts of one prompt. */
export interface Group {
  readonly task: Task;
  /** The training step it is for; 0 for held-out prompts. */
  readonly step: number;
  readonly promptTokenIds: readonly number[];
  readonly rollouts: readonly Rollout[];
  /** Resolves when every rollout has come to its end; rewards come later. */
  readonly finished: Promise<void>;
  /** Resolves when every rollout has its reward. */
  readonly scored: Promise<void>;
}

/** A rollout that has not begun; `isEpisode` where its task has turns. */
export function newRollout(
  id: number,
  group: Group,
  sampleIndex: number,
  kind: RolloutKind & { readonly isEpisode: boolean },
): Rollout {
  const { key } = group.task;
  const { seed, tokensMax, sampling, stopTokenIds } = kind;
  const request: SequenceRequest = {
    id,
    promptTokenIds: group.promptTokenIds,
    generated: noTokens(),
    tokensMax,
    sampling,
    key: rolloutKey(seed, key, sampleIndex),
    stopTokenIds,
  };
  const rollout: Rollout = {
    id,
    group,
    sampleIndex,
    request,
    generated: noTokens(),
    lane: null,
    lanes: [],
    finishReason: null,
    finishedMs: null,
    reward: null,
    fate: null,
  };
  if (!kind.isEpisode) return rollout;
  const environmentKey = environmentSeed(seed, key, sampleIndex);
  return {
    ...rollout,
    episode: { seed: environmentKey, observations: [], turnEnds: [], tokensMax: 0, record: null },
  };
}

/** Prompt, observations and sampled tokens of a rollout, in the order the model has them. */
export function transcriptOf({ group, generated, episode }: Rollout): number[] {
  return allTokens(group.promptTokenIds, generated.tokenIds, episode?.observations ?? []);
}

/** How long it was; what the model read between its own tokens counts as its prompt. */
export function endedRollout({ group, generated, episode }: Rollout): EndedRollout {
  const read = (episode?.observations ?? []).reduce((sum, { tokenIds }) => sum + tokenIds.length, 0);
  return { promptTokens: group.promptTokenIds.length + read, tokens: generated.tokenIds.length };
}

/** First version a rollout's tokens were sampled under: its staleness is counted from it. */
export function oldestVersion(rollout: Rollout): number {
  const { versions } = rollout.generated;
  return versions.length === 0 ? Infinity : Math.min(...versions);
}
