import { resolve } from 'node:path';
import { beforeAll, expect, it } from 'vitest';
import { type RunFiles, tokensOf } from './run-folders.js';
import { smallRun } from './runs.js';

const TASK = resolve(import.meta.dirname, 'fixtures/moody-turns.mjs');

let run: RunFiles;
beforeAll(async () => {
  run = await smallRun([
    `task.name=${TASK}`,
    'steps=3',
    'rollout.max_tokens=30',
    'rollout.turn_tokens_max=8',
    'evaluation.heldout_prompts=0',
    'environment.timeout_ms=400',
    'environment.wait_ms_max=1000',
    'reward.workers=2',
    'reward.timeout_ms=20000',
    'output.checkpoint=false',
  ]);
});

it("an environment's failures are those of their own rollouts, and each is told", () => {
  const messages = run.rollouts.flatMap(({ failure }) => failure?.message ?? []);
  for (const told of [
    /step: .*out of temper/,
    /step: its observation: .*"Å"/,
    /step: .*longer than 400 ms/,
    /step: it asks for 300000 ms, more than 1000 ms/,
  ]) {
    expect(
      messages.some((message) => told.test(message)),
      `${String(told)}: ${messages.join('\n')}`,
    ).toBe(true);
  }
  const reasons = new Set(run.rollouts.flatMap(({ failure }) => failure?.reason ?? []));
  expect([...reasons].sort()).toEqual(['exited', 'threw', 'timed out']);
});

it('they keep their turns, and everybody else goes on', () => {
  expect(run.summary.steps).toBe(3);
  const failed = run.rollouts.filter(({ failure }) => failure !== null);
  expect(failed.length).toBeGreaterThan(0);
  expect(failed.length).toBeLessThan(run.rollouts.length);
  for (const { episode, failure, reward, fate } of run.rollouts) {
    expect(episode?.stop_condition).toBe(failure === null ? 'terminated' : 'error');
    expect(episode?.turns).toHaveLength(failure === null ? 3 : 2);
    if (failure !== null) expect([reward, fate]).toEqual([null, 'filtered']);
  }
  const { decoded, trained, filtered } = run.summary.tokens;
  expect(decoded).toBe(tokensOf(run.rollouts));
  expect(decoded).toBe(trained + filtered);
  const log = run.text('offbeat.log');
  expect(log.match(/reward failed/g)).toHaveLength(failed.length);
});
