import { beforeAll, describe, expect, test } from 'vitest';
import type { RunFiles } from './run-folders.js';
import { smallRun } from './runs.js';

const STEPS = 3;
const BASE = [`steps=${STEPS}`, 'algorithm.staleness_versions_max=0', 'evaluation.heldout_prompts=0'];

/** When the scheduler granted each of a stage's requests, in order, µs. */
function granted(run: RunFiles, stage: string): number[] {
  return run
    .track('scheduler', stage)
    .filter(({ name }) => name === 'granted')
    .map(({ ts = NaN }) => ts);
}

describe('with a KL term', () => {
  let run: RunFiles;
  beforeAll(async () => {
    run = await smallRun([...BASE, 'algorithm.kl_coefficient=0.5', 'optimizer.learning_rate=1e-3']);
  });

  test('the reference scores every step before it is trained', () => {
    const scored = granted(run, 'refLogProbs');
    const trained = granted(run, 'actorTraining');
    expect(scored).toHaveLength(STEPS);
    expect(trained).toHaveLength(STEPS);
    for (const [i, at] of scored.entries()) {
      expect(at).toBeLessThan(trained[i] ?? NaN);
      expect(at).toBeGreaterThan(trained[i - 1] ?? 0);
    }
  });

  test('KL is exactly 0 while the policy is the reference, and grows from there', () => {
    const [first, ...later] = run.metrics.map((line) => line['actor/kl'] ?? NaN);
    expect(first).toBe(0);
    for (const kl of later) expect(kl).toBeGreaterThan(0);
  });

  test('groups without any difference are trained on too', () => {
    expect(run.rollouts.every(({ fate }) => fate === 'trained')).toBe(true);
    expect(run.summary.tokens.trained).toBe(run.summary.tokens.decoded);
  });

  test('it holds the policy back', async () => {
    const free = await smallRun([...BASE, 'algorithm.kl_coefficient=1e-9', 'optimizer.learning_rate=1e-3']);
    const last = ({ metrics }: RunFiles): number => metrics.at(-1)?.['actor/kl'] ?? NaN;
    expect(last(run)).toBeLessThan(last(free));
  });
});

test('recomputed old log-probabilities are those recorded while sampling, bit for bit', async () => {
  const recorded = await smallRun(BASE);
  const recomputed = await smallRun([...BASE, 'algorithm.old_log_probs="recomputed"']);
  expect(granted(recorded, 'oldLogProbs')).toEqual([]);
  const trained = granted(recomputed, 'actorTraining');
  expect(granted(recomputed, 'oldLogProbs')).toHaveLength(trained.length);
  expect(trained.length).toBeGreaterThan(0);
  for (const line of recomputed.metrics) {
    if (line['actor/ratio_max'] !== undefined) expect(line['actor/ratio_max']).toBe(1);
  }
  expect(recomputed.model('model.safetensors').equals(recorded.model('model.safetensors'))).toBe(true);
});

test('without either, no stage scores anything', async () => {
  const run = await smallRun([...BASE, 'steps=1']);
  expect(granted(run, 'refLogProbs')).toEqual([]);
  expect(granted(run, 'oldLogProbs')).toEqual([]);
  // Nothing was compared with a reference: there is no such number, not a zero.
  for (const line of run.metrics) expect(line).not.toHaveProperty('actor/kl');
});
