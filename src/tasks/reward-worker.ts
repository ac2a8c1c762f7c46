import { AsyncLocalStorage } from 'node:async_hooks';
import { Console } from 'node:console';
import { errorText } from '../lib/errors.js';
import { loadEnvironment } from './load-environment.js';
import { rewardFailure, type RewardResult } from './reward-result.js';
import type { Environment, EnvironmentRef, Episode } from './task.js';

/** What the reward pool sends to a worker, one rollout at a time. */
export interface ScoreMessage {
  readonly environment: EnvironmentRef;
  readonly episode: Episode;
  /** Shared; the worker stores the time at which it begins to score. */
  readonly startedNs: BigInt64Array;
}

// Standard output carries results of the command line; what a reward function prints goes to standard error.
globalThis.console = new Console(process.stderr, process.stderr);

interface Scoring {
  readonly fail: (error: unknown) => void;
}

/** Follows a scoring into everything it starts, so that an error thrown from a timer finds its rollout. */
const scorings = new AsyncLocalStorage<Scoring>();
let running: Scoring | undefined;

// Without this, a stray error would end the worker and with it whichever rollout is being scored by then. An error
// that comes after its own rollout was answered changes nothing any more.
process.on('uncaughtException', (error) => {
  const scoring = scorings.getStore() ?? running;
  if (scoring === undefined) throw error;
  scoring.fail(error);
});

let environment: Promise<Environment> | undefined;

/** Scores one rollout. A reward function's failure is a result, not an error: this does not reject. */
export async function scoreRollout(message: ScoreMessage): Promise<RewardResult> {
  try {
    environment ??= loadEnvironment(message.environment);
    const { rewards } = await environment;
    Atomics.store(message.startedNs, 0, process.hrtime.bigint());
    return await new Promise<RewardResult>((resolve, reject) => {
      running = { fail: reject };
      scorings.run(running, () => {
        evaluate(rewards, message.episode).then(resolve, reject);
      });
    });
  } catch (error) {
    return rewardFailure('threw', textOf(error));
  } finally {
    running = undefined;
  }
}

async function evaluate(rewards: Environment['rewards'], episode: Episode): Promise<RewardResult> {
  const scores: Record<string, number> = {};
  let total = 0;
  for (const [name, { fn, weight }] of Object.entries(rewards)) {
    let score: unknown;
    try {
      score = await fn(episode);
    } catch (error) {
      return rewardFailure('threw', `reward "${name}" threw: ${textOf(error)}`);
    }
    if (typeof score !== 'number' || !Number.isFinite(score)) {
      const shown = typeof score === 'number' ? String(score) : `a value of type ${typeof score}`;
      return rewardFailure('not a number', `reward "${name}" returned ${shown}, not a finite number`);
    }
    scores[name] = score;
    total += weight * score;
  }
  if (!Number.isFinite(total)) {
    return rewardFailure('not a number', `the weighted rewards add up to ${total}`);
  }
  return { failed: false, reward: total, scores };
}

/** Anything can be thrown: what cannot be turned into text, or an error whose message is none. */
function textOf(error: unknown): string {
  try {
    return String(errorText(error));
  } catch {
    return 'something that cannot be shown as text';
  }
}
