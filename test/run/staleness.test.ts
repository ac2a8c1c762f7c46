import { beforeAll, expect, test } from 'vitest';
import type { RolloutLine, RunFiles } from './run-folders.js';
import { smallRun } from './runs.js';

const STEPS = 6;

let run: RunFiles;
beforeAll(async () => {
  // Few slots: rollouts of the next step are still under way when this one trains.
  run = await smallRun([`steps=${STEPS}`, 'engine.slots=6', 'rollout.prompts_per_step=6']);
});

/** Version of the weights that the step trained. */
function trainedVersion(step: number): number {
  return run.metrics[step - 2]?.['weights/version'] ?? 0;
}

function staleness({ step, weight_versions }: RolloutLine): number {
  return trainedVersion(step) - Math.min(...weight_versions.map(({ version }) => version));
}

test('no rollout is trained that is older than the bound', () => {
  for (const rollout of run.rollouts) {
    if (rollout.fate === 'expired') expect(staleness(rollout)).toBeGreaterThan(1);
    else expect(staleness(rollout)).toBeLessThanOrEqual(1);
    expect(staleness(rollout)).toBeGreaterThanOrEqual(0);
  }
});

test('what metrics.jsonl says of staleness is what the rollouts say', () => {
  for (const line of run.metrics) {
    const trained = run.rollouts.filter(({ step, fate }) => step === line.step && fate === 'trained');
    const ages = trained.map(staleness);
    expect(line['staleness/max']).toBe(Math.max(0, ...ages));
    const mean = ages.reduce((sum, age) => sum + age, 0) / Math.max(1, ages.length);
    expect(line['staleness/mean']).toBeCloseTo(mean, 12);
  }
});

test('generation of a step overlaps the training of the one before', () => {
  expect(run.metrics[0]?.['staleness/max']).toBe(0);
  expect(Math.max(...run.metrics.map((line) => line['staleness/max'] ?? 0))).toBe(1);
  const spans = run.rollouts.map(({ weight_versions }) => weight_versions);
  // Some began before new weights came and went on under them.
  expect(spans.some((versions) => versions.length > 1)).toBe(true);
  for (const versions of spans) {
    const numbers = versions.map(({ version }) => version);
    expect(numbers).toEqual([...new Set(numbers)].sort((a, b) => a - b));
    for (const [i, { start, end }] of versions.entries()) {
      expect(start).toBe(versions[i - 1]?.end ?? 0);
      expect(end).toBeGreaterThan(start);
    }
  }
});

test('training took the device from generation, which came back with nothing lost', () => {
  const { count, time_to_yield_ms: yields, resume_ms: resumes, tokens_recomputed } = run.summary.preemption;
  expect(count).toBeGreaterThan(0);
  expect(tokens_recomputed).toBe(0);
  expect(yields.n).toBe(count);
  expect(resumes.n).toBeGreaterThan(0);
  for (const { p50, max } of [yields, resumes]) {
    expect(p50).toBeGreaterThanOrEqual(0);
    expect(max).toBeLessThan(run.summary.wall_seconds * 1000);
  }
  const spans = run.track('lane 0', 'preemptions');
  expect(spans.filter(({ name }) => name === 'time to yield')).toHaveLength(count);
  expect(spans.filter(({ name }) => name === 'resume')).toHaveLength(resumes.n);
});

test('while training holds the device, no slice of generation begins', () => {
  const engine = run.track('lane 0', 'engine');
  const held = run.track('lane 0', 'preemptions').filter(({ name }) => name === 'actorTraining');
  expect(held.length).toBeGreaterThan(0);
  for (const { ts: from = NaN, dur = NaN } of held) {
    const inside = engine.filter(({ ts = NaN }) => ts > from + 1 && ts < from + dur - 1);
    expect(inside.map(({ ts }) => ts)).toEqual([]);
  }
});
