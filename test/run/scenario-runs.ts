import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, vi } from 'vitest';
import { runScenario, type RunOptions, type ScenarioOutcome } from '#src/run/runner.js';
import { loadScenario, type Scenario } from '#src/run/scenario.js';
import { RunFiles } from './run-folders.js';
import { temporaryFolder } from './runs.js';

export interface Ran {
  readonly folder: string;
  readonly outcome: ScenarioOutcome;
}

/** A scenario as a user writes it: its head and, by id, what follows in each job's table. */
export function scenarioOf(head: string, jobs: Readonly<Record<string, string>>): Scenario {
  const file = join(temporaryFolder(), 'scenario.toml');
  const tables = Object.entries(jobs).map(([id, text]) => `[[job]]\nid = "${id}"\n${text}`);
  writeFileSync(file, head + tables.join(''));
  return loadScenario({ file }).scenario;
}

/** Runs it in this process, silently. */
export async function go(scenario: Scenario, more: Partial<RunOptions> = {}): Promise<Ran> {
  const folder = join(temporaryFolder(), 'run');
  const silence = vi.spyOn(process.stderr, 'write').mockReturnValue(true);
  try {
    const { signal: interrupted } = new AbortController();
    return { folder, outcome: await runScenario(scenario, { outFolder: folder, interrupted, ...more }) };
  } finally {
    silence.mockRestore();
  }
}

/** What must be the same whoever else was there: everything but times and lanes. */
function doings(files: RunFiles): unknown {
  const rollouts = [...files.rollouts].sort((a, b) => a.id - b.id).map(({ lanes: _, ...rollout }) => rollout);
  const learnt = files.metrics.map((record) => [
    record['actor/loss'],
    record['actor/grad_norm'],
    record['rollout/score/mean'],
    record['weights/version'],
  ]);
  return { rollouts, learnt, reward: files.summary.reward };
}

/** Same rollouts, losses and weights, bit for bit. */
export function expectSame(shared: RunFiles, alone: RunFiles, label: string): void {
  expect(doings(shared), label).toEqual(doings(alone));
  const weights = 'model.safetensors';
  expect(shared.model(weights).equals(alone.model(weights)), `${label}: weights`).toBe(true);
}

/** A job's part of the folder of a run of several. */
export function jobFiles(folder: string, id: string): RunFiles {
  return new RunFiles(join(folder, 'jobs', id));
}

/** Orders of all plans of the run, in words and in order. */
export function ordersOf({ outcome }: Ran): string[] {
  return outcome.records.plans.items.flatMap(({ changes }) => changes);
}
