import { join } from 'node:path';
import { STOP_IDS_MAX } from '../engine/step-tables.js';
import type { EngineOptions } from '../engine/webgpu-engine.js';
import { blocksFor, kvBlockBytes } from '../kernels/kv-cache.js';
import { RemoteLane } from '../lanes/remote-lane.js';
import { UserError } from '../lib/errors.js';
import { loadCheckpoint, loadWeights } from '../model/checkpoint.js';
import type { ModelConfig } from '../model/config.js';
import { paramLayout } from '../model/layout.js';
import type { Tokenizer } from '../model/tokenizer.js';
import { WeightStore } from '../weights/store.js';
import { engineOptions } from './engine-sizing.js';
import { resolveGenerateOptions, type GenerateInput, type GenerateOptions } from './generate-options.js';
import { Generation, type EncodedPrompt, type GenerationEvents } from './generation.js';

const SLOTS_MAX = 64;
const BATCH_TOKENS_MAX = 512;
const STEPS_AHEAD = 4;
/** What waits in the engine's own queue, for each slot: a freed slot is filled at once. */
const QUEUED_PER_SLOT = 1;
const BUCKET_BYTES_MAX = 128 * 2 ** 20;
/** Keys and values of all layers together, where one sequence alone does not need more. */
const KV_BYTES_MAX = 2 ** 30;
/** Nobody waits for the device but this engine: longer slices cost nothing and save submits. */
const BUDGETS = { sliceUs: 10_000, inFlightUs: 30_000 };
const NEVER = new AbortController().signal;

/**
 * Completes prompts with the model of a checkpoint folder, on one lane opened for it. A completion is a function of
 * (weights, prompt, seed, index of the sample): neither the other prompts nor `n` change it.
 *
 * @param interrupted When it aborts, what is under way is handed out as it is, with the finish reason `abort`.
 * @throws UserError for a bad option, checkpoint or prompt, no adapter, or a limit too small for the model; before
 * the first text.
 */
export async function generate(
  input: GenerateInput,
  events: GenerationEvents,
  interrupted: AbortSignal = NEVER,
): Promise<void> {
  const options = resolveGenerateOptions(input);
  const { config, tokenizer } = await loadCheckpoint(options.model);
  const stopTokenIds = options.ignoreEos ? [] : config.eosTokenIds;
  if (stopTokenIds.length > STOP_IDS_MAX) {
    throw new UserError(
      `${join(options.model, 'config.json')}: eos_token_id has ${stopTokenIds.length} ids, at most ${STOP_IDS_MAX} can stop a sequence: remove some or give --ignore-eos`,
    );
  }
  const prompts = options.prompts.map((prompt, index) => encode(prompt, index, options, config, tokenizer));
  let generation: Generation | null = null;
  const { adapter } = options;
  const lane = await RemoteLane.open(
    { lane: 0, job: 'generate', adapter: adapter === '' ? null : adapter, budgets: BUDGETS },
    {
      onTokens: (update) => generation?.receive(update),
      onRecords: () => undefined,
      onBroken: (error) => generation?.fail(error),
    },
  );
  try {
    const engine = sizeEngine(config, prompts, options.n, lane.storageBindingBytesMax);
    await loadEngine(lane, options.model, config, engine);
    const { n: samples, seed, stop, temperature, topK, topP, minP } = options;
    const sampling = { temperature, topK, topP, minP };
    const sequencesMax = engine.slots * (1 + QUEUED_PER_SLOT);
    generation = new Generation(
      { prompts, samples, seed, sampling, stopTokenIds, stop, sequencesMax },
      tokenizer,
      {
        add: (sequences) => lane.request({ kind: 'add', sequences }),
        abort: (ids) => lane.request({ kind: 'abort', ids }),
      },
      events,
    );
    await run(generation, interrupted);
  } finally {
    await lane.close();
  }
}

async function run(generation: Generation, interrupted: AbortSignal): Promise<void> {
  if (interrupted.aborted) return;
  const interrupt = (): void => generation.interrupt();
  interrupted.addEventListener('abort', interrupt, { once: true });
  try {
    generation.start();
    await generation.done;
  } finally {
    interrupted.removeEventListener('abort', interrupt);
  }
}

function encode(
  prompt: string,
  index: number,
  { maxTokens }: GenerateOptions,
  config: ModelConfig,
  tokenizer: Tokenizer,
): EncodedPrompt {
  const tokenIds = tokenizer.encode(prompt);
  if (tokenIds.length === 0) {
    throw new UserError(
      `prompt ${index + 1} is empty and this tokenizer puts nothing before it: give it some text`,
    );
  }
  const room = config.contextTokensMax - tokenIds.length;
  if (room < 1) {
    throw new UserError(
      `prompt ${index + 1} has ${tokenIds.length} tokens, the model's context is ${config.contextTokensMax} with at least one token to generate: shorten it`,
    );
  }
  return { prompt, tokenIds, tokensMax: Math.min(maxTokens, room) };
}

/** Slots for all completions up to a limit, and cache blocks for all slots as far as the device binds and memory goes. */
function sizeEngine(
  config: ModelConfig,
  prompts: readonly EncodedPrompt[],
  samples: number,
  bindingBytesMax: number,
): EngineOptions {
  const slots = Math.min(SLOTS_MAX, prompts.length * samples);
  const promptTokensMax = prompts.reduce((most, { tokenIds }) => Math.max(most, tokenIds.length), 0);
  const tokensMax = prompts.reduce(
    (most, prompt) => Math.max(most, prompt.tokenIds.length + prompt.tokensMax),
    0,
  );
  const blockBytes = kvBlockBytes(config);
  const blocksEach = blocksFor(tokensMax);
  const blocksBound = Math.floor(bindingBytesMax / blockBytes);
  if (blocksBound < blocksEach) {
    throw new UserError(
      `${tokensMax} tokens take ${blocksEach * blockBytes} bytes of cache a layer, the adapter binds at most ${bindingBytesMax} (maxStorageBufferBindingSize): lower max_tokens or shorten the prompt`,
    );
  }
  const blocksAfforded = Math.floor(KV_BYTES_MAX / (2 * config.layers * blockBytes));
  const kvBlocks = Math.max(blocksEach, Math.min(slots * blocksEach, blocksBound, blocksAfforded));
  return engineOptions(config, {
    slots,
    batchTokens: Math.min(BATCH_TOKENS_MAX, slots * promptTokensMax),
    stepsAhead: STEPS_AHEAD,
    kvBlocks,
    promptTokensMax,
    completionTokensMax: tokensMax - promptTokensMax,
  });
}

/** The folder's weights as version 0 of an engine on the lane. */
async function loadEngine(
  lane: RemoteLane,
  folder: string,
  config: ModelConfig,
  options: EngineOptions,
): Promise<void> {
  const layout = paramLayout(config, Math.min(BUCKET_BYTES_MAX, lane.storageBindingBytesMax));
  const store = WeightStore.create(layout);
  store.publish(0, await loadWeights(folder, config, layout));
  await lane.request({ kind: 'createEngine', config, layout, options, store: store.shared });
  await lane.request({ kind: 'pull' });
}
