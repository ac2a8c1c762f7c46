import { assert } from '../lib/assert.js';
import { childKey, rolloutKey } from '../lib/prng.js';
import type { EnvironmentFailure, EnvironmentPool } from './environment-pool.js';
import type { Action, Environment, Episode, Json, Task, Turn } from './task.js';
import { isMultiTurn } from './task.js';

/**
 * What an environment draws from in one rollout: a safe whole number that depends on the run's seed, the task's key
 * and the sample's index alone, and shares nothing with the key the tokens are sampled by.
 */
export function environmentSeed(runSeed: number, taskKey: string, sampleIndex: number): number {
  const [high, low] = childKey(rolloutKey(runSeed, taskKey, sampleIndex), 'environment');
  return (high >>> 11) * 2 ** 32 + low;
}

/**
 * Why an episode ended: the environment said so (`terminated`, `truncated`), the model had no room for another turn
 * (`length`), the caller's bound on turns was reached (`turns`), somebody gave it up (`abort`), or the environment
 * failed (`error`).
 */
export type StopCondition = 'terminated' | 'truncated' | 'length' | 'turns' | 'abort' | 'error';

/** A whole episode as it went; plain data. */
export interface EpisodeRecord {
  /** What `reset` showed, behind the task's prompt. */
  readonly opening: string;
  /** A turn that was never answered has an empty observation. */
  readonly turns: readonly Turn[];
  /** The environment's last state; null before there is one. */
  readonly state: Json;
  readonly stopCondition: StopCondition;
  /** Why the environment failed, or where it was given up. */
  readonly failure: EnvironmentFailure | null;
  /** The environment's own time, `reset` and all steps. */
  readonly environmentMs: number;
}

export interface EpisodeOptions {
  readonly rolloutId: string;
  readonly environment: Environment;
  readonly pool: Pick<EnvironmentPool, 'reset' | 'step'>;
  readonly task: Task;
  /** From `environmentSeed`. */
  readonly seed: number;
  /** Longest episode, whatever the environment says. */
  readonly turnsMax: number;
  readonly signal?: AbortSignal;
  /** Goes on with this episode, which ended for want of turns or room, instead of opening a new one. */
  readonly from?: EpisodeRecord;
  /**
   * The model's next turn after an observation it has not read yet (at first, what `reset` showed); null when it has
   * no room for another. What it rejects with, `playEpisode` rejects with.
   */
  readonly generate: (observation: string, turn: number) => Promise<Action | null>;
}

/** What a failed or unfinished beginning leaves. */
const NOTHING_YET = { opening: '', turns: [], state: null, failure: null, environmentMs: 0 } as const;

/**
 * Plays one episode from its prompt to its end. An environment's failure ends it with stop condition `error`, its
 * turns and the reason kept. A turn that was cut at the token limit is an action like any other: what to make of a
 * half-written one is the environment's affair.
 */
export async function playEpisode(options: EpisodeOptions): Promise<EpisodeRecord> {
  const { environment, pool, rolloutId, signal, generate, turnsMax } = options;
  assert(turnsMax >= 1, `turnsMax is ${turnsMax}`);
  if (!isMultiTurn(environment)) return playSingleTurn(generate);
  const context = { seed: options.seed };
  let record = options.from ?? (await openEpisode(options));
  if (record.failure !== null) return record;
  assert(['turns', 'length'].includes(record.stopCondition), `the episode is over: ${record.stopCondition}`);
  while (record.turns.length < turnsMax) {
    const observation = record.turns.at(-1)?.observation ?? record.opening;
    const action = await generate(observation, record.turns.length);
    if (action === null) return { ...record, stopCondition: 'length' };
    const unanswered = [...record.turns, unansweredTurn(action)];
    if (action.finishReason === 'abort') return { ...record, turns: unanswered, stopCondition: 'abort' };
    const stepped = await pool.step({ rolloutId, action, state: record.state, context }, signal);
    if (stepped.failed) {
      return { ...record, turns: unanswered, stopCondition: stopConditionOf(stepped), failure: stepped };
    }
    const { result, environmentMs } = stepped;
    const { observation: seen, reward = 0, state, terminated, truncated } = result;
    record = {
      ...record,
      turns: [...record.turns, { action, observation: seen, reward, environmentMs }],
      state,
      environmentMs: record.environmentMs + environmentMs,
    };
    if (terminated) return { ...record, stopCondition: 'terminated' };
    if (truncated) return { ...record, stopCondition: 'truncated' };
  }
  return { ...record, stopCondition: 'turns' };
}

/** The record before the first turn. */
async function openEpisode({ pool, rolloutId, task, seed, signal }: EpisodeOptions): Promise<EpisodeRecord> {
  const opened = await pool.reset({ rolloutId, task, context: { seed } }, signal);
  if (opened.failed) return { ...NOTHING_YET, stopCondition: stopConditionOf(opened), failure: opened };
  const { result, environmentMs } = opened;
  const { observation: opening, state } = result;
  return { ...NOTHING_YET, opening, state, stopCondition: 'turns', environmentMs };
}

/** What the rewards judge; null when the model never had a turn. */
export function episodeOf(
  task: Task,
  { turns, state }: EpisodeRecord,
  environment: Environment,
): Episode | null {
  const last = turns.at(-1);
  if (last === undefined) return null;
  const { text, finishReason } = last.action;
  return isMultiTurn(environment) ? { task, text, finishReason, turns, state } : { task, text, finishReason };
}

async function playSingleTurn(generate: EpisodeOptions['generate']): Promise<EpisodeRecord> {
  const action = await generate('', 0);
  if (action === null) return { ...NOTHING_YET, stopCondition: 'length' };
  const stops = { stop: 'terminated', length: 'length', abort: 'abort' } as const;
  return { ...NOTHING_YET, turns: [unansweredTurn(action)], stopCondition: stops[action.finishReason] };
}

function unansweredTurn(action: Action): Turn {
  return { action, observation: '', reward: 0, environmentMs: 0 };
}

function stopConditionOf({ reason }: EnvironmentFailure): StopCondition {
  return reason === 'aborted' || reason === 'closed' ? 'abort' : 'error';
}
