import { allTokens } from '../engine/episode.js';
import type { Tokenizer } from '../model/tokenizer.js';
import { isTruncated } from './episodes.js';
import { type Rollout, type RolloutEpisode, transcriptOf } from './rollout.js';

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
  const { group, generated, reward, episode } = rollout;
  return {
    id: rollout.id,
    step: group.step,
    task_key: group.task.key,
    sample_index: rollout.sampleIndex,
    prompt: group.task.prompt,
    text: tokenizer.decode(transcriptOf(rollout).slice(group.promptTokenIds.length), group.promptTokenIds),
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
    ...(episode !== undefined && { episode: episodeLine(rollout, episode, tokenizer) }),
  };
}

/**
 * What several turns add. The transcript is the prompt, the opening, then each turn's tokens (`start` to `end` of the
 * rollout's `token_ids`) and what was read behind them. The last observation is on record, but no model read it.
 */
function episodeLine(
  { generated, request, group }: Rollout,
  { observations, turnEnds, record }: RolloutEpisode,
  tokenizer: Tokenizer,
): object {
  const readAfter = (sampled: number): readonly number[] =>
    observations.find(({ after }) => after === sampled)?.tokenIds ?? [];
  const turns = turnEnds.map((end, i) => {
    const start = turnEnds[i - 1] ?? 0;
    const turn = record?.turns[i];
    const read = readAfter(end);
    const before = allTokens(
      request.promptTokenIds,
      generated.tokenIds.slice(0, start),
      observations.filter(({ after }) => after <= start),
    );
    const ids = generated.tokenIds.slice(start, end);
    return {
      start,
      end,
      text: tokenizer.decode(ids, before),
      finish_reason: turn?.action.finishReason ?? null,
      observation: turn?.observation ?? tokenizer.decode(read, [...before, ...ids]),
      observation_token_ids: read,
      reward: turn?.reward ?? null,
      environment_ms: turn?.environmentMs ?? null,
    };
  });
  return {
    opening: record?.opening ?? tokenizer.decode(readAfter(0), group.promptTokenIds),
    opening_token_ids: readAfter(0),
    turns,
    stop_condition: record?.stopCondition ?? null,
    truncated: record === null ? null : isTruncated(record),
    environment_ms: record?.environmentMs ?? null,
  };
}
