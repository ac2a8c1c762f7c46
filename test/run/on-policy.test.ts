import { beforeAll, expect, test } from 'vitest';
import type { RolloutLine, RunFiles } from './run-folders.js';
import { smallRun } from './runs.js';

/** Rollouts and training take turns. Few slots, so that rollouts wait for each other and share lanes. */
const ON_POLICY = ['algorithm.staleness_versions_max=0', 'engine.slots=6', 'steps=5'];

let run: RunFiles;
beforeAll(async () => {
  run = await smallRun(ON_POLICY);
});

/** Everything of a rollout but where it happened to run. */
function withoutLanes({ rollouts }: RunFiles): Omit<RolloutLine, 'lanes'>[] {
  return rollouts.map(({ lanes: _, ...rollout }) => rollout);
}

function expectSameRun(other: RunFiles): void {
  expect(withoutLanes(other)).toEqual(withoutLanes(run));
  expect(other.model('model.safetensors').equals(run.model('model.safetensors'))).toBe(true);
}

test('every ratio is exactly 1, and nothing is stale', () => {
  const trained = run.metrics.filter((line) => line['actor/loss'] !== undefined);
  expect(trained.length).toBeGreaterThan(2);
  for (const line of trained) {
    expect(line['actor/ratio_mean']).toBe(1);
    expect(line['actor/ratio_max']).toBe(1);
    expect(line['actor/clip_fraction']).toBe(0);
    expect(line['staleness/max']).toBe(0);
  }
  expect(run.summary.tokens.expired).toBe(0);
});

test('every token of a step is sampled under the weights of the steps before', () => {
  let version = 0;
  for (const { step, 'weights/version': after } of run.metrics) {
    const ofStep = run.rollouts.filter((rollout) => rollout.step === step);
    for (const { weight_versions, token_ids } of ofStep)
      expect(weight_versions).toEqual([{ version, start: 0, end: token_ids.length }]);
    version = after ?? NaN;
  }
});

test('the same seed gives the same run, bit for bit', async () => {
  expectSameRun(await smallRun(ON_POLICY));
});

test('so it does when slices are cut elsewhere', async () => {
  const cut = ['lanes.slice_budget_us=1000', 'lanes.in_flight_budget_us=1500', 'engine.batch_tokens=24'];
  expectSameRun(await smallRun([...ON_POLICY, ...cut]));
});

test('so it does on two lanes', async () => {
  const two = await smallRun([...ON_POLICY, 'lanes.count=2']);
  // The second lane took part.
  expect(new Set(two.rollouts.flatMap(({ lanes }) => lanes))).toEqual(new Set([0, 1]));
  expectSameRun(two);
});

test('another seed gives another run', async () => {
  const other = await smallRun([...ON_POLICY, 'seed=2', 'steps=1']);
  const keys = new Set(run.rollouts.map(({ task_key }) => task_key));
  expect(other.rollouts.every(({ task_key }) => keys.has(task_key))).toBe(false);
});

test('ratios leave 1 with the second update of a step', async () => {
  const twice = await smallRun([...ON_POLICY, 'algorithm.updates_per_step=2', 'steps=2']);
  const moved = twice.metrics.map((line) => line['actor/ratio_max'] ?? 1);
  expect(Math.max(...moved)).toBeGreaterThan(1);
  expect(twice.summary.weights.publishes).toBe(3);
});
