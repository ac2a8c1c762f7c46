import { beforeAll, describe, expect, it } from 'vitest';
import type { FaultMoment, LaneFault } from '#src/lanes/faults.js';
import { at } from '#src/lib/assert.js';
import { Random } from '#src/lib/prng.js';
import { Tokenizer } from '#src/model/tokenizer.js';
import { createEnvironment } from '#src/tasks/frozen-lake.js';
import { randomCharModel } from './char-models.js';
import { type RolloutLine, type RunFiles, tokensOf } from './run-folders.js';
import { type RunFaults, SHIPPED_MODEL, smallRun } from './runs.js';

const STEPS = 2;
/** On policy, so that a rollout depends on its step alone; all groups are trained on, those without a winner too. */
const LOAD = [
  `steps=${STEPS}`,
  'algorithm.staleness_versions_max=0',
  'algorithm.kl_coefficient=0.01',
  'evaluation.heldout_prompts=4',
];
const CALCULATOR = [
  ...LOAD,
  'task.name=calculator',
  'task.options={latency={median_ms=15, sigma=1, max_ms=200}}',
  'rollout.max_tokens=48',
];

/** What a rollout came to: neither where it ran nor how long its environment took. */
function outcomes({ rollouts }: RunFiles): object[] {
  return [...rollouts]
    .sort((a, b) => a.id - b.id)
    .map(({ lanes: _, episode, ...rollout }) => ({
      ...rollout,
      ...episode,
      environment_ms: 0,
      turns: episode?.turns.map((turn) => ({ ...turn, environment_ms: 0 })),
    }));
}

function expectSame(run: RunFiles, other: RunFiles, label: string): void {
  expect(outcomes(run), label).toEqual(outcomes(other));
  expect(run.model('model.safetensors').equals(other.model('model.safetensors')), label).toBe(true);
}

function episodeOf({ episode }: RolloutLine): NonNullable<RolloutLine['episode']> {
  if (episode === undefined) throw new Error('a rollout without turns');
  return episode;
}

/** All that holds of any run of a task of several turns. */
function expectWhole(run: RunFiles, tokenizer: Tokenizer): void {
  const { summary, rollouts, metrics } = run;
  expect(rollouts).toHaveLength(STEPS * 16);
  expect(summary.steps).toBe(STEPS);
  const { decoded, trained, filtered, aborted, expired, in_flight } = summary.tokens;
  expect(decoded).toBe(tokensOf(rollouts));
  expect(decoded).toBe(trained + filtered);
  expect([aborted, expired, in_flight]).toEqual([0, 0, 0]);
  for (const line of metrics) {
    // The trainer, given the transcripts as the host has them, comes to the engine's very log-probabilities.
    expect([line['actor/ratio_mean'], line['actor/ratio_max']]).toEqual([1, 1]);
    const ofStep = rollouts.filter(({ step }) => step === line.step).map(episodeOf);
    const turns = ofStep.reduce((sum, episode) => sum + episode.turns.length, 0);
    expect(line['rollout/turns/mean']).toBe(turns / ofStep.length);
    expect(line['rollout/truncated']).toBe(ofStep.filter(({ truncated }) => truncated).length);
    expect(line['rollout/environment_ms/mean']).toBeGreaterThan(0);
  }
  for (const rollout of rollouts) expectTranscript(rollout, tokenizer);
}

/** Tokens and texts say the same: what was read is what the environment said, what was sampled is its turns. */
function expectTranscript(rollout: RolloutLine, tokenizer: Tokenizer): void {
  const { opening, opening_token_ids: openingIds, turns } = episodeOf(rollout);
  const encode = (text: string): number[] => tokenizer.encode(text, { specialTokens: false });
  expect(rollout.failure).toBeNull();
  expect(tokenizer.encode(rollout.prompt)).toEqual(rollout.prompt_token_ids);
  expect(encode(opening)).toEqual(openingIds);
  let transcript = '';
  turns.forEach((turn, i) => {
    const isLast = i === turns.length - 1;
    expect(turn.start).toBe(turns[i - 1]?.end ?? 0);
    expect(turn.end).toBeGreaterThan(turn.start);
    expect(turn.text).toBe(tokenizer.decode(rollout.token_ids.slice(turn.start, turn.end)));
    expect(turn.observation_token_ids).toEqual(isLast ? [] : encode(turn.observation));
    transcript += turn.text + (isLast ? '' : turn.observation);
  });
  expect(turns.at(-1)?.end).toBe(rollout.token_ids.length);
  expect(rollout.text).toBe(opening + transcript);
}

