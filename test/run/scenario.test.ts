import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { UserError } from '#src/lib/errors.js';
import { resolveConfig } from '#src/run/config.js';
import { jobSeed, loadScenario, type Scenario, type ScenarioJob } from '#src/run/scenario.js';

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'offbeat-scenario-'));
});
afterAll(() => rmSync(folder, { recursive: true }));

function write(name: string, toml: string): string {
  const file = join(folder, name);
  writeFileSync(file, toml);
  return file;
}

const PAIR = `
name = "pair"
seed = 7
lanes = 2
[scheduler]
options = { share_min = 0.5 }
[output]
checkpoint = false
[defaults]
steps = 9
weight = 2
[defaults.rollout]
max_tokens = 20
temperature = 0.5
[defaults.sim]
environment_wait_ms = { kind = "lognormal", median = 300, sigma = 1, max = 900 }
turns = { kind = "uniform", low = 1, high = 4 }
[[job]]
id = "b"
[[job]]
id = "a"
seed = 11
weight = 3.5
arrives_s = 1.5
trainer_lane = 1
lanes = [1, 0]
token_latency_ms = 40
[job.rollout]
max_tokens = 24
[job.sim]
environment_wait_ms = { median = 100 }
turns = { kind = "trace", file = "turns.jsonl", field = "n" }
`;

function load(toml: string, ...set: string[]): Scenario {
  const { kind, scenario } = loadScenario({ file: write('some.toml', toml), set });
  expect(kind).toBe('scenario');
  return scenario;
}

function jobOf({ jobs }: Scenario, id: string): ScenarioJob {
  const job = jobs.find((candidate) => candidate.id === id);
  if (job === undefined) throw new Error(`no job ${id}`);
  return job;
}

/** The one line a user would read. */
function complaint(toml: string, ...set: string[]): string {
  const file = write('wrong.toml', toml);
  try {
    loadScenario({ file, set });
  } catch (error) {
    if (!(error instanceof UserError)) throw error;
    expect(error.message).not.toContain('\n');
    return error.message.replaceAll(file, 'FILE');
  }
  throw new Error('nothing was refused');
}

