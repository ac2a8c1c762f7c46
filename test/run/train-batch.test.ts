import { describe, expect, test } from 'vitest';
import { noTokens } from '#src/engine/sequence.js';
import { at } from '#src/lib/assert.js';
import { TokenLedger } from '#src/run/ledger.js';
import type { Group, Rollout } from '#src/run/rollouts.js';
import { type BatchRules, makeTrainBatch } from '#src/run/train-batch.js';
import { buildTranscript } from '#src/tasks/transcript.js';
import { groupAdvantages } from '#src/train/advantages.js';

interface Made {
  /** Null: the reward failed. */
  readonly reward: number | null;
  readonly tokens?: number;
  /** Versions of the first token and of the rest. */
  readonly versions?: readonly [number, number];
}

const PROMPT = [1, 11, 12];
let nextId = 1;

function makeGroup(made: readonly Made[]): Group {
  const rollouts: Rollout[] = [];
  const task = { key: 'one', prompt: 'ab', info: null };
  const group: Group = {
    task,
    step: 3,
    promptTokenIds: PROMPT,
    rollouts,
    finished: Promise.resolve(),
    scored: Promise.resolve(),
  };
  for (const { reward, tokens = 2, versions: [first, rest] = [2, 2] } of made) {
    const id = nextId++;
    const generated = noTokens();
    for (let i = 0; i < tokens; i++) {
      generated.tokenIds.push(20 + i);
      generated.logprobs.push(-(i + 1) / 8);
      generated.rawLogprobs.push(-1);
      generated.versions.push(i === 0 ? first : rest);
    }
    rollouts.push({
      id,
      group,
      sampleIndex: rollouts.length,
      request: {
        id,
        promptTokenIds: PROMPT,
        generated: noTokens(),
        tokensMax: 8,
        sampling: { temperature: 0.5, topK: 3, topP: 1, minP: 0 },
        key: [1, 2],
        stopTokenIds: [],
      },
      generated,
      lane: null,
      lanes: [0],
      finishReason: 'stop',
      finishedMs: 1,
      reward:
        reward === null
          ? { failed: true, reason: 'threw', message: 'no luck' }
          : { failed: false, reward, scores: { main: reward } },
      fate: null,
    });
  }
  return group;
}

const RULES: BatchRules = {
  advantage: 'mean',
  lossAggregation: 'token',
  tokensMax: 8,
  version: 2,
  stalenessVersionsMax: 1,
  keepsEqualGroups: false,
  updates: 1,
};

function make(groups: readonly Group[], rules: Partial<BatchRules> = {}, ledger = new TokenLedger()) {
  return makeTrainBatch(groups, { ...RULES, ...rules }, ledger);
}

function fates(group: Group): (string | null)[] {
  return group.rollouts.map(({ fate }) => fate);
}

