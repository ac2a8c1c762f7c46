import type { SequenceRequest } from '../engine/sequence.js';
import type { EpisodeTurn } from '../lanes/messages.js';
import type { EpisodeRecord } from '../tasks/episode.js';
import type { RewardResult } from '../tasks/reward-result.js';
import type { SampleTurn } from './episodes.js';
import type { Rollout, RolloutEpisode } from './rollout.js';

/** What a pool of rollouts asks of the world. */
export interface RolloutEvents {
  /** Sends sequences to a lane's engine. */
  readonly send: (lane: number, sequences: readonly SequenceRequest[]) => void;
  /** Ends sequences of a lane's engine early. */
  readonly abort?: (lane: number, ids: readonly number[]) => void;
  /** Where rollouts have several turns. */
  readonly episodes?: EpisodeEvents;
  /** Scores a finished rollout; never rejects. */
  readonly score: (rollout: Rollout) => Promise<RewardResult>;
  /** The number of outstanding rollouts or of free places changed. */
  readonly changed: () => void;
}

/** Who wants to know of single rollouts of a group. */
export interface GroupListener {
  /** It has come to its end; its reward comes later. */
  readonly finished: (rollout: Rollout) => void;
  readonly scored: (rollout: Rollout) => void;
}

export interface EpisodeEvents {
  /** Plays a rollout's episode to its end; null when the run ends first. Never rejects. */
  readonly play: (
    rollout: Rollout,
    episode: RolloutEpisode,
    sample: SampleTurn,
  ) => Promise<EpisodeRecord | null>;
  /** Episodes parked on the lane go on there. */
  readonly extend: (lane: number, turns: readonly EpisodeTurn[]) => void;
  /** Episodes parked on the lane are over there. */
  readonly finish: (lane: number, ids: readonly number[]) => void;
}
