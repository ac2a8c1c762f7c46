import { join } from 'node:path';
import { STOP_IDS_MAX } from '../engine/step-tables.js';
import type { EngineOptions } from '../engine/webgpu-engine.js';
import { UserError } from '../lib/errors.js';
import { loadCheckpoint, loadWeights } from '../model/checkpoint.js';
import type { ModelConfig } from '../model/config.js';
import { type Buckets, type ParamLayout, paramLayout } from '../model/layout.js';
import type { Tokenizer } from '../model/tokenizer.js';
import { isMultiTurn } from '../tasks/task.js';
import { criticLayout } from '../train/critic-layout.js';
import { openEnvironment, type OpenedEnvironment } from '../tasks/registry.js';
import type { RunConfig } from './config.js';
import { engineOptions } from './engine-sizing.js';
import type { TurnLimits } from './episodes.js';
import { type Prompt, PromptSource } from './prompt-source.js';
import { checkAlphabet, turnLimits, turnStops } from './turn-limits.js';

/** Tasks of one environment are alike in length: the longest of so many stands for those not drawn yet. */
const PROMPTS_PROBED = 512;

/** Buckets no larger than this even where an adapter would bind more: a publish moves bucket by bucket. */
const BUCKET_BYTES_MAX = 128 * 2 ** 20;

/** What a run is made of, found good; nothing has been opened or written yet. */
export interface Prepared {
  readonly config: RunConfig;
  readonly model: ModelConfig;
  readonly layout: ParamLayout;
  /** Null for an algorithm without a critic. */
  readonly criticLayout: ParamLayout | null;
  readonly tokenizer: Tokenizer;
  readonly opened: OpenedEnvironment;
  readonly prompts: PromptSource;
  readonly heldout: readonly Prompt[];
  readonly engine: EngineOptions;
  readonly stopTokenIds: readonly number[];
  /** Longest prompt there is room for beside a whole completion, or the first token of an episode, in tokens. */
  readonly promptTokensMax: number;
  /** How far an episode may go; null in tasks of a single turn. */
  readonly turns: TurnLimits | null;
}

/**
 * Reads model and task and checks that they go together with the configuration: all that can be known without a
 * device.
 *
 * @throws UserError for whatever of it cannot be used.
 */
export async function prepareRun(config: RunConfig): Promise<Prepared & { readonly weights: Buckets }> {
  const { config: model, tokenizer } = await loadCheckpoint(config.model.path);
  const ownStops = findStopTokens(config, model);
  const opened = await openEnvironment(config.task.name, config.task.options, process.cwd());
  const { environment } = opened;
  if (isMultiTurn(environment)) checkAlphabet(environment, tokenizer);
  const stopTokenIds = turnStops(environment, tokenizer, ownStops);
  const prompts = new PromptSource(environment, tokenizer, config.seed);
  const heldout = prompts.heldout(config.evaluation.heldoutPrompts);
  checkHeldout(config, heldout, prompts);
  const longest = longestPrompt(prompts, heldout);
  const turns = isMultiTurn(environment) ? turnLimits(config, model, longest) : null;
  const completionTokensMax =
    turns === null ? completionRoom(config, longest) : turns.contextTokensMax - longest;
  const engine = engineOptions(model, {
    ...config.engine,
    promptTokensMax: longest,
    completionTokensMax,
  });
  const layout = paramLayout(model, BUCKET_BYTES_MAX);
  const weights = await loadWeights(config.model.path, model, layout);
  const { microBatchTokens } = config.optimizer;
  const promptTokensMax =
    turns === null
      ? Math.min(engine.contextTokensMax, microBatchTokens) - config.rollout.maxTokens
      : turns.contextTokensMax - 1;
  return {
    config,
    model,
    layout,
    criticLayout: config.algorithm.name === 'ppo' ? criticLayoutOf(model, layout) : null,
    tokenizer,
    opened,
    prompts,
    heldout,
    engine,
    stopTokenIds,
    promptTokensMax,
    turns,
    weights,
  };
}

/** @throws UserError when a micro-batch cannot hold the longest prompt and its completion. */
function completionRoom({ rollout: { maxTokens }, optimizer }: RunConfig, promptTokens: number): number {
  const { microBatchTokens } = optimizer;
  if (promptTokens + maxTokens <= microBatchTokens) return maxTokens;
  throw new UserError(
    `optimizer.micro_batch_tokens is ${microBatchTokens}, a prompt of ${promptTokens} tokens and rollout.max_tokens ${maxTokens} make ${promptTokens + maxTokens}: raise it or lower rollout.max_tokens`,
  );
}

/** No bucket is larger than the policy's largest, which the adapter is checked for. */
function criticLayoutOf(model: ModelConfig, { bucketElements }: ParamLayout): ParamLayout {
  return criticLayout(model, 4 * Math.max(...bucketElements));
}

/** What ends a rollout: the model's own end tokens, and those the configuration adds. */
function findStopTokens({ model: { path }, rollout }: RunConfig, model: ModelConfig): number[] {
  const stranger = rollout.stopTokenIds.find((id) => id >= model.vocabSize);
  if (stranger !== undefined) {
    throw new UserError(
      `rollout.stop_token_ids has ${stranger}, the model's ids go from 0 to ${model.vocabSize - 1}: remove it`,
    );
  }
  const ids = [...new Set([...model.eosTokenIds, ...rollout.stopTokenIds])];
  if (ids.length <= STOP_IDS_MAX) return ids;
  throw new UserError(
    `${join(path, 'config.json')}: eos_token_id has ${model.eosTokenIds.length} ids and rollout.stop_token_ids ${rollout.stopTokenIds.length}, at most ${STOP_IDS_MAX} can stop a rollout: remove some`,
  );
}

function checkHeldout(config: RunConfig, heldout: readonly Prompt[], prompts: PromptSource): void {
  const wanted = config.evaluation.heldoutPrompts;
  if (heldout.length === wanted) return;
  throw new UserError(
    `evaluation.heldout_prompts is ${wanted}, the task "${prompts.taskName}" has ${heldout.length} held-out tasks with these options: lower it or widen the task`,
  );
}

function longestPrompt(prompts: PromptSource, heldout: readonly Prompt[]): number {
  let longest = heldout.reduce((most, { tokenIds }) => Math.max(most, tokenIds.length), 1);
  let left = PROMPTS_PROBED;
  for (const { tokenIds } of prompts.train()) {
    longest = Math.max(longest, tokenIds.length);
    if (--left === 0) break;
  }
  return longest;
}
