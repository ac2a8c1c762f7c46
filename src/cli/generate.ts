import { UserError } from '../lib/errors.js';
import { generate as generateText } from '../run/generate.js';
import { resolveGenerateOptions, type GenerateOptions } from '../run/generate-options.js';
import type { Completion, GenerationEvents } from '../run/generation.js';
import { EXIT_OK } from './exit-codes.js';
import { interruptible } from './interrupt.js';
import { note, readerGone, result } from './output.js';
import { readPrompts } from './prompts.js';

/** What was typed; numbers are still texts. */
export interface GenerateFlags {
  readonly model: string;
  readonly prompt?: string;
  readonly prompts?: string;
  readonly n?: string;
  readonly maxTokens?: string;
  readonly temperature?: string;
  readonly topP?: string;
  readonly topK?: string;
  readonly minP?: string;
  readonly seed?: string;
  readonly stop?: readonly string[];
  readonly ignoreEos?: true;
  readonly logprobs?: true;
  readonly json?: true;
  readonly adapter?: string;
}

/** `offbeat generate`: completes prompts. */
export async function generate(flags: GenerateFlags): Promise<number> {
  if (flags.logprobs && !flags.json) throw new UserError('--logprobs shows in JSON only: add --json');
  const options = await resolveFlags(flags);
  const events = flags.json ? jsonEvents(flags.logprobs === true) : textEvents(options);
  return interruptible(async (interrupted) => {
    await generateText(options, events, AbortSignal.any([interrupted, readerGone]));
    return EXIT_OK;
  });
}

async function resolveFlags(flags: GenerateFlags): Promise<GenerateOptions> {
  const typed = flags.prompt === undefined ? [] : [flags.prompt];
  const read = flags.prompts === undefined ? [] : await readPrompts(flags.prompts);
  if (typed.length + read.length === 0) {
    throw new UserError('no prompt: give one with --prompt TEXT, or many with --prompts FILE.jsonl');
  }
  const { model, stop, ignoreEos, adapter } = flags;
  const numbers = (['n', 'maxTokens', 'temperature', 'topP', 'topK', 'minP', 'seed'] as const).flatMap(
    (name) => {
      const value = flags[name];
      return value === undefined ? [] : [[name, numberIn(value)] as const];
    },
  );
  return resolveGenerateOptions(
    { model, prompts: [...typed, ...read], stop, ignoreEos, adapter, ...Object.fromEntries(numbers) },
    flagOf,
  );
}

/** The number a text spells; the text itself when it spells none, so that a complaint can show it. */
function numberIn(value: string): number | string {
  const number = Number(value);
  return value.trim() === '' || Number.isNaN(number) ? value : number;
}

/** `maxTokens` is `--max-tokens` on the command line. */
function flagOf(option: string): string {
  return `--${option.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`;
}

/** One JSON object a completion; log-probabilities are raw, as by vLLM's default `logprobs_mode`. */
function jsonEvents(withLogprobs: boolean): GenerationEvents {
  return {
    onCompletion: ({ prompt, text, promptTokenIds, tokenIds, logprobs, finishReason }) => {
      const line = {
        prompt,
        text,
        prompt_token_ids: promptTokenIds,
        token_ids: tokenIds,
        logprobs: withLogprobs ? logprobs : null,
        finish_reason: finishReason,
      };
      result(`${JSON.stringify(line)}\n`);
    },
  };
}

/** Prompt and completion as they read. A single one appears while it is written, several one after the other. */
function textEvents({ prompts, n }: GenerateOptions): GenerationEvents {
  if (prompts.length * n > 1)
    return { onCompletion: (completion) => showWhole(completion, prompts.length, n) };
  const [prompt = ''] = prompts;
  let isBegun = false;
  const begin = (): void => {
    if (!isBegun) result(prompt);
    isBegun = true;
  };
  return {
    onText: (text) => {
      begin();
      result(text);
    },
    onCompletion: () => {
      begin();
      result('\n');
    },
  };
}

function showWhole(completion: Completion, prompts: number, samples: number): void {
  const { promptIndex, sampleIndex, prompt, text, tokenIds, finishReason } = completion;
  const which = [
    ...(prompts > 1 ? [`prompt ${promptIndex + 1}/${prompts}`] : []),
    ...(samples > 1 ? [`sample ${sampleIndex + 1}/${samples}`] : []),
  ];
  note(`-- ${which.join(', ')}: ${tokenIds.length} tokens, ${finishReason}`);
  result(`${prompt}${text}\n`);
}
