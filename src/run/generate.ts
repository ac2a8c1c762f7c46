import { join } from 'node:path';
import { STOP_IDS_MAX } from '../engine/step-tables.js';
import type { EngineOptions } from '../engine/webgpu-engine.js';
import { blocksFor, kvBlockBytes } from '../kernels/kv-cache.js';
import { RemoteLane } from '../lanes/remote-lane.js';
import { laneSettings } from '../lanes/settings.js';
import { UserError } from '../lib/errors.js';
import { loadCheckpoint, loadWeights } from '../model/checkpoint.js';
import type { ModelConfig } from '../model/config.js';
import { paramLayout, type Buckets, type ParamLayout } from '../model/layout.js';
import type { Tokenizer } from '../model/tokenizer.js';
import { WeightStore } from '../weights/store.js';
import { engineOptions } from './engine-sizing.js';
import { resolveGenerateOptions, type GenerateInput, type GenerateOptions } from './generate-options.js';
import { Generation, type EncodedPrompt, type GenerationEvents } from './generation.js';

const JOB = 'generate';
const SLOTS_MAX = 64;
const BATCH_TOKENS_MAX = 512;
const STEPS_AHEAD = 4;
/** What waits in the engine's own queue, for each slot: a freed slot is filled at once. */
const QUEUED_PER_SLOT = 1;
/** Every device binds as much by default; only a tensor that is larger makes a larger bucket. */
const BUCKET_BYTES = 128 * 2 ** 20;
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
  // Before the device: a file that cannot be used is told at once.
  const weights = await loadLaidOut(options.model, config, paramLayout(config, bucketBytes(config)));
  let generation: Generation | null = null;
  const { adapter } = options;
  const lane = await RemoteLane.open(
    { lane: 0, adapter: adapter === '' ? null : adapter, settings: laneSettings(BUDGETS) },
    {
      onTokens: (update) => generation?.receive(update),
      onRecords: () => undefined,
      onBroken: (error) => generation?.fail(error),
    },
  );
  try {
    const engine = sizeEngine(config, prompts, options.n, lane.storageBindingBytesMax);
    await createEngine(lane, config, engine, await fitWeights(weights, options.model, config, lane));
    const { n: samples, seed, stop, temperature, topK, topP, minP } = options;
    const sampling = { temperature, topK, topP, minP };
    const sequencesMax = engine.slots * (1 + QUEUED_PER_SLOT);
    generation = new Generation(
      { prompts, samples, seed, sampling, stopTokenIds, stop, sequencesMax },
      tokenizer,
      {
        add: (sequences) => lane.request({ kind: 'add', job: JOB, sequences }),
        abort: (ids) => lane.request({ kind: 'abort', job: JOB, ids }),
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

interface LaidOutWeights {
  readonly layout: ParamLayout;
  readonly buckets: Buckets;
}

function bucketBytes(config: ModelConfig): number {
  const sizes = paramLayout(config, Infinity).tensors.map(({ rows, columns }) => rows * columns * 4);
  return Math.max(BUCKET_BYTES, ...sizes.map((bytes) => Math.ceil(bytes / 256) * 256));
}

async function loadLaidOut(
  folder: string,
  config: ModelConfig,
  layout: ParamLayout,
): Promise<LaidOutWeights> {
  return { layout, buckets: await loadWeights(folder, config, layout) };
}

/** The weights in buckets that the lane can bind: those at hand, as a rule. */
async function fitWeights(
  weights: LaidOutWeights,
  folder: string,
  config: ModelConfig,
  { storageBindingBytesMax }: RemoteLane,
): Promise<LaidOutWeights> {
  const largest = Math.max(...weights.layout.bucketElements) * 4;
  if (largest <= storageBindingBytesMax) return weights;
  return loadLaidOut(folder, config, paramLayout(config, storageBindingBytesMax));
}

/** An engine on the lane with the weights as its version 0. */
async function createEngine(
  lane: RemoteLane,
  config: ModelConfig,
  options: EngineOptions,
  { layout, buckets }: LaidOutWeights,
): Promise<void> {
  const store = WeightStore.create(layout);
  store.publish(0, buckets);
  await lane.request({
    kind: 'createEngine',
    job: JOB,
    weight: 1,
    config,
    layout,
    options,
    store: store.shared,
  });
  await lane.request({ kind: 'pull', job: JOB });
}
