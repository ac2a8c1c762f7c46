import { STOP_IDS_MAX } from '../engine/step-tables.js';
import { errorText, UserError } from '../lib/errors.js';
import type { ModelConfig } from '../model/config.js';
import type { Tokenizer } from '../model/tokenizer.js';
import type { Environment } from '../tasks/task.js';
import type { RunConfig } from './config.js';
import type { TurnLimits } from './episodes.js';

/**
 * How far the rollouts of a task of several turns may go, with this model and configuration.
 *
 * @param promptTokens of the longest prompt
 * @throws UserError when there is no room for the first turn.
 */
export function turnLimits(
  { rollout, optimizer }: RunConfig,
  model: ModelConfig,
  promptTokens: number,
): TurnLimits {
  const { turnsMax, maxTokens, contextTokensMax: wanted } = rollout;
  const { microBatchTokens } = optimizer;
  const bounds = [
    { name: "the model's context", tokens: model.contextTokensMax, remedy: 'lower it' },
    {
      name: 'optimizer.micro_batch_tokens',
      tokens: microBatchTokens,
      remedy: 'raise optimizer.micro_batch_tokens or lower it',
    },
  ];
  for (const { name, tokens, remedy } of bounds) {
    if (wanted <= tokens) continue;
    throw new UserError(`rollout.context_tokens_max is ${wanted}, ${name} is ${tokens}: ${remedy}`);
  }
  const contextTokensMax = wanted > 0 ? wanted : Math.min(model.contextTokensMax, microBatchTokens);
  const turnTokensMax = rollout.turnTokensMax > 0 ? Math.min(rollout.turnTokensMax, maxTokens) : maxTokens;
  const room = contextTokensMax - promptTokens;
  if (room < 1) {
    throw new UserError(
      `a prompt has ${promptTokens} tokens and a rollout room for ${contextTokensMax}: shorten the prompt, or raise rollout.context_tokens_max or optimizer.micro_batch_tokens`,
    );
  }
  return { turnsMax, turnTokensMax, contextTokensMax };
}

/**
 * The ids of the texts that end a turn.
 *
 * @param others what stops a rollout anyway
 * @throws UserError when the model writes one of them as several tokens, or there are too many.
 */
export function turnStops(
  { id: task, stops = [] }: Pick<Environment, 'id' | 'stops'>,
  tokenizer: Tokenizer,
  others: readonly number[],
): number[] {
  const ids = stops.map((stop) => {
    const [first, ...rest] = encodes(task, tokenizer, stop);
    if (first !== undefined && rest.length === 0) return first;
    throw new UserError(
      `task "${task}": a turn ends with ${JSON.stringify(stop)}, which is ${rest.length + 1} tokens of this model: use a model that has one for it`,
    );
  });
  const all = [...new Set([...others, ...ids])];
  if (all.length <= STOP_IDS_MAX) return all;
  throw new UserError(
    `task "${task}": its stops, the model's end tokens and rollout.stop_token_ids are ${all.length} ids, at most ${STOP_IDS_MAX} can end a turn: use fewer`,
  );
}

/** @throws UserError when the task lists a character that the model has no tokens for. */
export function checkAlphabet(
  { id: task, alphabet = '' }: Pick<Environment, 'id' | 'alphabet'>,
  tokenizer: Tokenizer,
): void {
  for (const character of alphabet) encodes(task, tokenizer, character);
}

function encodes(task: string, tokenizer: Tokenizer, text: string): number[] {
  try {
    return tokenizer.encode(text, { specialTokens: false });
  } catch (error) {
    if (!(error instanceof UserError)) throw error;
    throw new UserError(
      `task "${task}" writes ${JSON.stringify(text)}, which this model has no token for (${errorText(error)}): use a model made for the task, as offbeat pretrain makes one`,
    );
  }
}
