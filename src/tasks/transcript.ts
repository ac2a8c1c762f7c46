import { assert } from '../lib/assert.js';

/** Encodes a text; `Tokenizer` of src/model is one. */
export interface TextEncoding {
  encode(text: string, options: { readonly specialTokens: boolean }): readonly number[];
}

export interface TranscriptTurn {
  /** As sampled, the token that ended the turn included. */
  readonly completionTokenIds: readonly number[];
  /** What the model reads after it; empty after the last turn. */
  readonly observation: string;
}

/**
 * The token ids of a rollout of several turns, and which of them the loss is about. It only ever grows: sampled ids are
 * kept as they were sampled and never written as text and encoded again, since a text may have more than one
 * encoding, and a model would then be trained on tokens it did not choose.
 */
export class Transcript {
  readonly #tokenIds: number[];
  readonly #lossMask: (0 | 1)[];
  readonly #promptTokens: number;

  constructor(promptTokenIds: readonly number[]) {
    this.#tokenIds = [...promptTokenIds];
    this.#lossMask = promptTokenIds.map(() => 0);
    this.#promptTokens = promptTokenIds.length;
  }

  /** Prompt, completions and observations in the order they came. */
  get tokenIds(): readonly number[] {
    return this.#tokenIds;
  }

  /** One entry a token id: 1 where the model sampled it, 0 in the prompt and in observations. */
  get lossMask(): readonly (0 | 1)[] {
    return this.#lossMask;
  }

  get promptTokens(): number {
    return this.#promptTokens;
  }

  /** How many tokens the loss is about. */
  get sampledTokens(): number {
    return this.#lossMask.reduce<number>((sum, entry) => sum + entry, 0);
  }

  addCompletion(tokenIds: readonly number[]): void {
    this.#append(tokenIds, 1);
  }

  /** Returns the ids of the observation alone: what an engine that holds the rest has still to read. */
  addObservation(text: string, encoding: TextEncoding): readonly number[] {
    const tokenIds = text === '' ? [] : encoding.encode(text, { specialTokens: false });
    this.#append(tokenIds, 0);
    return tokenIds;
  }

  /** Asserts that `earlier`, what a model has read or sampled so far, is how this transcript begins, id for id. */
  assertExtends(earlier: readonly number[]): void {
    const index = earlier.findIndex((id, place) => id !== this.#tokenIds[place]);
    const found = this.#tokenIds[index] ?? 'nothing';
    assert(
      index < 0,
      `token ${index} of the transcript is ${found}, was ${earlier[index]}: it is not append-only`,
    );
  }

  #append(tokenIds: readonly number[], mask: 0 | 1): void {
    for (const id of tokenIds) {
      assert(Number.isInteger(id) && id >= 0, `token id ${id}`);
      this.#tokenIds.push(id);
      this.#lossMask.push(mask);
    }
  }
}

/** The transcript of a whole rollout. `opening` is what `reset` showed behind the prompt. */
export function buildTranscript(
  rollout: {
    readonly promptTokenIds: readonly number[];
    readonly opening: string;
    readonly turns: readonly TranscriptTurn[];
  },
  encoding: TextEncoding,
): Transcript {
  const transcript = new Transcript(rollout.promptTokenIds);
  transcript.addObservation(rollout.opening, encoding);
  for (const { completionTokenIds, observation } of rollout.turns) {
    transcript.addCompletion(completionTokenIds);
    transcript.addObservation(observation, encoding);
  }
  return transcript;
}
