import { errorText, UserError } from '../lib/errors.js';
import type { Tokenizer } from '../model/tokenizer.js';
import { CHAR_TOKEN_IDS } from '../tasks/char-tokenizer.js';
import type { Example } from '../tasks/task.js';
import { supervisedSequence, type TrainSequence } from '../train/batch.js';

interface EncodedExample {
  readonly prompt: readonly number[];
  /** Ends with the end-of-sequence token. */
  readonly completion: readonly number[];
}

/** Batches of a task's worked examples, in the order of its corpus. */
export class ExampleSource {
  readonly #examples: Iterator<Example>;
  #drawn = 0;

  constructor(
    corpus: Iterable<Example>,
    private readonly tokenizer: Tokenizer,
    private readonly contextTokens: number,
  ) {
    this.#examples = corpus[Symbol.iterator]();
  }

  /**
   * The next `count` examples. Completion and end of sequence carry the loss, every token alike; the prompt has none.
   *
   * @throws UserError when an example is longer than the model's context, or there is none left.
   */
  batch(count: number): TrainSequence[] {
    const examples = Array.from({ length: count }, () => this.#next());
    const trained = examples.reduce((sum, { completion }) => sum + completion.length, 0);
    return examples.map(({ prompt, completion }) => {
      const tokens = Int32Array.from([...prompt, ...completion]);
      const weights = new Float32Array(tokens.length);
      weights.fill(1 / trained, prompt.length - 1, tokens.length - 1);
      return supervisedSequence(tokens, weights);
    });
  }

  #next(): EncodedExample {
    const example = this.#draw();
    this.#drawn++;
    const prompt = this.tokenizer.encode(example.prompt);
    const completion = [
      ...this.tokenizer.encode(example.completion, { specialTokens: false }),
      CHAR_TOKEN_IDS.eos,
    ];
    const tokens = prompt.length + completion.length;
    if (tokens > this.contextTokens) {
      throw new UserError(
        `model.context_tokens is ${this.contextTokens}, example ${this.#drawn} of the corpus has ${tokens} tokens: raise it`,
      );
    }
    return { prompt, completion };
  }

  #draw(): Example {
    let next: IteratorResult<Example>;
    try {
      next = this.#examples.next();
    } catch (error) {
      throw new UserError(`the corpus failed after ${this.#drawn} examples: ${errorText(error)}`);
    }
    if (next.done !== true) return next.value;
    throw new UserError(
      `the corpus ended after ${this.#drawn} examples: let it repeat itself or draw new ones`,
    );
  }
}
