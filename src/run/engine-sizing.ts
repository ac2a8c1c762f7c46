import type { EngineOptions } from '../engine/webgpu-engine.js';
import { BLOCK_TOKENS, blocksFor } from '../kernels/kv-cache.js';
import { UserError } from '../lib/errors.js';
import type { ModelConfig } from '../model/config.js';

export interface EngineWishes {
  readonly slots: number;
  readonly batchTokens: number;
  readonly stepsAhead: number;
  /** `auto` gives every slot room for the longest sequence. */
  readonly kvBlocks: number | 'auto';
  /** Longest prompt and longest completion, in tokens. */
  readonly promptTokensMax: number;
  readonly completionTokensMax: number;
}

/**
 * An engine for sequences of a known longest length.
 *
 * @throws UserError when that length exceeds the model's context, or a cache of `kvBlocks` cannot hold one sequence.
 */
export function engineOptions(config: ModelConfig, wishes: EngineWishes): EngineOptions {
  const { slots, batchTokens, stepsAhead, promptTokensMax, completionTokensMax } = wishes;
  const tokensMax = promptTokensMax + completionTokensMax;
  if (tokensMax > config.contextTokensMax) {
    throw new UserError(
      `a prompt of ${promptTokensMax} tokens and max_tokens ${completionTokensMax} make ${tokensMax}, the model's context is ${config.contextTokensMax}: shorten the prompt or lower max_tokens`,
    );
  }
  const blocksEach = blocksFor(tokensMax);
  const kvBlocks = wishes.kvBlocks === 'auto' ? slots * blocksEach : wishes.kvBlocks;
  if (kvBlocks < blocksEach) {
    throw new UserError(
      `engine.kv_blocks is ${kvBlocks}, one sequence of ${tokensMax} tokens takes ${blocksEach}: raise it or use "auto"`,
    );
  }
  return {
    slots,
    batchTokensMax: Math.max(batchTokens, slots),
    stepsAheadMax: stepsAhead,
    kvBlocks,
    contextTokensMax: blocksEach * BLOCK_TOKENS,
  };
}
