import type { SampledToken, SamplingParams } from '../kernels/output-head.js';
import { assert } from '../lib/assert.js';
import type { Key } from '../lib/prng.js';
import { allTokens, type Episode, type Observation, type Turn, type TurnEnd } from './episode.js';

/** Why a sequence ended; the words are vLLM's. */
export type FinishReason = TurnEnd | 'abort';

/** What a sequence has produced so far. All arrays have one entry a token and grow together. */
export interface GeneratedTokens {
  readonly tokenIds: number[];
  /** Under the distribution really sampled from: temperature and filters applied. */
  readonly logprobs: number[];
  /** Under the raw logits: temperature 1, no filters. */
  readonly rawLogprobs: number[];
  /** Version of the weights each token was sampled under. */
  readonly versions: number[];
}

export function noTokens(): GeneratedTokens {
  return { tokenIds: [], logprobs: [], rawLogprobs: [], versions: [] };
}

/**
 * One token stream to generate. The tokens are a function of (weights, prompt, sampling, key) alone: neither the
 * other sequences of the batch nor slicing nor preemption changes a bit of them.
 */
export interface SequenceRequest {
  /** Unique among the sequences an engine holds. */
  readonly id: number;
  readonly promptTokenIds: readonly number[];
  /** Tokens another engine produced before this one took over; they are read again, not sampled again. */
  readonly generated: GeneratedTokens;
  /** Tokens sampled at most, those already generated counted; of an episode, by the end of its present turn. */
  readonly tokensMax: number;
  readonly sampling: SamplingParams;
  /** Randomness of the draw at a position is threefry(key, position). */
  readonly key: Key;
  readonly stopTokenIds: readonly number[];
  /**
   * Present when the sequence is one of several turns: a stop id or `tokensMax` ends a turn of it and not the sequence,
   * which then waits for `Engine.extend` or `Engine.finish`.
   */
  readonly episode?: Episode;
}

/** A sequence taken out before its end: what a request must say instead of what it said, to go on in any engine. */
export type EvictedSequence = Pick<SequenceRequest, 'id' | 'generated' | 'tokensMax' | 'episode'>;

/** A sequence inside the engine. Positions count from the first prompt token. */
export class Sequence {
  readonly generated: GeneratedTokens;
  /** Tokens the host knew when it was last admitted: prompt, and what was generated and observed by then. */
  knownTokens: readonly number[];
  /** The row of the next position to be put in a batch. All before it are in the cache, wherever that is. */
  nextPosition = 0;
  /** Draws put in a batch whose tokens the host has not taken in yet. */
  drawsInFlight = 0;
  /** Its place in the order of arrival. */
  arrival = -1;
  slot = -1;
  /** Tells this stay in the slot from earlier ones; never 0. */
  serial = 0;
  blocks: readonly number[] = [];
  finished: FinishReason | null = null;
  /** How its last turn ended, while its environment thinks. */
  turnEnd: TurnEnd | null;
  readonly #observations: Observation[];
  #observedTokens: number;
  /** Tokens sampled by the end of this turn at most. */
  #tokensMax: number;
  /** Rows ever put in a batch, from the first position on. */
  #rowsReached = 0;
  /** Its cache was dropped: the position at which it will have got further than it was. */
  #catchesUpAt = 0;

  constructor(readonly request: SequenceRequest) {
    const { generated } = request;
    this.generated = {
      tokenIds: [...generated.tokenIds],
      logprobs: [...generated.logprobs],
      rawLogprobs: [...generated.rawLogprobs],
      versions: [...generated.versions],
    };
    this.#observations = [...(request.episode?.observations ?? [])];
    this.#observedTokens = this.#observations.reduce((sum, { tokenIds }) => sum + tokenIds.length, 0);
    this.turnEnd = request.episode?.turnEnd ?? null;
    this.#tokensMax = request.tokensMax;
    this.knownTokens = this.#tokens();
  }

