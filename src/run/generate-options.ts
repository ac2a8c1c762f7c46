import { z } from 'zod';
import { assert } from '../lib/assert.js';
import { UserError } from '../lib/errors.js';
import { keyText, valueText } from './config-errors.js';
import {
  numberFromTo,
  samplingFilters,
  seed,
  TEMPERATURE_MAX,
  text,
  TOKENS_MAX,
  trueOrFalse,
  wholeNumber,
} from './config-fields.js';

export const PROMPTS_MAX = 100_000;
const SAMPLES_MAX = 4096;
const STOPS_MAX = 16;

/** Names and meanings are those of vLLM's SamplingParams; so are the defaults, except where a comment says otherwise. */
const schema = z.strictObject({
  /** A Hugging Face checkpoint folder. */
  model: text().min(1, 'the path of a checkpoint folder'),
  prompts: z
    .array(text(), 'a list of texts')
    .min(1, 'a list of at least one prompt')
    .max(PROMPTS_MAX, `a list of at most ${PROMPTS_MAX} prompts`),
  /** Completions of each prompt. */
  n: wholeNumber(1, SAMPLES_MAX).default(1),
  /** vLLM's default of 16 cuts a person off in mid-sentence. */
  maxTokens: wholeNumber(1, TOKENS_MAX).default(256),
  /** 0 is greedy. */
  temperature: numberFromTo(0, TEMPERATURE_MAX).default(1),
  topP: samplingFilters.top_p.default(1),
  topK: samplingFilters.top_k.default(0),
  minP: samplingFilters.min_p.default(0),
  /** vLLM draws another seed each time; here the same command gives the same text. */
  seed: seed.default(1),
  /** A completion ends before the first of these texts. */
  stop: z
    .array(text().min(1, 'a text that is not empty'), 'a list of texts')
    .max(STOPS_MAX, `a list of at most ${STOPS_MAX} texts`)
    .default([]),
  /** Goes on after the model's end-of-sequence ids. */
  ignoreEos: trueOrFalse().default(false),
  /** Only adapters whose name contains this text; "" takes the fastest. */
  adapter: text().default(''),
});

/** What to generate. Only `model` and `prompts` have no defaults. */
export type GenerateInput = z.input<typeof schema>;

/** The same, checked and complete. */
export type GenerateOptions = z.output<typeof schema>;

/**
 * Checks every value once; `generate` itself trusts them.
 *
 * @param nameOf How to call an option in a message; the command line names its flags.
 * @throws UserError that names the option, its value and its range.
 */
export function resolveGenerateOptions(
  input: { readonly [Key in keyof GenerateInput]: unknown },
  nameOf: (option: string) => string = (option) => option,
): GenerateOptions {
  const parsed = schema.safeParse(input, { reportInput: true });
  if (parsed.success) return parsed.data;
  const [issue] = parsed.error.issues;
  assert(issue !== undefined, 'options are refused for a reason');
  const [option = '', ...place] = issue.path;
  const name = nameOf(String(option)) + keyText(place);
  throw new UserError(`${name} is ${valueText(issue.input)}, must be ${issue.message}`);
}
