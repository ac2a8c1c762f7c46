import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { RunFiles, tokensOf } from './run-folders.js';
import { type Command, type CommandResult, offbeat, sets, temporaryFolder } from './runs.js';

/** Far more than anybody waits for: only a signal ends it. */
const LONG = [
  'steps=10000',
  'rollout.prompts_per_step=6',
  'rollout.samples_per_prompt=4',
  'engine.slots=4',
  'evaluation.heldout_prompts=16',
];
const FILES = [
  'config.toml',
  'metrics.jsonl',
  'offbeat.log',
  'report.html',
  'rollouts.jsonl',
  'summary.json',
  'trace.json',
];

function start(set: readonly string[] = []): { command: Command; folder: string } {
  const cwd = temporaryFolder();
  const command = offbeat(['run', '--out', 'out', ...sets([...LONG, ...set])], { cwd });
  return { command, folder: join(cwd, 'out') };
}

/** Ended by one signal: cleanly, with the exit code of an interrupt, the summary, and every file whole. */
function expectCleanEnd(
  { code, signal, stdout, stderr }: CommandResult,
  folder: string,
  more: string[] = [],
): RunFiles {
  expect({ code, signal }, stderr).toEqual({ code: 130, signal: null });
  expect(stderr).not.toContain('offbeat: ');
  expect(stdout).toContain(join('out', 'report.html'));
  expect(readdirSync(folder).sort()).toEqual([...FILES, ...more].sort());
  const run = new RunFiles(folder);
  const { summary, metrics, rollouts } = run;
  expect(run.text('report.html')).toMatch(/<\/html>\s*$/);
  expect(run.trace.length).toBeGreaterThan(10);
  // Each rollout once, with its tokens in one place, those under way included.
  expect(new Set(rollouts.map(({ id }) => id)).size).toBe(rollouts.length);
  const { tokens } = summary;
  expect(tokens.decoded).toBe(tokensOf(rollouts));
  for (const fate of ['trained', 'aborted', 'expired', 'filtered', 'in_flight'] as const)
    expect(tokens[fate], fate).toBe(tokensOf(rollouts, fate));
  expect(metrics).toHaveLength(summary.steps);
  expect(summary.reward.heldout_after).toBeNull();
  return run;
}

test('Ctrl-C in training ends the step under way and writes everything', async () => {
  const { command, folder } = start();
  await command.said(/^step 2\//m);
  command.kill('SIGINT');
  const run = expectCleanEnd(await command.ended, folder, ['model']);
  const { steps, tokens, weights, reward } = run.summary;
  expect(steps).toBeGreaterThanOrEqual(2);
  expect(reward.heldout_before).not.toBeNull();
  // Rollouts of the steps to come had begun.
  expect(tokens.in_flight).toBeGreaterThan(0);
  expect(run.rollouts.some(({ finish_reason }) => finish_reason === null)).toBe(true);
  expect(tokens.decoded).toBe(tokens.trained + tokens.expired + tokens.filtered + tokens.in_flight);
  // No update that no step tells of.
  expect(weights.publishes).toBe((run.metrics.at(-1)?.['weights/version'] ?? NaN) + 1);
});

test('so it does at any moment', async () => {
  // Wherever it strikes: waiting for rollouts, scoring under the reference, in an update, publishing.
  const many = ['lanes.count=2', 'algorithm.kl_coefficient=0.1', 'algorithm.updates_per_step=2'];
  for (const delayMs of [0, 90, 230]) {
    const { command, folder } = start(many);
    await command.said(/^step 1\//m);
    await new Promise((resolve) => setTimeout(resolve, delayMs));
    command.kill('SIGINT');
    expectCleanEnd(await command.ended, folder, ['model']);
  }
});

test('Ctrl-C while held-out prompts are measured leaves no checkpoint, since nothing was trained', async () => {
  const { command, folder } = start(['evaluation.heldout_prompts=500']);
  await command.said(/^measuring held-out reward before training$/m);
  command.kill('SIGINT');
  const { summary } = expectCleanEnd(await command.ended, folder);
  expect(summary.steps).toBe(0);
  expect(summary.tokens.decoded).toBe(0);
  expect(summary.reward).toEqual({ first5: null, last5: null, heldout_before: null, heldout_after: null });
});

test('Ctrl-C in the last evaluation keeps the step before it', async () => {
  const { command, folder } = start([
    'evaluation.heldout_prompts=120',
    'steps=1',
    'evaluation.every_steps=1',
  ]);
  await command.said(/^measuring held-out reward after step 1$/m);
  command.kill('SIGINT');
  const { summary, metrics } = expectCleanEnd(await command.ended, folder, ['model']);
  expect(summary.steps).toBe(1);
  expect(metrics[0]?.['val/score/mean']).toBeUndefined();
  expect(summary.tokens.in_flight).toBe(0);
});

test('Ctrl-C while the trainer is prepared writes an empty account', async () => {
  const { command, folder } = start();
  await command.said(/^preparing the trainer$/m);
  command.kill('SIGINT');
  expect(expectCleanEnd(await command.ended, folder).summary.steps).toBe(0);
});

test('Ctrl-C while devices are opened leaves nothing', async () => {
  const { command, folder } = start(['lanes.count=2']);
  await command.said(/^opening devices$/m);
  command.kill('SIGINT');
  const { code, stderr, stdout } = await command.ended;
  expect(code, stderr).toBe(130);
  expect(stderr).toMatch(/^offbeat: interrupted before the run began: no run folder was made$/m);
  expect(stdout).toBe('');
  expect(existsSync(folder)).toBe(false);
});

test('SIGTERM is as good', async () => {
  const { command, folder } = start();
  await command.said(/^step 1\//m);
  command.kill('SIGTERM');
  expectCleanEnd(await command.ended, folder, ['model']);
});

test('a second Ctrl-C ends at once', async () => {
  const { command } = start();
  await command.said(/^step 1\//m);
  command.kill('SIGINT');
  await command.said(/^interrupted: /m);
  const startedMs = performance.now();
  command.kill('SIGINT');
  const { code, signal, stderr } = await command.ended;
  expect(performance.now() - startedMs).toBeLessThan(1000);
  // Of the signal, or, where the first one was done with just then, of its own accord.
  expect(signal === 'SIGINT' || code === 130, stderr).toBe(true);
  expect(stderr).not.toMatch(/bug|Error|abort/i);
});
