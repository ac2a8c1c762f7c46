import { join } from 'node:path';
import { beforeAll, describe, expect, test } from 'vitest';
import { UserError } from '#src/lib/errors.js';
import { type RunFiles, tokensOf } from './run-folders.js';
import { smallRun } from './runs.js';

const TASK = join(import.meta.dirname, 'fixtures/moody-task.mjs');

/** A run of the task whose judge is moody; what it answers depends on the first digit of the prompt. */
function moodyRun(set: readonly string[]): Promise<RunFiles> {
  return smallRun([`task.name=${TASK}`, 'evaluation.heldout_prompts=0', ...set]);
}

describe('a reward function that fails for some', () => {
  let run: RunFiles;
  beforeAll(async () => {
    run = await moodyRun([
      'rollout.prompts_per_step=5',
      'rollout.samples_per_prompt=2',
      'rollout.temperature=1.5',
      'reward.timeout_ms=150',
      'reward.workers=2',
      'steps=3',
    ]);
  });

  test('marks those rollouts, and no other', () => {
    const reasons: Record<string, string | undefined> = { 0: 'threw', 1: 'timed out', 2: 'not a number' };
    expect(run.rollouts).toHaveLength(3 * 5 * 2);
    for (const { id, prompt, failure, reward, scores, fate, text } of run.rollouts) {
      const reason = reasons[prompt.slice(0, 1)];
      expect(failure?.reason).toBe(reason);
      if (reason === undefined) {
        expect(reward).toBe(text.length % 2);
        expect(scores).toEqual({ evenLength: reward });
        continue;
      }
      expect(failure?.message).toContain(`rollout ${id}: `);
      expect([reward, scores, fate]).toEqual([null, null, 'filtered']);
    }
  });

  test('lets the run go on to its end', () => {
    expect(run.summary.steps).toBe(3);
    // Three prompts of five, two samples each.
    expect(run.metrics.map((line) => line['reward/failed'])).toEqual([6, 6, 6]);
    for (const line of run.metrics) expect(line['time/reward_s']).toBeGreaterThanOrEqual(0);
  });

  test('keeps the account of tokens closed', () => {
    const { tokens } = run.summary;
    expect(tokens.decoded).toBe(tokensOf(run.rollouts));
    for (const fate of ['trained', 'expired', 'filtered', 'in_flight'] as const) {
      expect(tokens[fate], fate).toBe(tokensOf(run.rollouts, fate));
    }
    expect(tokens.filtered).toBeGreaterThan(0);
  });

  test('is told of in the log', () => {
    const lines = run
      .text('offbeat.log')
      .split('\n')
      .filter((line) => line.includes('reward failed'));
    expect(lines).toHaveLength(18);
    expect(lines.some((line) => line.includes('the judge has left'))).toBe(true);
  });
});

test('a step with nothing to learn from leaves the weights as they are', async () => {
  // Greedy: all samples of a prompt are the same.
  const run = await moodyRun([
    'rollout.top_k=1',
    'steps=2',
    'rollout.samples_per_prompt=2',
    'reward.timeout_ms=150',
  ]);
  expect(run.summary.steps).toBe(2);
  expect(run.summary.tokens.trained).toBe(0);
  expect(run.summary.tokens.filtered).toBe(run.summary.tokens.decoded);
  expect(run.summary.weights.publishes).toBe(1);
  for (const line of run.metrics) {
    expect(line['weights/version']).toBe(0);
    expect(line['actor/loss']).toBeUndefined();
  }
});

describe("a task's mistake is told in one line", () => {
  const complaint = async (options: string, ...set: string[]): Promise<string> => {
    const error: unknown = await moodyRun([`task.options=${options}`, 'reward.timeout_ms=150', ...set]).then(
      () => undefined,
      (thrown: unknown) => thrown,
    );
    expect(error).toBeInstanceOf(UserError);
    return error instanceof UserError ? error.message : '';
  };

  test('too few held-out tasks', async () => {
    expect(await complaint('{heldout=3}', 'evaluation.heldout_prompts=4')).toBe(
      'evaluation.heldout_prompts is 4, the task "moody" has 3 held-out tasks with these options: lower it or widen the task',
    );
  });

  test('a train split that ends at once', async () => {
    expect(await complaint('{trainTasks=20}')).toBe(
      'task "moody": its train split ended after 20 tasks: let it repeat itself or draw new ones',
    );
  });

  test('a generator that throws', async () => {
    expect(await complaint('{breaksAt=7}')).toBe('task "moody": its tasks() threw: out of sums');
  });

  test('a prompt beyond the room there is, found only on the way', async () => {
    expect(await complaint('{longFrom=512}', 'steps=200', 'rollout.prompts_per_step=512')).toMatch(
      /^task "moody": the prompt of "1{40}\+512" has \d+ tokens, judging by the first ones there is room for \d+: shorten it, or give the longest prompts first$/,
    );
  });

  test('a character the tokenizer does not know', async () => {
    const path = join(import.meta.dirname, 'fixtures/strange-task.mjs');
    expect(await complaint('{}', `task.name=${path}`)).toMatch(
      /tokenizer\.json: has no id for "é": change the text/,
    );
  });
});
