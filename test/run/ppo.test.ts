import { beforeAll, describe, expect, test } from 'vitest';
import type { FaultKind, FaultMoment, LaneFault } from '#src/lanes/faults.js';
import { at } from '#src/lib/assert.js';
import { Random } from '#src/lib/prng.js';
import type { MetricsRecord } from '#src/telemetry/metrics.js';
import { seeds } from '../helpers/seeds.js';
import { type RolloutLine, type RunFiles, tokensOf } from './run-folders.js';
import { smallRun } from './runs.js';

const STEPS = 3;
/** Every stage there is; without staleness a run is a function of its seed. */
const PPO = [
  `steps=${STEPS}`,
  'algorithm.name=ppo',
  'algorithm.staleness_versions_max=0',
  'algorithm.kl_coefficient=0.05',
  'algorithm.old_log_probs=recomputed',
  'algorithm.gae_lambda=0.9',
  'algorithm.updates_per_step=2',
  'critic.epochs=2',
  'evaluation.heldout_prompts=0',
  'lanes.rebuilds_max=20',
];
const IN_A_STEP = ['valueCompute', 'oldLogProbs', 'refLogProbs', 'criticTraining', 'actorTraining'];

let run: RunFiles;
beforeAll(async () => {
  run = await smallRun(PPO);
});

/** When each of a stage's requests was granted and given back, in order, µs. */
function held(of: RunFiles, stage: string): { readonly from: number; readonly to: number }[] {
  return of
    .track('scheduler', stage)
    .filter(({ name }) => name === 'granted')
    .map(({ ts = NaN, dur = NaN }) => ({ from: ts, to: ts + dur }));
}

describe('a run with a critic', () => {
  test('goes through all seven stages, each step in its order', () => {
    const granted = new Map(IN_A_STEP.map((stage) => [stage, held(run, stage)]));
    for (const times of granted.values()) expect(times).toHaveLength(STEPS);
    const [init, ...more] = held(run, 'init');
    expect(more).toEqual([]);
    let last = init?.to ?? NaN;
    for (let step = 0; step < STEPS; step++) {
      // What generates for this step began after the weights of the one before were there.
      const tokens = run.track('lane 0', 'engine').filter(({ ts = NaN }) => ts > last);
      expect(tokens.length).toBeGreaterThan(0);
      for (const stage of IN_A_STEP) {
        const { from, to } = at(granted.get(stage) ?? [], step);
        expect(from, `${stage} of step ${step + 1}`).toBeGreaterThan(last);
        last = to;
      }
    }
  });

  test('has a critic on the lane, which runs in its own stages and when it is made', () => {
    const slices = run.track('lane 0', 'critic');
    expect(slices.length).toBeGreaterThan(3 * STEPS);
    const stages = ['init', 'valueCompute', 'criticTraining'].flatMap((stage) => held(run, stage));
    for (const { ts = NaN } of slices)
      expect(stages.some(({ from, to }) => from <= ts && ts <= to)).toBe(true);
  });

  test('says of the critic what it did, by names that verl has', () => {
    expect(run.metrics).toHaveLength(STEPS);
    const [first] = run.metrics;
    // A value head of zeros: no value is anything but 0, so nothing is foreseen.
    expect(first?.['critic/values/mean']).toBe(0);
    expect(first?.['critic/vf_explained_var']).toBe(0);
    expect(first?.['critic/advantages/mean']).toBeCloseTo(first?.['critic/returns/mean'] ?? NaN, 12);
    for (const line of run.metrics) {
      expect(line['critic/vf_loss']).toBeGreaterThan(0);
      expect(line['critic/grad_norm']).toBeGreaterThan(0);
      expect(line['critic/lr']).toBe(1e-3);
      expect(line['critic/vf_clipfrac']).toBeGreaterThanOrEqual(0);
      expect(line).toHaveProperty('actor/kl');
    }
    expect(run.metrics.at(-1)?.['critic/values/mean']).not.toBe(0);
  });

  test('trains on every rollout, and accounts for every token', () => {
    const { rollouts, summary } = run;
    expect(rollouts.every(({ fate }) => fate === 'trained')).toBe(true);
    expect(summary.tokens.trained).toBe(tokensOf(rollouts));
    expect(summary.steps).toBe(STEPS);
    expect(run.metrics.at(-1)?.['weights/version']).toBe(STEPS);
    expect(run.model('model.safetensors').length).toBeGreaterThan(0);
  });
});

