import { execFile } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { afterAll, beforeAll, expect, test } from 'vitest';
import type { Summary } from '#src/telemetry/summary.js';

const root = fileURLToPath(new URL('..', import.meta.url));
let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'offbeat-examples-'));
});
afterAll(() => rmSync(folder, { recursive: true }));

const small = ['rollout.prompts_per_step=4', 'rollout.samples_per_prompt=4', 'evaluation.heldout_prompts=8'];

async function run(
  name: string,
  args: readonly string[],
): Promise<{ summary: Summary; rollouts: unknown[] }> {
  const out = join(folder, name);
  const set = small.flatMap((pair) => ['--set', pair]);
  const command = [join(root, 'scripts/offbeat.mjs'), 'run', ...args, ...set, '--out', out];
  await promisify(execFile)(process.execPath, command, { cwd: root });
  const summary = JSON.parse(readFileSync(join(out, 'summary.json'), 'utf8')) as Summary;
  const lines = readFileSync(join(out, 'rollouts.jsonl'), 'utf8').trimEnd().split('\n');
  return { summary, rollouts: lines.map((line): unknown => JSON.parse(line)) };
}

test('examples/two-lanes.toml: the second lane sleeps for a while and misses the versions in between', async () => {
  // With few slots there is always more to do than one lane can hold, so that the policy wakes the other.
  const { summary } = await run('two-lanes', [
    'examples/two-lanes.toml',
    '--set',
    'steps=7',
    '--set',
    'engine.slots=8',
  ]);
  expect(summary.steps).toBe(7);
  expect(summary.weights.bytes_sent).toBeGreaterThan(0);
  // Both lanes would have been sent every version; lane 0 never needs one, lane 1 slept through some.
  expect(summary.weights.bytes_sent).toBeLessThan(summary.weights.bytes_broadcast / 2);
});

test('examples/own-task.mjs: a task from a module, with a metric beside its reward', async () => {
  const args = ['--set', 'task.name=./examples/own-task.mjs', '--set', 'steps=2'];
  const { summary, rollouts } = await run('own-task', args);
  expect(summary.steps).toBe(2);
  expect(rollouts).toHaveLength(32);
  for (const rollout of rollouts) {
    expect(rollout).toMatchObject({ failure: null, scores: { characters: expect.any(Number) as number } });
  }
});

test('examples/calculator.toml: rollouts of several turns, more of them than slots', async () => {
  const args = ['examples/calculator.toml', '--set', 'steps=2', '--set', 'engine.slots=6'];
  const { summary, rollouts } = await run('calculator', args);
  expect(summary.steps).toBe(2);
  expect(rollouts).toHaveLength(32);
  for (const rollout of rollouts) {
    expect(rollout).toMatchObject({ failure: null, episode: { stop_condition: 'terminated' } });
  }
});

test('examples/ppo.toml: a critic is trained beside the policy', async () => {
  const { summary, rollouts } = await run('ppo', ['examples/ppo.toml', '--set', 'steps=3']);
  expect(summary.steps).toBe(3);
  expect(rollouts).toHaveLength(48);
  expect(summary.tokens.trained).toBe(summary.tokens.decoded);
  const metrics = readFileSync(join(folder, 'ppo/metrics.jsonl'), 'utf8').trimEnd().split('\n');
  for (const line of metrics) expect(line).toContain('critic/vf_explained_var');
  const trace = readFileSync(join(folder, 'ppo/trace.json'), 'utf8');
  for (const stage of ['valueCompute', 'oldLogProbs', 'refLogProbs', 'criticTraining', 'actorTraining'])
    expect(trace).toContain(`"${stage}"`);
});
