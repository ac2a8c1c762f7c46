import { existsSync, readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { join } from 'node:path';
import type { Worker } from 'node:worker_threads';
import { expect, test } from 'vitest';
import type { LaneFault } from '#src/lanes/faults.js';
import { at } from '#src/lib/assert.js';
import { RunFiles, tokensOf } from './run-folders.js';
import { smallRunInto, temporaryFolder } from './runs.js';

/** Waits until the run has told of a step. */
async function firstStep(folder: string): Promise<void> {
  const file = join(folder, 'metrics.jsonl');
  while (!existsSync(file) || readFileSync(file, 'utf8') === '') await sleep(10);
}

/** A run on two lanes, one of which is made to break after the first step: it is sent what is no message at all. */
async function runAndBreak(lane: number, set: readonly string[]): Promise<{ error: unknown; run: RunFiles }> {
  const folder = join(temporaryFolder(), 'run');
  const threads: Worker[] = [];
  const note = (thread: Worker): void => void threads.push(thread);
  process.on('worker', note);
  const ended = smallRunInto(folder, ['lanes.count=2', 'engine.slots=4', ...set]).then(
    () => undefined,
    (error: unknown) => error,
  );
  await firstStep(folder);
  process.off('worker', note);
  // Lanes are the first threads a run starts.
  at(threads, lane).postMessage('nonsense');
  return { error: await ended, run: new RunFiles(folder) };
}

function expectClosedFiles({ summary, metrics, rollouts }: RunFiles): void {
  expect(summary.steps).toBeGreaterThanOrEqual(1);
  expect(metrics).toHaveLength(summary.steps);
  expect(summary.tokens.decoded).toBe(tokensOf(rollouts));
  expect(summary.tokens.trained).toBe(tokensOf(rollouts, 'trained'));
  expect(summary.tokens.in_flight).toBe(tokensOf(rollouts, 'in_flight'));
  expect(new Set(rollouts.map(({ id }) => id)).size).toBe(rollouts.length);
}

const ENDLESS = 'steps=10000';

for (const [lane, whose] of [
  [0, 'training'],
  [1, 'another'],
] as const) {
  test(`a run whose lane ${lane}, ${whose}'s, breaks and may not be rebuilt ends with that error and every file written`, async () => {
    const { error, run } = await runAndBreak(lane, [ENDLESS, 'lanes.rebuilds_max=0']);
    expect(String(error)).toMatch(/Cannot read|undefined|TypeError/);
    expectClosedFiles(run);
    expect(run.summary.lanes).toEqual({ rebuilt: 0, steps_repeated: 0 });
    expect(run.text('report.html')).toMatch(/<\/html>\s*$/);
    expect(run.track('lane 0', 'trainer').length).toBeGreaterThan(0);
    expect(run.text('offbeat.log')).toContain(`lane ${lane} told no more`);
    // The last step that counted is on the host, wherever it was trained.
    expect(existsSync(join(run.path, 'model', 'model.safetensors'))).toBe(true);
  });
}

test('a run whose steps are not brought to the host ends with the lane that trains, and has no model', async () => {
  const { error, run } = await runAndBreak(0, [ENDLESS, 'lanes.recover=false']);
  expect(String(error)).toMatch(/Cannot read|undefined|TypeError/);
  expectClosedFiles(run);
  expect(existsSync(join(run.path, 'model', 'model.safetensors'))).toBe(false);
  expect(run.text('offbeat.log')).toContain('no checkpoint');
});

test('such a run does not end with any other lane', async () => {
  const { error, run } = await runAndBreak(1, ['steps=8', 'lanes.recover=false']);
  expect(error).toBeUndefined();
  expectClosedFiles(run);
  expect(run.summary.lanes).toEqual({ rebuilt: 1, steps_repeated: 0 });
  expect(existsSync(join(run.path, 'model', 'model.safetensors'))).toBe(true);
});

test('a run in which lanes keep dying is given up after as many as it may rebuild', async () => {
  const folder = join(temporaryFolder(), 'run');
  const lost: LaneFault[] = [{ at: 'beforeAnswer', after: 0, do: 'destroyDevice' }];
  const set = ['lanes.rebuilds_max=2'];
  await expect(smallRunInto(folder, set, () => lost)).rejects.toThrow('device was destroyed');
  const run = new RunFiles(folder);
  expect(run.summary.lanes.rebuilt).toBe(2);
  expect(run.summary.tokens.decoded).toBe(tokensOf(run.rollouts));
  expect(run.text('offbeat.log').match(/"lane lost: /g)).toHaveLength(3);
});