/** All that a run comes to, its times and lanes apart. */
function content(of: RunFiles): object {
  const isTime = (name: string): boolean => /^(time|tokens\/per|preempt|scheduler|weights\/bytes)/.test(name);
  const metrics = of.metrics.map((line: MetricsRecord) =>
    Object.fromEntries(Object.entries(line).filter(([name]) => !isTime(name))),
  );
  const rollouts = of.rollouts
    .toSorted((a, b) => a.id - b.id)
    .map(({ lanes: _, ...rollout }: RolloutLine) => rollout);
  return { metrics, rollouts, weights: of.model('model.safetensors').toString('base64') };
}

async function expectSameWith(script: readonly LaneFault[][], label: string): Promise<RunFiles> {
  const disturbed = await smallRun(PPO, (_, epoch) => script[epoch] ?? []);
  expect(content(disturbed), label).toEqual(content(run));
  return disturbed;
}

describe('whose lane is lost comes to the same bits', () => {
  const lost = (moment: FaultMoment, after: number, kind: FaultKind): LaneFault[] => [
    { at: moment, after, do: kind },
  ];

  test('between the epochs of the critic, after the last one, and after the policy was trained', async () => {
    // Each step is answered six times: four updates of the critic, then two of the policy.
    const script = [
      lost('beforeAnswer', 1, 'throw'),
      lost('beforeAnswer', 3, 'exit'),
      lost('beforeAnswer', 5, 'exit'),
      lost('beforeAnswer', 4, 'throw'),
    ];
    const { summary } = await expectSameWith(script, JSON.stringify(script));
    expect(summary.lanes).toEqual({ rebuilt: 4, steps_repeated: 4 });
  });

  test.each(seeds())('anywhere, seed %i', async (seed) => {
    const random = new Random(5300 + seed);
    const script = Array.from({ length: 4 }, () =>
      lost(
        random.pick(['beforeSubmit', 'afterSubmit']),
        random.int(0, 400),
        random.pick(['throw', 'exit', 'destroyDevice']),
      ),
    );
    const label = `seed ${seed}: ${JSON.stringify(script)}`;
    const { summary } = await expectSameWith(script, label);
    expect(summary.lanes.rebuilt, label).toBeGreaterThan(0);
  });
});

test('while the critic warms up the policy stays as it is, and its tokens count as trained', async () => {
  const warm = await smallRun([...PPO, 'critic.warmup_steps=2']);
  const versions = warm.metrics.map((line) => line['weights/version']);
  expect(versions).toEqual([0, 0, 1]);
  const trained = warm.metrics.map((line) => 'actor/loss' in line);
  expect(trained).toEqual([false, false, true]);
  for (const line of warm.metrics) expect(line).toHaveProperty('critic/vf_loss');
  expect(warm.summary.tokens.trained).toBe(warm.summary.tokens.decoded);
  expect(held(warm, 'refLogProbs')).toHaveLength(1);
});

test('without a critic there are no such stages and no such numbers', async () => {
  const grpo = await smallRun(['steps=1', 'evaluation.heldout_prompts=0']);
  for (const stage of ['valueCompute', 'criticTraining']) expect(held(grpo, stage)).toEqual([]);
  expect(grpo.track('lane 0', 'critic')).toEqual([]);
  for (const name of ['critic/values/mean', 'critic/vf_loss', 'critic/lr'])
    expect(grpo.metrics[0]).not.toHaveProperty(name);
});

test('a critic learns to foresee rewards that the prompt decides, from one rollout a prompt', async () => {
  const { metrics, rollouts } = await smallRun([
    'steps=10',
    'algorithm.name=ppo',
    'algorithm.staleness_versions_max=0',
    'algorithm.updates_per_step=2',
    'task.name=./test/run/fixtures/foreseen-task.mjs',
    'rollout.prompts_per_step=24',
    'rollout.samples_per_prompt=1',
    'rollout.max_tokens=8',
    'critic.epochs=4',
    'critic.learning_rate=3e-3',
    'critic.warmup_steps=9',
    'evaluation.heldout_prompts=0',
    'output.checkpoint=false',
  ]);
  const explained = metrics.map((line) => line['critic/vf_explained_var'] ?? NaN);
  expect(explained[0]).toBe(0);
  expect(Math.min(...explained.slice(-3))).toBeGreaterThan(0.8);
  expect(new Set(rollouts.map(({ reward }) => reward))).toEqual(new Set([0, 1]));
});
