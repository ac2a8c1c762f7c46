import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { Random } from '#src/lib/prng.js';
import { formatScenario, loadScenario } from '#src/run/scenario.js';

const SCENARIOS = 100;

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'offbeat-scenario-format-'));
});
afterAll(() => rmSync(folder, { recursive: true }));

function write(name: string, toml: string): string {
  const file = join(folder, name);
  writeFileSync(file, toml);
  return file;
}

const words = ['calm', 'with "quotes"', 'back\\slash', 'line\nbreak', '音', "it's", ''];
const keys = ['x.y', 'ä', ' ', 'some_key', 'camelKey'];

/** Any part of a job, as TOML. */
function randomJob(random: Random, header: string, lanes: number): string {
  const own = Array.from({ length: lanes }, (_, lane) => lane).filter(() => random.uniform() < 0.7);
  const slots = random.int(1, 300);
  const word = (): string => JSON.stringify(random.pick(words));
  const lines = [
    `seed = ${random.int(0, Number.MAX_SAFE_INTEGER)}`,
    `steps = ${random.int(1, 99)}`,
    `weight = ${random.uniform() * 10 ** random.int(-6, 5) + 1e-9}`,
    `arrives_s = ${random.pick([0, 3, random.uniform() * 1000])}`,
    `token_latency_ms = ${random.uniform() * 100 + 1e-9}`,
    `rollout = { max_tokens = ${random.int(1, 200)}, temperature = ${random.uniform() + 1e-9} }`,
    `engine = { slots = ${slots}, batch_tokens = ${slots + random.int(0, 100)}, kv_blocks = "auto" }`,
    `optimizer = { epsilon = ${10 ** -random.int(1, 300)} }`,
    `task = { name = "some-task", options = { ${JSON.stringify(random.pick(keys))} = ${word()}, list = [[1, 2], []] } }`,
    `sim = { copies = ${random.int(1, 9)}, turns = [1, 2.5], reward_ms = { kind = "trace", file = ${word()}, field = "ms" } }`,
  ].filter(() => random.uniform() < 0.5);
  if (own.length > 0 && header !== '[defaults]') lines.push(`lanes = ${JSON.stringify(own.reverse())}`);
  return [header, ...lines, ''].join('\n');
}

function randomScenario(random: Random): string {
  const lanes = random.int(1, 5);
  const ids = ['zeta', 'a', 'B2', 'c-d_e'].slice(0, random.int(1, 4));
  const slice = random.int(50, 5000);
  return [
    ...(random.uniform() < 0.5 ? [`name = ${JSON.stringify(random.pick(words) || 'none')}`] : []),
    `seed = ${random.int(0, Number.MAX_SAFE_INTEGER)}`,
    `lanes = { count = ${lanes}, slice_budget_us = ${slice}, in_flight_budget_us = ${slice + random.int(0, 9)} }`,
    `scheduler = { options = { ${JSON.stringify(random.pick(keys))} = [${random.normal()}, true] } }`,
    `output = { checkpoint = ${random.pick([true, false])} }`,
    `sim = { lanes = ${random.int(1, 99_999)}, faults = { losses = [{ lane = 0, at_ms = 5, return_ms = 1.5 }] } }`,
    ...(random.uniform() < 0.7 ? [randomJob(random, '[defaults]', lanes)] : []),
    ...ids.map((id) => randomJob(random, `[[job]]\nid = "${id}"`, lanes)),
  ].join('\n');
}

test('what it writes is read back the same, from anywhere', () => {
  let jobs = 0;
  for (let seed = 1; seed <= SCENARIOS; seed++) {
    const toml = randomScenario(new Random(seed));
    const where = `seed ${seed}:\n${toml}`;
    const { scenario } = loadScenario({ file: write('first.toml', toml) });
    const written = formatScenario(scenario);
    const again = loadScenario({ file: write('again.toml', written) });
    expect(again, where).toEqual({ kind: 'scenario', scenario });
    expect(formatScenario(again.scenario), where).toBe(written);
    jobs += scenario.jobs.length;
  }
  expect(jobs).toBeGreaterThan(SCENARIOS);
});

test('a plain run config becomes a scenario of the same job', () => {
  const set = ['seed=3', 'lanes=3', 'scheduler.reserve=[{lane = 2, from_step = 2, until_step = 3}]'];
  const { scenario } = loadScenario({ set });
  const file = write('plain.toml', formatScenario(scenario));
  expect(loadScenario({ file })).toEqual({ kind: 'scenario', scenario });
});

test('it spells out every key, defaults included', () => {
  const { scenario } = loadScenario({ file: write('short.toml', '[[job]]\nid = "a"\n') });
  const toml = formatScenario(scenario);
  for (const key of [
    'name = "short"',
    '[lanes]',
    'policy = "priority"',
    '[[job]]',
    'lanes = [ 0 ]',
    'top_k = 0',
  ]) {
    expect(toml).toContain(key);
  }
  expect(toml).toContain(`seed = ${scenario.jobs[0]?.config.seed}`);
  expect(toml).not.toMatch(/undefined|null|NaN|defaults/);
});
