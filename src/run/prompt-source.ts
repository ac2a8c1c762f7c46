import { errorText, UserError } from '../lib/errors.js';
import type { Tokenizer } from '../model/tokenizer.js';
import type { Environment, Split, Task } from '../tasks/task.js';

/** A task and its prompt as the model reads it. */
export interface Prompt {
  readonly task: Task;
  readonly tokenIds: readonly number[];
}

/** The prompts of a run. An environment may be anybody's code: what it gets wrong is told as a `UserError`. */
export class PromptSource {
  constructor(
    private readonly environment: Environment,
    private readonly tokenizer: Tokenizer,
    private readonly seed: number,
  ) {}

  get taskName(): string {
    return this.environment.id;
  }

  /** The train split from its beginning; the same prompts each time. Never ends. */
  *train(): Generator<Prompt, never, void> {
    let count = 0;
    for (const prompt of this.#prompts('train')) {
      count++;
      yield prompt;
    }
    throw this.#error(`its train split ended after ${count} tasks: let it repeat itself or draw new ones`);
  }

  /** The first `count` held-out prompts, or all where there are fewer: the same ones each time. */
  heldout(count: number): Prompt[] {
    const prompts: Prompt[] = [];
    if (count === 0) return prompts;
    for (const prompt of this.#prompts('heldout')) if (prompts.push(prompt) === count) break;
    return prompts;
  }

  *#prompts(split: Split): Generator<Prompt, void, void> {
    const tasks = this.#guard(() => this.environment.tasks({ split, seed: this.seed })[Symbol.iterator]());
    try {
      for (;;) {
        const next = this.#guard(() => tasks.next());
        if (next.done === true) return;
        yield this.#prompt(next.value);
      }
    } finally {
      tasks.return?.();
    }
  }

  #prompt(task: Task): Prompt {
    const { key, prompt }: Partial<Task> = task;
    if (typeof key !== 'string' || typeof prompt !== 'string') {
      throw this.#error('it gave a task without a key or a prompt: make both texts');
    }
    const tokenIds = this.tokenizer.encode(prompt);
    if (tokenIds.length === 0) {
      throw this.#error(
        `the prompt of ${JSON.stringify(key)} has no tokens, and this tokenizer puts none before it: give it some text`,
      );
    }
    return { task, tokenIds };
  }

  #guard<T>(call: () => T): T {
    try {
      return call();
    } catch (error) {
      throw this.#error(`its tasks() threw: ${errorText(error)}`);
    }
  }

  #error(what: string): UserError {
    return new UserError(`task "${this.environment.id}": ${what}`);
  }
}
