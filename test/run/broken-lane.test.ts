import { existsSync, readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { join } from 'node:path';
import type { Worker } from 'node:worker_threads';
import { expect, test } from 'vitest';
import { at } from '#src/lib/assert.js';
import { RunFiles, tokensOf } from './run-folders.js';
import { smallRunInto, temporaryFolder } from './runs.js';

/** Waits until the run has told of a step. */
async function firstStep(folder: string): Promise<void> {
  const file = join(folder, 'metrics.jsonl');
  while (!existsSync(file) || readFileSync(file, 'utf8') === '') await sleep(10);
}

/** A run on two lanes, one of which is made to break after the first step: it is sent what is no message at all. */
async function runAndBreak(lane: number): Promise<{ error: unknown; run: RunFiles }> {
  const folder = join(temporaryFolder(), 'run');
  const threads: Worker[] = [];
  const note = (thread: Worker): void => void threads.push(thread);
  process.on('worker', note);
  const set = ['steps=10000', 'lanes.count=2', 'engine.slots=4'];
  const ended = smallRunInto(folder, set).then(
    () => undefined,
    (error: unknown) => error,
  );
  await firstStep(folder);
  process.off('worker', note);
  // Lanes are the first threads a run starts.
  at(threads, lane).postMessage('nonsense');
  return { error: await ended, run: new RunFiles(folder) };
}

for (const [lane, whose] of [
  [0, 'training'],
  [1, 'another'],
] as const) {
  test(`a run whose lane ${lane}, ${whose}'s, breaks ends with that error and every file written`, async () => {
    const { error, run } = await runAndBreak(lane);
    expect(String(error)).toMatch(/Cannot read|undefined|TypeError/);
    const { summary, metrics, rollouts } = run;
    expect(summary.steps).toBeGreaterThanOrEqual(1);
    expect(metrics).toHaveLength(summary.steps);
    expect(summary.tokens.decoded).toBe(tokensOf(rollouts));
    expect(summary.tokens.trained).toBe(tokensOf(rollouts, 'trained'));
    expect(summary.tokens.in_flight).toBe(tokensOf(rollouts, 'in_flight'));
    expect(new Set(rollouts.map(({ id }) => id)).size).toBe(rollouts.length);
    expect(run.text('report.html')).toMatch(/<\/html>\s*$/);
    expect(run.track('lane 0', 'trainer').length).toBeGreaterThan(0);
    expect(run.text('offbeat.log')).toContain(`lane ${lane} told no more`);
    // The weights live where they were trained.
    expect(existsSync(join(run.path, 'model', 'model.safetensors'))).toBe(lane !== 0);
  });
}
