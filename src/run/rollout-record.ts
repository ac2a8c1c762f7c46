import type { Tokenizer } from '../model/tokenizer.js';
import type { Rollout } from './rollouts.js';

/** Half-open stretches of tokens sampled under one version, as vLLM reports them. */
export interface VersionSpan {
  readonly version: number;
  readonly start: number;
  readonly end: number;
}

/** Neighbouring tokens of equal version joined. */
export function versionSpans(versions: readonly number[]): VersionSpan[] {
  const spans: VersionSpan[] = [];
  versions.forEach((version, i) => {
    const last = spans.at(-1);
    if (last?.version === version) spans[spans.length - 1] = { ...last, end: i + 1 };
    else spans.push({ version, start: i, end: i + 1 });
  });
  return spans;
}

/**
 * One line of rollouts.jsonl. `step` is the training step the rollout was for; `fate` says where its tokens are in
 * the summary's account.
 */
export function rolloutRecord(rollout: Rollout, tokenizer: Tokenizer): object {
  const { group, generated, reward } = rollout;
  return {
    id: rollout.id,
    step: group.step,
    task_key: group.task.key,
    sample_index: rollout.sampleIndex,
    prompt: group.task.prompt,
    text: tokenizer.decode(generated.tokenIds, group.promptTokenIds),
    prompt_token_ids: group.promptTokenIds,
    token_ids: generated.tokenIds,
    logprobs: generated.logprobs,
    raw_logprobs: generated.rawLogprobs,
    lanes: rollout.lanes,
    weight_versions: versionSpans(generated.versions),
    finish_reason: rollout.finishReason,
    reward: reward === null || reward.failed ? null : reward.reward,
    scores: reward === null || reward.failed ? null : reward.scores,
    failure: reward?.failed === true ? { reason: reward.reason, message: reward.message } : null,
    fate: rollout.fate ?? 'in_flight',
  };
}