describe('a sequence', () => {
  test('carries its loss where the completion is predicted', () => {
    const group = makeGroup([
      { reward: 1, tokens: 3 },
      { reward: 0, tokens: 1 },
    ]);
    const { updates } = make([group]);
    const { sequences, rollouts } = at(updates, 0);
    expect(rollouts).toEqual(group.rollouts);
    const [long, short] = [at(sequences, 0), at(sequences, 1)];
    expect([...Array.from(long.tokens)]).toEqual([1, 11, 12, 20, 21, 22]);
    expect([...long.weights]).toEqual([0, 0, 0.25, 0.25, 0.25, 0]);
    expect([...long.oldLogprobs]).toEqual([0, 0, -0.125, -0.25, -0.375, 0]);
    expect([...short.weights]).toEqual([0, 0, 0.25, 0]);
    expect([long.advantage, short.advantage]).toEqual([0.5, -0.5]);
    expect(long.sampling).toEqual({ temperature: 0.5, topK: 3, topP: 1, minP: 0 });
    expect(long.refLogprobs).toBeNull();
  });

  test('of several turns carries it where tokens were sampled, and nowhere else', () => {
    const group = makeGroup([{ reward: 1, tokens: 4 }, { reward: 0 }]);
    const rollout = at(group.rollouts, 0);
    const observations = [
      { after: 0, tokenIds: [30] },
      { after: 1, tokenIds: [31, 32] },
      { after: 3, tokenIds: [33] },
    ];
    const episode = { seed: 1, observations, turnEnds: [1, 3, 4], tokensMax: 4, record: null };
    const { updates } = make([{ ...group, rollouts: [{ ...rollout, episode }, at(group.rollouts, 1)] }]);
    const { tokens, weights, oldLogprobs } = at(at(updates, 0).sequences, 0);
    expect(Array.from(tokens)).toEqual([1, 11, 12, 30, 20, 31, 32, 21, 22, 33, 23]);
    const share = Math.fround(1 / 6);
    expect([...weights]).toEqual([0, 0, 0, share, 0, 0, share, share, 0, share, 0]);
    expect([...oldLogprobs]).toEqual([0, 0, 0, -0.125, 0, 0, -0.25, -0.375, 0, -0.5, 0]);

    // The tasks' own transcript of the same episode says so too.
    const texts = new Map(observations.map(({ tokenIds }) => [tokenIds.join(), tokenIds]));
    const transcript = buildTranscript(
      {
        promptTokenIds: PROMPT,
        opening: '30',
        turns: [
          { completionTokenIds: [20], observation: '31,32' },
          { completionTokenIds: [21, 22], observation: '33' },
          { completionTokenIds: [23], observation: '' },
        ],
      },
      { encode: (text) => texts.get(text) ?? [] },
    );
    expect(Array.from(tokens)).toEqual(transcript.tokenIds);
    expect([...weights].map((weight) => (weight > 0 ? 1 : 0))).toEqual([...transcript.lossMask.slice(1), 0]);
  });

  test('weighs what the aggregation says', () => {
    const group = (): Group =>
      makeGroup([
        { reward: 1, tokens: 3 },
        { reward: 0, tokens: 1 },
      ]);
    const weights = (lossAggregation: BatchRules['lossAggregation']): number[] =>
      at(make([group()], { lossAggregation }).updates, 0).sequences.map(({ weights: all }) => at(all, 2));
    expect(weights('token')).toEqual([1 / 4, 1 / 4]);
    expect(weights('sequence').map((weight) => weight * 6)).toEqual([Math.fround(1 / 6) * 6, 3]);
    expect(weights('constant')).toEqual([1 / 16, 1 / 16]);
  });

  test('has the advantage over its own group', () => {
    const one = makeGroup([{ reward: 3 }, { reward: 1 }, { reward: 1 }]);
    const other = makeGroup([{ reward: 0 }, { reward: -2 }]);
    const { updates, advantageMean } = make([one, other], { advantage: 'std' });
    const advantages = at(updates, 0).sequences.map(({ advantage }) => advantage);
    expect(advantages).toEqual([...groupAdvantages([3, 1, 1], 'std'), ...groupAdvantages([0, -2], 'std')]);
    expect(advantageMean).toBeCloseTo(0, 12);
  });
});