describe('a run of calculator', () => {
  let tokenizer: Tokenizer;
  let run: RunFiles;
  beforeAll(async () => {
    tokenizer = await Tokenizer.load(SHIPPED_MODEL);
    run = await smallRun(CALCULATOR);
  });

  it('is whole: transcripts, masks, tokens', () => {
    expectWhole(run, tokenizer);
    const turns = run.rollouts.flatMap((rollout) => episodeOf(rollout).turns);
    expect(turns.length).toBeGreaterThan(2 * run.rollouts.length);
    expect(turns.some(({ text, observation }) => text === '7+6+0=' && observation === '13;')).toBe(true);
    expect(run.rollouts.some(({ reward }) => reward === 1)).toBe(true);
    expect(run.summary.reward.heldout_before).not.toBeNull();
  });

  it('comes to the same bits on two lanes, one of which is put to sleep, with hardly a slot', async () => {
    const set = [
      ...CALCULATOR,
      'lanes.count=2',
      'engine.slots=3',
      'engine.batch_tokens=8',
      'lanes.slice_budget_us=1000',
      'scheduler.reserve=[{lane=1, from_step=2, until_step=3}]',
    ];
    const two = await smallRun(set);
    expect(new Set(two.rollouts.flatMap(({ lanes }) => lanes))).toEqual(new Set([0, 1]));
    expectSame(two, run, 'two lanes');
  });

  it('comes to the same bits when lanes die in the middle of episodes', async () => {
    const random = new Random(4200);
    const fault = (moment: FaultMoment, most: number): LaneFault[] => [
      { at: moment, after: random.int(1, most), do: random.pick(['throw', 'exit', 'destroyDevice']) },
    ];
    const script = [
      [fault('beforeCommit', 9), fault('afterSubmit', 40), fault('beforeCommit', 9)],
      [fault('beforeCommit', 9), fault('beforeCommit', 9)],
    ];
    const faults: RunFaults = (lane, epoch) => script[lane]?.[epoch] ?? [];
    const set = [...CALCULATOR, 'lanes.count=2', 'engine.slots=4', 'lanes.rebuilds_max=20'];
    const lost = await smallRun(set, faults);
    const label = `seed 4200: ${JSON.stringify(script)}`;
    expect(lost.summary.lanes.rebuilt, label).toBeGreaterThanOrEqual(3);
    expectSame(lost, run, label);
  });

  it('goes on under newer weights with the default staleness, and its account still closes', async () => {
    const stale = await smallRun([...CALCULATOR, 'algorithm.staleness_versions_max=1', 'steps=4']);
    const { decoded, trained, filtered, expired } = stale.summary.tokens;
    expect(decoded).toBe(tokensOf(stale.rollouts));
    expect(decoded).toBe(trained + filtered + expired);
    for (const rollout of stale.rollouts) expectTranscript(rollout, tokenizer);
  });
});

describe('a run of frozenLake', () => {
  it('is whole, with a model that never makes a move', async () => {
    const { alphabet = '' } = createEnvironment({});
    const model = await randomCharModel(alphabet, 256);
    const tokenizer = await Tokenizer.load(model);
    const set = [
      ...LOAD,
      `model.path=${model}`,
      'task.name=frozenLake',
      'rollout.max_tokens=100',
      'rollout.turn_tokens_max=12',
      'rollout.turns_max=6',
    ];
    const run = await smallRun(set);
    expectWhole(run, tokenizer);
    for (const rollout of run.rollouts) {
      const { turns, stop_condition: stop, truncated } = episodeOf(rollout);
      expect([stop, truncated]).toEqual(['turns', true]);
      expect(turns).toHaveLength(6);
      // Every board is that of the prompt, since nobody moved, and says so.
      for (const { observation } of turns) expect(observation).toBe(`Invalid\n${rollout.prompt}`);
      expect(rollout.reward).toBeCloseTo(-0.06, 12);
    }
  });

  it('ends a rollout that has no room for another turn', async () => {
    const { alphabet = '' } = createEnvironment({});
    const model = await randomCharModel(alphabet, 128);
    const set = [...LOAD, `model.path=${model}`, 'task.name=frozenLake', 'rollout.turn_tokens_max=12'];
    const run = await smallRun([
      ...set,
      'rollout.context_tokens_max=80',
      'rollout.max_tokens=200',
      'steps=1',
    ]);
    for (const rollout of run.rollouts) {
      const { turns, stop_condition: stop } = episodeOf(rollout);
      expect(stop).toBe('length');
      const read = turns.reduce((sum, turn) => sum + turn.observation_token_ids.length, 0);
      const tokens = rollout.prompt_token_ids.length + rollout.token_ids.length + read;
      expect(tokens).toBeLessThanOrEqual(80);
      // The answer to its last turn would not have fitted.
      expect(tokens + at(turns, turns.length - 1).observation.length).toBeGreaterThanOrEqual(80);
    }
  });
});
