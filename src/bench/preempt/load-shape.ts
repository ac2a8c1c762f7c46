import { noTokens, type SequenceRequest } from '../../engine/sequence.js';
import type { EngineOptions } from '../../engine/webgpu-engine.js';
import { blocksFor, kvBlockBytes } from '../../kernels/kv-cache.js';
import { UserError } from '../../lib/errors.js';
import { Random, rolloutKey } from '../../lib/prng.js';
import type { ModelConfig } from '../../model/config.js';
import { engineOptions } from '../../run/engine-sizing.js';

const SLOTS_MAX = 32;
/** Sequences beyond the slots wait in the engine, so that a freed slot is filled at once. */
const QUEUED = 8;
const CONTEXT_TOKENS_MAX = 512;
const BATCH_TOKENS_PER_SLOT = 4;
const STEPS_AHEAD = 4;

interface Range {
  readonly min: number;
  readonly max: number;
}

/** What low priority does: so many sequences at once, lengths in tokens, uniform in their ranges. */
export interface LoadShape {
  readonly engine: EngineOptions;
  /** Sequences the engine holds, waiting ones included. */
  readonly sequences: number;
  readonly promptTokens: Range;
  readonly completionTokens: Range;
}

/**
 * A load for a model: prompts of a sixteenth to a quarter of its context, completions of an eighth to a half. Prompts
 * begin while others are being continued, so a step holds rows of both kinds.
 *
 * @throws UserError when the adapter cannot bind the cache of a single sequence.
 */
export function loadShape(config: ModelConfig, folder: string, bindingBytesMax: number): LoadShape {
  const context = Math.min(config.contextTokensMax, CONTEXT_TOKENS_MAX);
  const share = (of: number): number => Math.max(1, Math.floor(context / of));
  const promptTokens = { min: share(16), max: share(4) };
  const completionTokens = { min: share(8), max: share(2) };
  const sequenceBytes = blocksFor(promptTokens.max + completionTokens.max) * kvBlockBytes(config);
  const slots = Math.min(SLOTS_MAX, Math.floor(bindingBytesMax / sequenceBytes));
  if (slots < 1) {
    throw new UserError(
      `--model ${folder}: one sequence takes ${sequenceBytes} bytes of cache a layer, the adapter binds at most ${bindingBytesMax} (maxStorageBufferBindingSize): use a smaller model or another adapter`,
    );
  }
  const engine = engineOptions(config, {
    slots,
    batchTokens: slots * BATCH_TOKENS_PER_SLOT,
    stepsAhead: STEPS_AHEAD,
    kvBlocks: 'auto',
    promptTokensMax: promptTokens.max,
    completionTokensMax: completionTokens.max,
  });
  return { engine, sequences: slots + QUEUED, promptTokens, completionTokens };
}

/** The `index`-th sequence of a load: a function of the seed and the index. */
export function sequenceAt(
  shape: LoadShape,
  { vocabSize }: ModelConfig,
  seed: number,
  index: number,
): SequenceRequest {
  const random = new Random(seed).fork('load').fork(index);
  const { promptTokens, completionTokens } = shape;
  const length = random.int(promptTokens.min, promptTokens.max);
  return {
    id: index,
    promptTokenIds: Array.from({ length }, () => random.int(0, vocabSize - 1)),
    generated: noTokens(),
    tokensMax: random.int(completionTokens.min, completionTokens.max),
    sampling: { temperature: 1, topK: 0, topP: 1, minP: 0 },
    key: rolloutKey(seed, 'bench preempt', index),
    // Each goes on to its full length: how much work there is must not hang on what is written.
    stopTokenIds: [],
  };
}

/** The load in words, for those who read the numbers. */
export function loadText({ engine, promptTokens, completionTokens }: LoadShape): string {
  const range = ({ min, max }: Range): string => `${min} to ${max}`;
  return `${engine.slots} sequences at once, prompts of ${range(promptTokens)} tokens, completions of ${range(completionTokens)}, prefill and decode in the same steps`;
}