describe('what is left out', () => {
  test('expired rollouts are those whose oldest token is too old, and say nothing to their group', () => {
    const ledger = new TokenLedger();
    const group = makeGroup([
      { reward: 1, versions: [0, 2], tokens: 5 },
      { reward: 1, versions: [1, 2] },
      { reward: 0 },
    ]);
    const batch = make([group], {}, ledger);
    expect(fates(group)).toEqual(['expired', null, null]);
    expect(at(batch.updates, 0).sequences.map(({ advantage }) => advantage)).toEqual([0.5, -0.5]);
    expect(batch.stalenessMax).toBe(1);
    expect(batch.stalenessMean).toBe(0.5);
    expect(ledger.counts(9)).toMatchObject({ expired: 5, filtered: 0, in_flight: 4 });
  });

  test('failed rewards are filtered; one that is also too old is expired', () => {
    const ledger = new TokenLedger();
    const group = makeGroup([
      { reward: null, tokens: 3 },
      { reward: null, versions: [0, 0] },
      { reward: 1 },
      { reward: 0 },
    ]);
    make([group], {}, ledger);
    expect(fates(group)).toEqual(['filtered', 'expired', null, null]);
    expect(ledger.counts(9)).toMatchObject({ expired: 2, filtered: 3, in_flight: 4 });
  });

  test('equal groups are filtered whole, also when failures made them equal', () => {
    const ledger = new TokenLedger();
    const equal = makeGroup([{ reward: 1 }, { reward: 1 }]);
    const leftAlone = makeGroup([{ reward: 1 }, { reward: null }]);
    const batch = make([equal, leftAlone], {}, ledger);
    expect(batch.updates).toEqual([]);
    expect(fates(equal)).toEqual(['filtered', 'filtered']);
    expect(fates(leftAlone)).toEqual(['filtered', 'filtered']);
    expect(ledger.counts(8)).toMatchObject({ filtered: 8, in_flight: 0 });
    expect([batch.advantageMean, batch.stalenessMean, batch.stalenessMax]).toEqual([0, 0, 0]);
  });

  test('a KL term keeps equal groups', () => {
    const equal = makeGroup([{ reward: 1 }, { reward: 1 }]);
    const { updates } = make([equal], { keepsEqualGroups: true });
    expect(at(updates, 0).sequences.map(({ advantage }) => advantage)).toEqual([0, 0]);
    expect(fates(equal)).toEqual([null, null]);
  });

  test('with a bound of 0 nothing stale is trained', () => {
    const group = makeGroup([{ reward: 1, versions: [1, 2] }, { reward: 1 }, { reward: 0 }]);
    make([group], { stalenessVersionsMax: 0 });
    expect(fates(group)).toEqual(['expired', null, null]);
  });
});

describe('several updates', () => {
  const five = (): Group[] => [
    makeGroup([{ reward: 1 }, { reward: 0 }, { reward: 0 }]),
    makeGroup([{ reward: 1 }, { reward: 0, tokens: 4 }]),
  ];

  test('deal out every rollout once, neighbours together', () => {
    const groups = five();
    const { updates } = make(groups, { updates: 2 });
    const all = groups.flatMap(({ rollouts }) => rollouts);
    expect(updates.map(({ rollouts }) => rollouts.length)).toEqual([2, 3]);
    expect(updates.flatMap(({ rollouts }) => rollouts)).toEqual(all);
    for (const { rollouts, sequences } of updates) {
      expect(sequences.map(({ tokens }) => tokens.length)).toEqual(
        rollouts.map(({ generated }) => PROMPT.length + generated.tokenIds.length),
      );
    }
  });

  test('each weigh as a whole batch', () => {
    for (const lossAggregation of ['token', 'sequence'] as const) {
      for (const { sequences } of make(five(), { updates: 2, lossAggregation }).updates) {
        const sum = sequences.flatMap(({ weights }) => [...weights]).reduce((a, b) => a + b, 0);
        expect(sum).toBeCloseTo(1, 6);
      }
    }
  });

  test('are never empty', () => {
    const { updates } = make(five(), { updates: 64 });
    expect(updates.map(({ rollouts }) => rollouts.length)).toEqual([1, 1, 1, 1, 1]);
  });
});

test('the ledger counts no rollout twice', () => {
  const ledger = new TokenLedger();
  const [rollout] = makeGroup([{ reward: 1 }]).rollouts;
  if (rollout === undefined) throw new Error('a group of one');
  ledger.settle(rollout, 'trained');
  expect(() => ledger.settle(rollout, 'filtered')).toThrow(
    `rollout ${rollout.id} was trained and is filtered`,
  );
  expect(() => ledger.counts(1)).toThrow('1 tokens more were used than decoded');
});
