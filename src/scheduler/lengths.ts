import { assert, at } from '../lib/assert.js';

/** How long a rollout was that has come to its end. */
export interface EndedRollout {
  readonly promptTokens: number;
  /** Sampled, over all its turns. */
  readonly tokens: number;
}

/** Lengths of a job's rollouts that have ended. Bounded: what is old counts less and less. */
export interface Lengths {
  readonly rollouts: number;
  /** Prompt tokens of all of them together. */
  readonly promptTokens: number;
  /** Rollouts by sampled tokens: the first of 1 at most, then of 2, of 4, of 8 and so on. */
  readonly byTokens: readonly number[];
}

/** Beyond so many, all that was counted before counts half. */
const ROLLOUTS_MAX = 4096;

export const NO_LENGTHS: Lengths = { rollouts: 0, promptTokens: 0, byTokens: [] };

export function withEnded(lengths: Lengths, ended: readonly EndedRollout[]): Lengths {
  if (ended.length === 0) return lengths;
  let { rollouts, promptTokens } = lengths;
  const byTokens = [...lengths.byTokens];
  for (const each of ended) {
    assert(
      each.tokens >= 0 && each.promptTokens >= 0,
      `a rollout of ${each.promptTokens} and ${each.tokens} tokens`,
    );
    const bin = Math.ceil(Math.log2(Math.max(1, each.tokens)));
    while (byTokens.length <= bin) byTokens.push(0);
    byTokens[bin] = at(byTokens, bin) + 1;
    rollouts++;
    promptTokens += each.promptTokens;
  }
  const share = rollouts > ROLLOUTS_MAX ? 0.5 : 1;
  return {
    rollouts: rollouts * share,
    promptTokens: promptTokens * share,
    byTokens: byTokens.map((n) => n * share),
  };
}

/** Share of the rollouts that sampled more than 2^power tokens; 0 where none has ended. */
export function shareLonger({ rollouts, byTokens }: Lengths, power: number): number {
  if (rollouts === 0) return 0;
  return byTokens.slice(power + 1).reduce((sum, count) => sum + count, 0) / rollouts;
}

/** Mean prompt of the rollouts; 0 where none has ended. */
export function promptTokensMean({ rollouts, promptTokens }: Lengths): number {
  return rollouts === 0 ? 0 : promptTokens / rollouts;
}
