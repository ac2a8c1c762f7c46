import { expect, test } from 'vitest';
import { tokensOf, type RolloutLine, type RunFiles } from './run-folders.js';
import { smallRun, type RunFaults } from './runs.js';

/** 4 prompts by 4 a step: short rounds start 5 by 5, each leaves one prompt behind, and the fifth round is long. */
const ROUNDS = ['scheduler.policy=tailBatch', 'algorithm.staleness_versions_max=0', 'steps=5'];

const used = ({ rollouts }: RunFiles): RolloutLine[] => rollouts.filter(({ fate }) => fate !== 'aborted');

function expectAccountCloses({ summary, rollouts }: RunFiles): void {
  const { decoded, trained, aborted, expired, filtered, in_flight } = summary.tokens;
  expect(decoded).toBe(trained + aborted + expired + filtered + in_flight);
  expect(tokensOf(rollouts)).toBe(decoded);
  expect(tokensOf(rollouts.filter(({ fate }) => fate === 'aborted'))).toBe(aborted);
}

/** The first 20 prompts of the source, each once, by 4; on the way each is started once or, deferred, twice. */
function expectWholeCycle(run: RunFiles): void {
  expect(run.metrics.map((line) => line['rollout/long_round'])).toEqual([0, 0, 0, 0, 1]);
  expect(run.metrics.map((line) => line['rollout/deferred'])).toEqual([1, 2, 3, 4, 0]);
  // A prompt of 5 in a round of 5 has one sample to spare, and one prompt is left behind whole.
  expect(run.metrics.map((line) => line['rollout/aborted'])).toEqual([9, 9, 9, 9, 0]);
  const places = new Map<string, { step: number; count: number }>();
  for (const { task_key, step } of used(run)) {
    const place = places.get(task_key) ?? { step, count: 0 };
    expect(place.step, task_key).toBe(step);
    places.set(task_key, { step, count: place.count + 1 });
  }
  expect([...places.values()].map(({ count }) => count)).toEqual(Array.from({ length: 20 }, () => 4));
  expect(new Set(run.rollouts.map(({ task_key }) => task_key)).size).toBe(20);
  const late = run.rollouts.filter(({ step, task_key }) => step < (places.get(task_key)?.step ?? 0));
  expect(new Set(late.map(({ task_key }) => task_key)).size).toBe(4);
  for (const { task_key, fate } of late) {
    expect(fate).toBe('aborted');
    expect(places.get(task_key)?.step).toBe(5);
  }
}

test('short rounds train what ends first, and a long one what they left behind', async () => {
  const run = await smallRun(ROUNDS);
  expectWholeCycle(run);
  expectAccountCloses(run);
  expect(run.summary.tokens.aborted).toBeGreaterThan(0);
  expect(run.summary.tokens.in_flight).toBe(0);
  // Nothing is carried over from one version to the next.
  expect(run.summary.tokens.expired).toBe(0);
  for (const line of run.metrics) {
    expect(line['actor/ratio_max'] ?? 1).toBe(1);
    expect(line['staleness/max']).toBe(0);
  }
  for (const { fate, finish_reason } of used(run)) {
    expect(['trained', 'filtered']).toContain(fate);
    expect(['stop', 'length']).toContain(finish_reason);
  }
});

test('so they do where rollouts wait for slots, on two lanes, of which one is lost', async () => {
  const faults: RunFaults = (lane, epoch) =>
    lane === 1 && epoch === 0 ? [{ at: 'afterSubmit', after: 60, do: 'destroyDevice' }] : [];
  const run = await smallRun([...ROUNDS, 'engine.slots=6', 'lanes.count=2'], faults);
  expect(run.summary.lanes.rebuilt).toBe(1);
  expectWholeCycle(run);
  expectAccountCloses(run);
});

test('within a staleness bound rounds overlap, and no token is lost', async () => {
  const run = await smallRun([...ROUNDS, 'algorithm.staleness_versions_max=1', 'steps=8']);
  expectAccountCloses(run);
  const lengths = run.metrics.map(({ step }) => used(run).filter((rollout) => rollout.step === step).length);
  expect(lengths).toEqual(Array.from({ length: 8 }, () => 16));
  expect(run.metrics.filter((line) => line['rollout/long_round'] === 1).length).toBeGreaterThan(0);
  for (const line of run.metrics) expect(line['staleness/max']).toBeLessThanOrEqual(1);
});
