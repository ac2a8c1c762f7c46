/** How a turn ends: on a stop id, or at its limit of tokens. */
export type TurnEnd = 'stop' | 'length';

/** Tokens an environment put into a sequence: read, never sampled. */
export interface Observation {
  /** Tokens sampled before it. */
  readonly after: number;
  readonly tokenIds: readonly number[];
}

/** What makes a sequence one of several turns, beyond the tokens it sampled. */
export interface Episode {
  /** In the order of the tokens. */
  readonly observations: readonly Observation[];
  /** How the last turn ended, while the environment thinks; null in the middle of a turn. */
  readonly turnEnd: TurnEnd | null;
}

/** What the environment answers, and how far the sequence may go on from there. */
export interface Turn {
  /** Observation tokens; none to go on as if the turn had not ended. */
  readonly tokenIds: readonly number[];
  /** Tokens sampled in this turn at most. */
  readonly tokensMax: number;
}

/** An episode whose first turn begins at its prompt. */
export function newEpisode(): Episode {
  return { observations: [], turnEnd: null };
}

/** Prompt, sampled and observed tokens as they follow each other in the sequence. */
export function allTokens(
  promptTokenIds: readonly number[],
  sampledTokenIds: readonly number[],
  observations: readonly Observation[],
): number[] {
  const parts = [promptTokenIds];
  let sampled = 0;
  for (const { after, tokenIds } of observations) {
    parts.push(sampledTokenIds.slice(sampled, after), tokenIds);
    sampled = after;
  }
  return [...parts, sampledTokenIds.slice(sampled)].flat();
}

/** One entry a token, parallel to `allTokens`: 1 where it was sampled, 0 in the prompt and in observations. */
export function lossMask(
  promptTokens: number,
  sampledTokens: number,
  observations: readonly Observation[],
): Uint8Array<ArrayBuffer> {
  const marks = (count: number, mark: number): number[] => new Array<number>(count).fill(mark);
  const unmarked = observations.map(({ after, tokenIds }) => ({
    after,
    tokenIds: marks(tokenIds.length, 0),
  }));
  return Uint8Array.from(allTokens(marks(promptTokens, 0), marks(sampledTokens, 1), unmarked));
}
