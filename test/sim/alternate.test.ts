import { join } from 'node:path';
import { expect, test } from 'vitest';
import { simSetup } from '#src/run/scenario-sim.js';
import { loadScenario } from '#src/run/scenario.js';
import { policyNamed } from '#src/scheduler/policies/index.js';
import type { SimOutcome } from '#src/sim/outcome.js';
import { simulate } from '#src/sim/simulate.js';

const FILE = join(import.meta.dirname, '../../examples/scenarios/train-in-generate.toml');

async function under(policy: string): Promise<SimOutcome> {
  const { scenario, options } = await simSetup(loadScenario({ file: FILE }).scenario);
  return simulate(scenario, policyNamed(policy), options);
}

/** Milliseconds in which the job trained on one lane and generated on another. */
function overlapMs({ timeline: { spans } }: SimOutcome): number {
  const training = spans.filter(({ kind }) => kind === 'actorTraining');
  const generation = spans.filter(({ kind }) => kind === 'generation');
  let ms = 0;
  for (const a of training) {
    for (const b of generation) ms += Math.max(0, Math.min(a.toMs, b.toMs) - Math.max(a.fromMs, b.fromMs));
  }
  return ms;
}

test('a job that alternates never generates while it trains, and takes longer for it', async () => {
  const [strict, overlapping] = [await under('alternate'), await under('partialOverlap')];
  expect(overlapMs(overlapping)).toBeGreaterThan(100);
  expect(overlapMs(strict)).toBeLessThan(1e-6);
  expect(strict.makespanMs).toBeGreaterThan(1.1 * (overlapping.makespanMs ?? Infinity));
  const trained = (outcome: SimOutcome): (number | undefined)[] =>
    outcome.jobs.map(({ tokens }) => tokens.trained);
  expect(trained(strict)).toEqual(trained(overlapping));
});
