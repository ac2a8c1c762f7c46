import { existsSync, readdirSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from 'vitest';
import { resolvePretrainConfig } from '#src/run/config.js';
import { formatScenario, loadScenario, type Scenario } from '#src/run/scenario.js';

const FOLDER = fileURLToPath(new URL('../../examples/scenarios', import.meta.url));
/** What makes a model that a scenario names, and is no scenario. */
const PRETRAIN = 'two-sizes-large.toml';
const NAMES = readdirSync(FOLDER).filter((name) => name !== PRETRAIN);

function load(name: string): Scenario {
  const { kind, scenario } = loadScenario({ file: join(FOLDER, name) });
  expect(kind).toBe('scenario');
  return scenario;
}

describe('examples/scenarios', () => {
  test('are the four that ship', () => {
    expect(NAMES.sort()).toEqual([
      'four-agents.toml',
      'thousand-lanes.toml',
      'train-in-generate.toml',
      'two-sizes.toml',
    ]);
  });

  test.each(NAMES)('%s is named after itself and can be written down', (name) => {
    const scenario = load(name);
    expect(`${scenario.name}.toml`).toBe(name);
    expect(formatScenario(scenario)).toContain(`name = "${scenario.name}"`);
  });

  test('four agents share one device and differ in their seeds', () => {
    const { lanes, jobs } = load('four-agents.toml');
    expect(lanes.count).toBe(1);
    for (const { config } of jobs) expect(config.task.name).toBe('calculator');
    expect(new Set(jobs.map(({ config }) => config.seed)).size).toBe(4);
  });

  test('training has one of the two lanes that generation has', () => {
    const { lanes, jobs } = load('train-in-generate.toml');
    const [job] = jobs;
    expect(jobs).toHaveLength(1);
    expect(lanes.count).toBe(2);
    expect(job).toMatchObject({ trainerLane: 0, lanes: [0, 1] });
    const { promptsPerStep = 0, samplesPerPrompt = 0 } = job?.config.rollout ?? {};
    // Otherwise one lane has room for the whole step, and the other nothing to do.
    expect(promptsPerStep * samplesPerPrompt).toBeGreaterThan(job?.config.engine.slots ?? Infinity);
  });

  test('the second size is made by the file beside it', () => {
    const [small, large] = load('two-sizes.toml').jobs;
    expect(small?.tokenLatencyMs).toBeGreaterThan(0);
    expect(existsSync(join(small?.config.model.path ?? '', 'config.json'))).toBe(true);
    expect(dirname(large?.config.model.path ?? '')).toBe(dirname(small?.config.model.path ?? ''));
    const { model, task } = resolvePretrainConfig({ file: join(FOLDER, PRETRAIN) });
    expect(model.hiddenSize).toBeGreaterThan(64);
    expect(task.name).toBe(large?.config.task.name);
  });
});