describe('a scenario', () => {
  test('jobs are what they say over what the defaults say over what every run has', () => {
    const scenario = load(PAIR);
    expect(scenario).toMatchObject({
      name: 'pair',
      seed: 7,
      lanes: { count: 2, sliceBudgetUs: 4000 },
      scheduler: { policy: 'priority', options: { share_min: 0.5 }, reserve: [] },
      output: { checkpoint: false },
    });
    expect(scenario.jobs.map(({ id }) => id)).toEqual(['b', 'a']);
    expect(jobOf(scenario, 'b')).toMatchObject({
      weight: 2,
      arrivesS: 0,
      trainerLane: 0,
      lanes: [0, 1],
      tokenLatencyMs: null,
      sim: {
        environmentWaitMs: { kind: 'lognormal', median: 300, sigma: 1, max: 900 },
        turns: { kind: 'uniform', low: 1, high: 4 },
      },
      config: { steps: 9, rollout: { maxTokens: 20, temperature: 0.5, promptsPerStep: 16 } },
    });
    expect(jobOf(scenario, 'a')).toMatchObject({
      weight: 3.5,
      arrivesS: 1.5,
      trainerLane: 1,
      lanes: [0, 1],
      tokenLatencyMs: 40,
      sim: {
        environmentWaitMs: { kind: 'lognormal', median: 100, sigma: 1, max: 900 },
        turns: { kind: 'trace', file: join(folder, 'turns.jsonl'), field: 'n' },
      },
      config: { seed: 11, steps: 9, rollout: { maxTokens: 24, temperature: 0.5 } },
    });
  });

  test("each job's config is the config of a run of its own", () => {
    const { config } = jobOf(load(PAIR), 'a');
    const set = ['seed=11', 'steps=9', 'rollout.max_tokens=24', 'rollout.temperature=0.5', 'lanes=2'];
    expect(config).toEqual(resolveConfig({ set: [...set, 'output.checkpoint=false'] }));
  });

  test('seeds come from the scenario and the id, whatever other jobs there are', () => {
    const { config } = jobOf(load(PAIR), 'b');
    expect(config.seed).toBe(jobSeed(7, 'b'));
    expect(jobOf(load('seed = 7\n[[job]]\nid = "b"'), 'b').config.seed).toBe(config.seed);
    const seeds = [1, 2, 3].flatMap((seed) => ['a', 'b', 'ab', 'A'].map((id) => jobSeed(seed, id)));
    expect(new Set(seeds).size).toBe(seeds.length);
    for (const seed of seeds) expect(Number.isSafeInteger(seed) && seed >= 0).toBe(true);
    // Both words count: without the second, all seeds would be multiples of 2 ** 21.
    expect(seeds.some((seed) => seed % 2 ** 21 !== 0)).toBe(true);
    expect(seeds.some((seed) => seed > 2 ** 32)).toBe(true);
  });

  test('--set reaches a job by its id, and all jobs by the defaults', () => {
    const scenario = load(
      PAIR,
      'job.a.rollout.max_tokens=30',
      'defaults.rollout.max_tokens=25',
      'defaults.steps=3',
      'job.b.lanes=[1]',
      'lanes=3',
    );
    expect(jobOf(scenario, 'a').config).toMatchObject({ steps: 3, rollout: { maxTokens: 30 } });
    expect(jobOf(scenario, 'b').config).toMatchObject({ steps: 3, rollout: { maxTokens: 25 } });
    expect(jobOf(scenario, 'b')).toMatchObject({ lanes: [1], trainerLane: 1 });
    expect(jobOf(scenario, 'a').config.lanes.count).toBe(3);
  });

  test('paths in a file begin at its folder, paths of --set at the current one', () => {
    mkdirSync(join(folder, 'inner'), { recursive: true });
    const file = write(
      'inner/paths.toml',
      `[scheduler]
policy = "../my-policy.ts"
[defaults]
model = { path = "../weights" }
[[job]]
id = "a"
task = { name = "./my-task.js" }
[[job]]
id = "b"
model = { path = "other" }`,
    );
    const { scenario } = loadScenario({ file });
    expect(scenario.name).toBe('paths');
    expect(scenario.scheduler.policy).toBe(join(folder, 'my-policy.ts'));
    expect(jobOf(scenario, 'a').config).toMatchObject({
      model: { path: join(folder, 'weights') },
      task: { name: join(folder, 'inner/my-task.js') },
    });
    expect(jobOf(scenario, 'b').config.model.path).toBe(join(folder, 'inner/other'));
    const set = ['defaults.model.path=w', 'job.b.task.name=./t.mjs', 'scheduler.policy="./p.mjs"'];
    const changed = loadScenario({ file, set }).scenario;
    expect(jobOf(changed, 'a').config.model.path).toBe(resolve('w'));
    expect(jobOf(changed, 'b').config.model.path).toBe(join(folder, 'inner/other'));
    expect(jobOf(changed, 'b').config.task.name).toBe(resolve('t.mjs'));
    expect(changed.scheduler.policy).toBe(resolve('p.mjs'));
  });
});

describe('a plain run config is a scenario of one job', () => {
  test('on every lane, with the config it always had', () => {
    const file = write('plain.toml', 'seed = 4\nsteps = 3\nlanes = 2\n[rollout]\nmax_tokens = 9\n');
    const set = ['steps=5', 'scheduler.reserve=[{lane = 1, from_step = 2, until_step = 3}]'];
    const { kind, scenario } = loadScenario({ file, set });
    const config = resolveConfig({ file, set });
    expect(kind).toBe('run');
    const { lanes, scheduler, output } = config;
    const machine = { lanes, scheduler: { ...scheduler, options: {} }, output };
    const place = { weight: 1, arrivesS: 0, trainerLane: 0, lanes: [0, 1], tokenLatencyMs: null };
    const job = { id: 'main', ...place, config, sim: {} };
    expect(scenario).toEqual({ name: 'plain', seed: 4, ...machine, sim: {}, jobs: [job] });
  });

  test('and without a file the shipped example', () => {
    const { kind, scenario } = loadScenario();
    expect(kind).toBe('run');
    expect(scenario.jobs.map(({ config }) => config)).toEqual([resolveConfig()]);
  });

  test('its complaints are those of a run config', () => {
    expect(complaint('stpes = 3')).toBe('FILE: stpes is not a known key: did you mean steps?');
    expect(complaint('steps = 3', 'job.a.steps=2')).toBe(
      '--set job.a.steps=2: there is no job a: a run config has none',
    );
  });
});

