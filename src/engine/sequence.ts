import type { SamplingParams } from '../kernels/output-head.js';
import type { Key } from '../lib/prng.js';

/** Why a sequence ended; the words are vLLM's. */
export type FinishReason = 'stop' | 'length' | 'abort';

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
  /** Longest completion in tokens, those already generated counted. */
  readonly tokensMax: number;
  readonly sampling: SamplingParams;
  /** Randomness of the draw at a position is threefry(key, position). */
  readonly key: Key;
  readonly stopTokenIds: readonly number[];
}

/** A sequence inside the engine. Positions count from the first prompt token. */
export class Sequence {
  readonly generated: GeneratedTokens;
  /** Tokens the host knew on admission: prompt and what another engine generated. They are prefilled. */
  readonly knownTokens: readonly number[];
  /** The row of the next position to be put in a batch. */
  nextPosition = 0;
  slot = -1;
  /** Tells this stay in the slot from earlier ones; never 0. */
  serial = 0;
  blocks: readonly number[] = [];
  finished: FinishReason | null = null;

  constructor(readonly request: SequenceRequest) {
    const { generated, promptTokenIds } = request;
    this.generated = {
      tokenIds: [...generated.tokenIds],
      logprobs: [...generated.logprobs],
      rawLogprobs: [...generated.rawLogprobs],
      versions: [...generated.versions],
    };
    this.knownTokens = [...promptTokenIds, ...generated.tokenIds];
  }

  /** Most tokens this sequence can ever hold in the cache: the last sampled token is never read again. */
  get tokensInCacheMax(): number {
    return this.request.promptTokenIds.length + this.request.tokensMax - 1;
  }

  /** Rows still to be scheduled before the host must hear from the device. */
  get rowsLeft(): number {
    return this.finished === null ? this.tokensInCacheMax - this.nextPosition : 0;
  }

  get prefillRowsLeft(): number {
    return Math.max(0, this.knownTokens.length - this.nextPosition);
  }
}
