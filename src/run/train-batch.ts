import { lossMask } from '../engine/episode.js';
import { at } from '../lib/assert.js';
import { groupAdvantages, type AdvantageScale } from '../train/advantages.js';
import { lossWeights, type LossAggregation } from '../train/aggregate.js';
import type { TrainSequence } from '../train/batch.js';
import type { TokenLedger } from './ledger.js';
import { transcriptOf } from './rollout.js';
import { oldestVersion, type Group, type Rollout } from './rollouts.js';

export interface BatchRules {
  readonly advantage: AdvantageScale;
  readonly lossAggregation: LossAggregation;
  /** Longest completion, for the `constant` aggregation. */
  readonly tokensMax: number;
  /** Version of the weights that will be trained. */
  readonly version: number;
  /** A rollout with a token sampled more versions ago than this is expired. */
  readonly stalenessVersionsMax: number;
  /** Rollouts that did as well as their whole group: only a KL term has something to say about them. */
  readonly keepsEqualGroups: boolean;
  /** Optimizer steps that the batch is dealt out to, as evenly as its rollouts allow. */
  readonly updates: number;
}

/** What one optimizer step takes: two lists that run side by side, neither empty. */
export interface TrainUpdate {
  readonly rollouts: readonly Rollout[];
  readonly sequences: readonly TrainSequence[];
}

export interface TrainBatch {
  /** One an optimizer step. The weights of each sum as if it were the whole batch. */
  readonly updates: readonly TrainUpdate[];
  /** Mean advantage over trained tokens. */
  readonly advantageMean: number;
  readonly stalenessMean: number;
  readonly stalenessMax: number;
}

/**
 * Turns scored groups into what the trainer takes, and settles the tokens of every rollout that it does not take:
 * failed rewards and groups without any difference are filtered, rollouts beyond the staleness bound are expired.
 */
export function makeTrainBatch(groups: readonly Group[], rules: BatchRules, ledger: TokenLedger): TrainBatch {
  const chosen = groups.flatMap((group) => chooseRollouts(group, rules, ledger));
  const updates = deal(chosen, rules.updates).map((part) => {
    const lengths = part.map(({ rollout }) => rollout.generated.tokenIds.length);
    const weights = lossWeights(lengths, rules.lossAggregation, rules.tokensMax);
    const sequences = part.map(({ rollout, advantage }, i) =>
      trainSequence(rollout, advantage, at(weights, i)),
    );
    return { rollouts: part.map(({ rollout }) => rollout), sequences };
  });
  const tokens = chosen.reduce((sum, { rollout }) => sum + rollout.generated.tokenIds.length, 0);
  const staleness = chosen.map(({ rollout }) => rules.version - oldestVersion(rollout));
  return {
    updates,
    advantageMean:
      chosen.reduce((sum, { rollout, advantage }) => sum + advantage * rollout.generated.tokenIds.length, 0) /
      Math.max(1, tokens),
    stalenessMean: staleness.reduce((sum, age) => sum + age, 0) / Math.max(1, staleness.length),
    stalenessMax: Math.max(0, ...staleness),
  };
}

/** Neighbours stay together, so that a group's rollouts meet in one update where they can. */
function deal<T>(items: readonly T[], parts: number): T[][] {
  const dealt: T[][] = [];
  for (let part = 0; part < parts; part++) {
    const start = Math.floor((items.length * part) / parts);
    const end = Math.floor((items.length * (part + 1)) / parts);
    if (end > start) dealt.push(items.slice(start, end));
  }
  return dealt;
}

function chooseRollouts(
  group: Group,
  rules: BatchRules,
  ledger: TokenLedger,
): { rollout: Rollout; advantage: number }[] {
  const fresh: { rollout: Rollout; reward: number }[] = [];
  for (const rollout of group.rollouts) {
    if (rules.version - oldestVersion(rollout) > rules.stalenessVersionsMax)
      ledger.settle(rollout, 'expired');
    else if (rollout.reward === null || rollout.reward.failed) ledger.settle(rollout, 'filtered');
    else fresh.push({ rollout, reward: rollout.reward.reward });
  }
  const advantages = groupAdvantages(
    fresh.map(({ reward }) => reward),
    rules.advantage,
  );
  const chosen: { rollout: Rollout; advantage: number }[] = [];
  fresh.forEach(({ rollout }, i) => {
    const advantage = at(advantages, i);
    if (advantage === 0 && !rules.keepsEqualGroups) ledger.settle(rollout, 'filtered');
    else chosen.push({ rollout, advantage });
  });
  return chosen;
}

/** Position t predicts token t + 1. Only what was sampled has a loss: prompt and observations were read. */
function trainSequence(rollout: Rollout, advantage: number, weight: number): TrainSequence {
  const { group, generated, episode, request } = rollout;
  const { logprobs } = generated;
  const tokens = Int32Array.from(transcriptOf(rollout));
  const mask = lossMask(group.promptTokenIds.length, logprobs.length, episode?.observations ?? []);
  const weights = new Float32Array(tokens.length);
  const oldLogprobs = new Float32Array(tokens.length);
  let sampled = 0;
  mask.forEach((isSampled, place) => {
    if (isSampled === 0) return;
    weights[place - 1] = weight;
    oldLogprobs[place - 1] = at(logprobs, sampled++);
  });
  return { tokens, weights, sampling: request.sampling, advantage, oldLogprobs, refLogprobs: null };
}