describe('complaints name the place, the key, the value and the remedy', () => {
  const AB = '[[job]]\nid = "a"\n[[job]]\nid = "b"\n';

  test.each([
    [`${AB}stpes = 3`, 'FILE: job b: stpes is not a known key: did you mean steps?'],
    [`${AB}trainer = 1`, 'FILE: job b: trainer is not a known key: known here: seed, steps, model'],
    [`${AB}trainr_lane = 1`, 'FILE: job b: trainr_lane is not a known key: did you mean trainer_lane?'],
    [
      `${AB}[job.rollout]\ntemprature = 1`,
      'FILE: job b: rollout.temprature is not a known key: did you mean rollout.temperature?',
    ],
    [
      `${AB}[job.rollout]\ntemperature = 0`,
      'FILE: job b: rollout.temperature is 0, must be a number above 0',
    ],
    [`${AB}[job.output]\ncheckpoint = true`, 'FILE: job b: output is not a known key: known here: seed'],
    [`${AB}weight = 0`, 'FILE: job b: weight is 0, must be a number above 0 and at most 1000000'],
    [`${AB}lanes = 2`, 'FILE: job b: lanes is 2, must be a list of lane numbers'],
    [`${AB}lanes = []`, 'FILE: job b: lanes is [], must be a list of at least one lane number'],
    [`${AB}[job.sim]\ntruns = 2`, 'FILE: job b: sim.truns is not a known key: did you mean sim.turns?'],
    [`${AB}[job.sim]\nturns = -1`, 'FILE: job b: sim.turns is -1, must be a number from 0, a list of them'],
    [`[sim]\nlanes = 0\n${AB}`, 'FILE: sim.lanes is 0, must be a whole number from 1 to 100000'],
    [`[defaults]\nid = "x"\n${AB}`, 'FILE: defaults.id is not a known key'],
    [
      `[defaults.rollout]\ntemprature = 1\n${AB}`,
      'FILE: defaults.rollout.temprature is not a known key: did you mean defaults.rollout.temperature?',
    ],
    [`[defaults]\nsteps = 0\n${AB}`, 'FILE: defaults.steps is 0, must be a whole number from 1'],
    [`steps = 3\n${AB}`, 'FILE: steps is not a known key: did you mean defaults.steps?'],
    [`[rollout]\nmax_tokens = 3\n${AB}`, 'FILE: rollout is not a known key: did you mean defaults.rollout?'],
    [`name = ""\n${AB}`, 'FILE: name is "", must be a text of 1 to 100 characters'],
    ['name = "alone"', 'FILE: job is missing, must be one [[job]] table or more'],
    ['[[jobs]]\nid = "a"', 'FILE: jobs is not a known key: did you mean job?'],
    [`[scheduler]\npolicy = "best"\n${AB}`, 'FILE: scheduler.policy is "best", must be "serial" or "static"'],
    [`[scheduler]\noptions = 1\n${AB}`, 'FILE: scheduler.options is 1, must be a table'],
    [
      '[job.a]\nsteps = 3',
      'FILE: job is {"a":{"steps":3}}, must be 1 to 256 [[job]] tables, each with an id',
    ],
    ['job = []', 'FILE: job is a list of 0, must be 1 to 256 [[job]] tables'],
    ['job = [3]', 'FILE: job[1] is 3, must be a table of keys'],
    ['[[job]]\nsteps = 3', 'FILE: job[1].id is missing, must be a letter and up to 63 more'],
    ['[[job]]\nid = "../a"', 'FILE: job[1].id is "../a", must be a letter'],
    ['[[job]]\nid = "2"', 'FILE: job[1].id is "2", must be a letter'],
    [`${AB}[[job]]\nid = "A"`, 'FILE: job[3].id is "A", and so is job[1].id, upper or lower case: give each'],
  ])('%j', (toml, expected) => {
    expect(complaint(toml)).toContain(expected);
  });

  test.each([
    [
      ['job.b.rollout.temprature=1'],
      /^--set job\.b\.rollout\.temprature=1: rollout\.temprature is not a known key: /,
    ],
    [['job.b.rollout.temperature=0'], /^--set job\.b\.rollout\.temperature=0: must be a number above 0/],
    [['defaults.steps=0'], /^--set defaults\.steps=0: must be a whole number from 1/],
    [['job.c.steps=3'], /^--set job\.c\.steps=3: there is no job c: use one of a, b$/],
    [['job.b=3'], /^--set job\.b=3: .*must be one \[\[job\]\] table or more$/],
    [['job.b.id=c'], /^--set job\.b\.id=c: id is not a known key/],
    [['steps=3'], /^--set steps=3: steps is not a known key: did you mean defaults\.steps\?$/],
  ])('%j', (set, expected) => {
    expect(complaint(AB, ...set)).toMatch(expected);
  });
});

