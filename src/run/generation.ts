import type { EngineUpdate } from '../engine/engine.js';
import {
  noTokens,
  type FinishReason,
  type GeneratedTokens,
  type SequenceRequest,
} from '../engine/sequence.js';
import type { SamplingParams } from '../kernels/output-head.js';
import { assert, at } from '../lib/assert.js';
import { rolloutKey } from '../lib/prng.js';
import type { TextStream } from '../model/token-text.js';
import type { Tokenizer } from '../model/tokenizer.js';
import { StopText } from './generate-text.js';

/** One prompt as it goes to the engine. */
export interface EncodedPrompt {
  readonly prompt: string;
  readonly tokenIds: readonly number[];
  /** Longest completion that the context leaves room for. */
  readonly tokensMax: number;
}

/** A finished completion. */
export interface Completion {
  readonly promptIndex: number;
  readonly sampleIndex: number;
  readonly prompt: string;
  readonly promptTokenIds: readonly number[];
  /** Without the prompt, special tokens and stop text. */
  readonly text: string;
  /** With the token that ended it, be it end-of-sequence or the last of a stop text. */
  readonly tokenIds: readonly number[];
  /** Raw log-probability of each token: temperature 1, no filters. */
  readonly logprobs: readonly number[];
  readonly finishReason: FinishReason;
}

export interface GenerationEvents {
  /** New text of one completion, as soon as it is certain. */
  readonly onText?: (text: string, completion: { promptIndex: number; sampleIndex: number }) => void;
  /** Completions in order: all of the first prompt, then all of the second. */
  readonly onCompletion: (completion: Completion) => void;
}

export interface GenerationPlan {
  readonly prompts: readonly EncodedPrompt[];
  /** Completions of each prompt. */
  readonly samples: number;
  readonly seed: number;
  readonly sampling: SamplingParams;
  readonly stopTokenIds: readonly number[];
  readonly stop: readonly string[];
  /** Sequences the engine is given at once. */
  readonly sequencesMax: number;
}

/** Where sequences are sent to. */
export interface GenerationLane {
  readonly add: (sequences: readonly SequenceRequest[]) => Promise<unknown>;
  readonly abort: (ids: readonly number[]) => Promise<unknown>;
}

/** A completion in the making. */
interface Draft {
  readonly index: number;
  readonly prompt: EncodedPrompt;
  readonly generated: GeneratedTokens;
  readonly characters: TextStream;
  readonly stops: StopText;
  text: string;
}

/**
 * All completions of one command: feeds an engine, turns its tokens into text, ends a completion at a stop text, and
 * hands the completions out in order. `done` resolves after the last one.
 */
export class Generation {
  readonly done: Promise<void>;
  readonly #drafts = new Map<number, Draft>();
  /** Finished, waiting for those before. */
  readonly #finished = new Map<number, Completion>();
  #started = 0;
  #handedOut = 0;
  #total: number;
  /** Sequences the engine has not reported as finished. */
  #inEngine = 0;
  #resolve: () => void = () => undefined;
  #reject: (error: unknown) => void = () => undefined;

  constructor(
    private readonly plan: GenerationPlan,
    private readonly tokenizer: Tokenizer,
    private readonly lane: GenerationLane,
    private readonly events: GenerationEvents,
  ) {
    this.#total = plan.prompts.length * plan.samples;
    this.done = new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
    this.done.catch(() => undefined);
  }

  /** Sends as many sequences as the engine may have. */
  start(): void {
    const sequences: SequenceRequest[] = [];
    while (this.#started < this.#total && this.#inEngine < this.plan.sequencesMax) {
      sequences.push(this.#begin(this.#started++));
      this.#inEngine++;
    }
    if (sequences.length > 0) this.lane.add(sequences).catch(this.#reject);
  }

  /** Takes in what one step produced. */
  receive(update: EngineUpdate): void {
    this.#guard(() => this.#take(update));
  }

  fail(error: Error): void {
    this.#reject(error);
  }

  /** Ends what is under way with the tokens it has, starts nothing more. */
  interrupt(): void {
    this.#guard(() => {
      this.#total = this.#started;
      for (const draft of [...this.#drafts.values()]) this.#finish(draft, 'abort');
      this.#handOut();
    });
  }

  /** What fails in a callback fails the whole, instead of going astray. */
  #guard(work: () => void): void {
    try {
      work();
    } catch (error) {
      this.#reject(error);
    }
  }

  #begin(index: number): SequenceRequest {
    const { plan } = this;
    const prompt = at(plan.prompts, Math.floor(index / plan.samples));
    this.#drafts.set(index, {
      index,
      prompt,
      generated: noTokens(),
      characters: this.tokenizer.createStream(prompt.tokenIds),
      stops: new StopText(plan.stop),
      text: '',
    });
    return {
      id: index,
      promptTokenIds: prompt.tokenIds,
      generated: noTokens(),
      tokensMax: prompt.tokensMax,
      sampling: plan.sampling,
      key: rolloutKey(plan.seed, prompt.prompt, index % plan.samples),
      stopTokenIds: plan.stopTokenIds,
    };
  }

  #take(update: EngineUpdate): void {
    const reasons = new Map(update.finished.map(({ id, reason }) => [id, reason]));
    const stopped: number[] = [];
    update.ids.forEach((id, row) => {
      // It ended at a stop text; the tokens sampled until the engine heard of it are nobody's.
      const draft = this.#drafts.get(id);
      if (draft === undefined) return;
      const tokenId = at(update.tokenIds, row);
      draft.generated.tokenIds.push(tokenId);
      draft.generated.rawLogprobs.push(at(update.rawLogprobs, row));
      // The token that stops a sequence ends its text whether or not the tokenizer calls it special.
      if (reasons.get(id) !== 'stop') this.#write(draft, draft.characters.push(tokenId));
      if (!draft.stops.stopped) return;
      this.#finish(draft, 'stop');
      if (!reasons.has(id)) stopped.push(id);
    });
    for (const [id, reason] of reasons) {
      this.#inEngine--;
      const draft = this.#drafts.get(id);
      if (draft !== undefined) this.#finish(draft, reason);
    }
    if (stopped.length > 0) this.lane.abort(stopped).catch(this.#reject);
    this.#handOut();
    this.start();
  }

  #write(draft: Draft, characters: string): void {
    this.#show(draft, draft.stops.push(characters));
  }

  #show(draft: Draft, text: string): void {
    if (text === '') return;
    draft.text += text;
    this.events.onText?.(text, this.#place(draft.index));
  }

  #finish(draft: Draft, reason: FinishReason): void {
    const { index, prompt, generated, characters, stops } = draft;
    this.#write(draft, characters.end());
    this.#show(draft, stops.end());
    this.#drafts.delete(index);
    assert(!this.#finished.has(index), `completion ${index} finished twice`);
    this.#finished.set(index, {
      ...this.#place(index),
      prompt: prompt.prompt,
      promptTokenIds: prompt.tokenIds,
      text: draft.text,
      tokenIds: generated.tokenIds,
      logprobs: generated.rawLogprobs,
      finishReason: stops.stopped ? 'stop' : reason,
    });
  }

  #handOut(): void {
    for (;;) {
      const next = this.#finished.get(this.#handedOut);
      if (next === undefined) break;
      this.#finished.delete(this.#handedOut++);
      this.events.onCompletion(next);
    }
    if (this.#handedOut === this.#total) this.#resolve();
  }

  #place(index: number): { promptIndex: number; sampleIndex: number } {
    const { samples } = this.plan;
    return { promptIndex: Math.floor(index / samples), sampleIndex: index % samples };
  }
}