  /** It has turns, and does not end with one. */
  get isEpisode(): boolean {
    return this.request.episode !== undefined;
  }

  /** Prompt, sampled and observed tokens the host knows of. */
  get tokenCount(): number {
    return this.request.promptTokenIds.length + this.generated.tokenIds.length + this.#observedTokens;
  }

  /** It has sampled all it may. */
  get isFull(): boolean {
    return this.generated.tokenIds.length >= this.#tokensMax;
  }

  /** Most tokens this sequence can hold in the cache in this turn: the last sampled token is not read again. */
  get tokensInCacheMax(): number {
    return this.request.promptTokenIds.length + this.#observedTokens + this.#tokensMax - 1;
  }

  /** Rows still to be scheduled before the host must hear from the device. */
  get rowsLeft(): number {
    return this.finished === null ? this.tokensInCacheMax - this.nextPosition : 0;
  }

  get prefillRowsLeft(): number {
    return Math.max(0, this.knownTokens.length - this.nextPosition);
  }

  /** Its cache was dropped, and it has not got any further since. */
  get isCatchingUp(): boolean {
    return this.nextPosition < this.#catchesUpAt;
  }

  /** The next rows are in a batch. Returns how many of them had been in one before. */
  advance(rows: number): number {
    const again = Math.min(rows, this.#rowsReached - this.nextPosition);
    this.nextPosition += rows;
    this.#rowsReached = Math.max(this.#rowsReached, this.nextPosition);
    return again;
  }

  /** What was in its cache is lost: all of it is to be computed again. */
  loseCache(): void {
    this.nextPosition = 0;
  }

  /** Goes on where its cache ends, and all tokens up to there are known to the host by now. */
  resume(): void {
    this.knownTokens = this.#tokens();
    assert(this.drawsInFlight === 0, `sequence ${this.request.id} goes on before its tokens are known`);
    assert(
      this.nextPosition < this.knownTokens.length,
      `sequence ${this.request.id} goes on beyond its tokens`,
    );
    this.#catchesUpAt = this.nextPosition < this.#rowsReached ? this.#rowsReached + 1 : 0;
  }

  /**
   * Its turn is over. Rows the device ran beyond the end do not count, and neither does the one of the last token:
   * whether it has run depends on how far the device was ahead.
   */
  endTurn(reason: TurnEnd): void {
    assert(this.isEpisode && this.turnEnd === null, `sequence ${this.request.id} has no turn to end`);
    this.turnEnd = reason;
    this.nextPosition = Math.min(this.nextPosition, this.tokenCount - 1);
    this.#rowsReached = Math.min(this.#rowsReached, this.tokenCount - 1);
  }

  /** A new turn begins with what the environment answered. */
  beginTurn({ tokenIds, tokensMax }: Turn): void {
    assert(this.turnEnd !== null, `sequence ${this.request.id} is in the middle of a turn`);
    this.turnEnd = null;
    const sampled = this.generated.tokenIds.length;
    if (tokenIds.length > 0) this.#observations.push({ after: sampled, tokenIds: [...tokenIds] });
    this.#observedTokens += tokenIds.length;
    this.#tokensMax = sampled + tokensMax;
  }

  /** All that another engine needs beside the request. */
  evicted(): EvictedSequence {
    const { generated, turnEnd } = this;
    const base = { id: this.request.id, generated, tokensMax: this.#tokensMax };
    return this.isEpisode ? { ...base, episode: { observations: this.#observations, turnEnd } } : base;
  }

  /** A token drawn under the weights of `version` has come to the host. */
  append({ token, logprob, rawLogprob }: SampledToken, version: number): void {
    this.generated.tokenIds.push(token);
    this.generated.logprobs.push(logprob);
    this.generated.rawLogprobs.push(rawLogprob);
    this.generated.versions.push(version);
  }

  #tokens(): number[] {
    return allTokens(this.request.promptTokenIds, this.generated.tokenIds, this.#observations);
  }
}