describe('keys that do not go together', () => {
  const AB = 'lanes = 2\n[[job]]\nid = "a"\n[[job]]\nid = "b"\n';

  test.each([
    [`${AB}lanes = [0, 2]`, 'FILE: job b: lanes is [0,2] and lanes.count is 2 and lanes are numbered from 0'],
    [`${AB}lanes = [1, 1]`, 'FILE: job b: lanes is [1,1]: name lane 1 once'],
    [`${AB}lanes = [1]\ntrainer_lane = 0`, 'FILE: job b: trainer_lane is 0 and lanes is [1]: '],
    [`${AB}trainer_lane = 3`, 'FILE: job b: trainer_lane is 3 and lanes is [0,1]: '],
    [
      `${AB}[job.engine]\nslots = 600`,
      'FILE: job b: engine.batch_tokens is 512 and engine.slots is 600: a batch holds a row for every slot',
    ],
    [
      `${AB}[defaults.engine]\nslots = 600\n[defaults.optimizer]\nbeta1 = 0.8`,
      'FILE: job a: engine.batch_tokens is 512 and engine.slots is 600: ',
    ],
    [
      '[lanes]\nin_flight_budget_us = 60\n[[job]]\nid = "a"',
      'FILE: lanes.in_flight_budget_us is 60 and lanes.slice_budget_us is 4000: ',
    ],
    [
      `${AB}[[scheduler.reserve]]\nlane = 1\nfrom_step = 1\nuntil_step = 2`,
      'FILE: scheduler.reserve counts the steps of a job, and there are 2 jobs: leave it out',
    ],
    [
      `lanes = 2
[[job]]
id = "a"
trainer_lane = 1
[[scheduler.reserve]]
lane = 1
from_step = 1
until_step = 2`,
      'FILE: scheduler.reserve[1].lane is 1, where a trains: reserve another lane',
    ],
  ])('%j', (toml, expected) => {
    expect(complaint(toml)).toContain(expected);
  });

  test('whoever typed one of them is told so', () => {
    expect(complaint(AB, 'lanes.count=1', 'job.b.lanes=[1]')).toMatch(
      /^--set job\.b\.lanes=\[1\]: lanes is \[1\]/,
    );
    expect(complaint(AB, 'job.b.engine.slots=600')).toMatch(
      /^--set job\.b\.engine\.slots=600: engine\.batch_tokens/,
    );
    expect(complaint(AB, 'defaults.engine.slots=600')).toMatch(
      /^--set defaults\.engine\.slots=600: engine\.batch/,
    );
  });
});
