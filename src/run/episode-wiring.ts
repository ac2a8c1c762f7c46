import { EnvironmentPool } from '../tasks/environment-pool.js';
import { EpisodePlayer } from './episodes.js';
import type { JobFleet } from './job-fleet.js';
import type { Prepared } from './prepare.js';
import type { EpisodeEvents } from './rollouts.js';
import { sent } from './sent.js';

const CALLS_QUEUED_MAX = 65_536;

/** The workers of a job's task: they score its rollouts, and where those have turns they are its environments. */
export function openEnvironmentPool({
  config,
  opened,
}: Pick<Prepared, 'config' | 'opened'>): EnvironmentPool {
  const { reward, environment } = config;
  return new EnvironmentPool({
    environment: opened.ref,
    workersMax: reward.workers,
    timeoutMs: reward.timeoutMs,
    queueMax: CALLS_QUEUED_MAX,
    resetTimeoutMs: environment.timeoutMs,
    stepTimeoutMs: environment.timeoutMs,
    waitMsMax: environment.waitMsMax,
  });
}

/** What a job's rollout pool needs for a task of several turns; nothing where rollouts have one. */
export function episodeEvents(
  { opened, tokenizer, turns }: Pick<Prepared, 'opened' | 'tokenizer' | 'turns'>,
  pool: EnvironmentPool,
  fleet: Pick<JobFleet, 'extend' | 'finish'>,
  onFailed: (error: Error) => void,
): { readonly episodes?: EpisodeEvents } {
  if (turns === null) return {};
  const { environment } = opened;
  const player = new EpisodePlayer({ environment, pool, tokenizer, limits: turns, onFailed });
  return {
    episodes: {
      play: (rollout, episode, sample) => player.play(rollout, episode, sample),
      extend: (lane, list) => sent(fleet.extend(lane, list), onFailed),
      finish: (lane, ids) => sent(fleet.finish(lane, ids), onFailed),
    },
  };
}
