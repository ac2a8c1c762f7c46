import type { Turn, TurnEnd } from '../engine/episode.js';
import { errorText, toError } from '../lib/errors.js';
import type { Tokenizer } from '../model/tokenizer.js';
import { shortLine } from '../tasks/any-error.js';
import type { EnvironmentOutcome, EnvironmentPool } from '../tasks/environment-pool.js';
import { episodeOf, type EpisodeRecord, playEpisode } from '../tasks/episode.js';
import type { RewardFailureReason, RewardResult } from '../tasks/reward-result.js';
import { rewardFailure } from '../tasks/reward-result.js';
import type { Action, Environment, Episode, ResetResult } from '../tasks/task.js';
import { type Rollout, type RolloutEpisode, transcriptOf } from './rollout.js';

/** How far a rollout of several turns may go. */
export interface TurnLimits {
  readonly turnsMax: number;
  /** Tokens sampled in one turn at most. */
  readonly turnTokensMax: number;
  /** Prompt, observations and sampled tokens of one rollout at most. */
  readonly contextTokensMax: number;
}

/** It came to an end that was not its own: out of room or turns, or cut off by its environment. */
export function isTruncated({ stopCondition }: EpisodeRecord): boolean {
  return stopCondition === 'truncated' || stopCondition === 'length' || stopCondition === 'turns';
}

export interface EpisodePlayerParts {
  readonly environment: Environment;
  readonly pool: Pick<EnvironmentPool, 'reset' | 'step'>;
  readonly tokenizer: Tokenizer;
  readonly limits: TurnLimits;
  /** A bug, not an environment's failure. */
  readonly onFailed: (error: Error) => void;
}

/** Puts the rollout in line for its next turn; resolves when that is over and its tokens are in. */
export type SampleTurn = (turn: Turn) => Promise<TurnEnd>;

/**
 * Plays rollouts of several turns: whatever the environment says is read by the model as tokens, and what the model
 * samples is told to the environment as text. The host keeps the transcript, append-only, so that any lane can go on
 * with it. Environments run in the pool's threads; nothing here waits on one of them but the rollout itself.
 */
export class EpisodePlayer {
  constructor(private readonly parts: EpisodePlayerParts) {}

  /**
   * From `reset` to the end. Never rejects: an environment that fails, or says what the tokenizer has no tokens for,
   * ends its rollout with stop condition `error`. Null when the run ended first, and after a bug.
   */
  async play(rollout: Rollout, episode: RolloutEpisode, sample: SampleTurn): Promise<EpisodeRecord | null> {
    const { environment, limits, onFailed } = this.parts;
    try {
      const record = await playEpisode({
        rolloutId: String(rollout.id),
        environment,
        pool: this.#readable(),
        task: rollout.group.task,
        seed: episode.seed,
        turnsMax: limits.turnsMax,
        generate: (observation) => this.#turn(rollout, episode, this.#encode(observation), sample),
      });
      return record.stopCondition === 'abort' ? null : record;
    } catch (error) {
      onFailed(toError(error));
      return null;
    }
  }

  /** One turn of the model, or null where there is no room for one. */
  async #turn(
    rollout: Rollout,
    episode: RolloutEpisode,
    tokenIds: readonly number[],
    sample: SampleTurn,
  ): Promise<Action | null> {
    const { limits, tokenizer } = this.parts;
    const before = [...transcriptOf(rollout), ...tokenIds];
    const sampled = rollout.generated.tokenIds.length;
    const tokensMax = Math.min(
      limits.turnTokensMax,
      rollout.request.tokensMax - sampled,
      limits.contextTokensMax - before.length,
    );
    if (tokensMax < 1) return null;
    if (tokenIds.length > 0) episode.observations.push({ after: sampled, tokenIds });
    episode.tokensMax = sampled + tokensMax;
    const finishReason = await sample({ tokenIds, tokensMax });
    const text = tokenizer.decode(rollout.generated.tokenIds.slice(sampled), before);
    return { text, finishReason };
  }

  #encode(observation: string): number[] {
    return observation === '' ? [] : this.parts.tokenizer.encode(observation, { specialTokens: false });
  }

  /** The pool, with an observation that the model cannot be given as the environment's failure. */
  #readable(): EpisodePlayerParts['pool'] {
    const { pool } = this.parts;
    return {
      reset: async (request, signal) =>
        this.#checked(request.rolloutId, 'reset', await pool.reset(request, signal)),
      step: async (request, signal) => {
        const outcome = await pool.step(request, signal);
        const isLast = !outcome.failed && (outcome.result.terminated || outcome.result.truncated);
        // What comes after the last turn no model reads.
        return isLast ? outcome : this.#checked(request.rolloutId, 'step', outcome);
      },
    };
  }

  #checked<R extends ResetResult>(
    rolloutId: string,
    phase: 'reset' | 'step',
    outcome: EnvironmentOutcome<R>,
  ): EnvironmentOutcome<R> {
    if (outcome.failed) return outcome;
    try {
      this.#encode(outcome.result.observation);
      return outcome;
    } catch (error) {
      const message = shortLine(`rollout ${rolloutId}: ${phase}: its observation: ${errorText(error)}`);
      return { failed: true, phase, reason: 'malformed', message };
    }
  }
}

/** What the rewards judge of a finished rollout, or why there is nothing to judge. */
export function judged(
  rollout: Rollout,
  environment: Environment,
  tokenizer: Tokenizer,
): Episode | Extract<RewardResult, { failed: true }> {
  const { group, generated, finishReason, episode } = rollout;
  if (episode === undefined) {
    const text = tokenizer.decode(generated.tokenIds, group.promptTokenIds);
    return { task: group.task, text, finishReason: finishReason ?? 'abort' };
  }
  const { record } = episode;
  if (record === null) return rewardFailure('closed', `rollout ${rollout.id}: its episode has no end`);
  const { failure } = record;
  if (failure !== null) return rewardFailure(REWARD_FAILURES[failure.reason], failure.message);
  return (
    episodeOf(group.task, record, environment) ??
    rewardFailure(
      'threw',
      `rollout ${rollout.id}: the model never had a turn: prompt and opening leave no room`,
    )
  );
}

/** An environment's failures among those of rewards: the message says the rest. */
const REWARD_FAILURES = {
  threw: 'threw',
  malformed: 'threw',
  'timed out': 'timed out',
  'waited too long': 'timed out',
  exited: 'exited',
  closed: 'closed',
  aborted: 'closed',
} as const satisfies Record<string, RewardFailureReason>;
