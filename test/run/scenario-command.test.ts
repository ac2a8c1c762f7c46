import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { run, type RunFlags } from '#src/cli/run.js';
import { UserError } from '#src/lib/errors.js';
import { loadScenario } from '#src/run/scenario.js';

let folder: string;
let out: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'offbeat-scenario-command-'));
  out = join(folder, 'never');
});
afterAll(() => rmSync(folder, { recursive: true }));

function write(name: string, text: string): string {
  const file = join(folder, name);
  writeFileSync(file, text);
  return file;
}

/** The one line that `offbeat run` refuses with, before anything is written. */
async function refused(toml: string, flags: RunFlags = {}): Promise<string> {
  const file = write('refused.toml', toml);
  let message = '';
  try {
    await run(file, { ...flags, out });
  } catch (error) {
    if (!(error instanceof UserError)) throw error;
    message = error.message.replaceAll(file, 'FILE');
  }
  expect(message).not.toBe('');
  expect(existsSync(out)).toBe(false);
  return message;
}

const ONE = '[[job]]\nid = "a"\n';

test('an option that the policy does not have is told before anything begins', async () => {
  expect(await refused(`[scheduler.options]\nx = 1\n${ONE}`)).toBe(
    'scheduler.options.x is 1: policy "priority" has no such option, remove it',
  );
  const turns = '[scheduler]\npolicy = "roundRobin"\n[scheduler.options]\nturn_ms = 0\n';
  expect(await refused(`${turns}${ONE}`)).toMatch(/^scheduler\.options\.turn_ms is 0, must be/);
});

test('a mistake in the scenario is told first', async () => {
  expect(await refused(`${ONE}stpes = 3\n${ONE.replace('a', 'b')}`)).toContain(
    'job a: stpes is not a known key',
  );
});

test('jobs that do not fit on their lanes are refused before a device is opened', async () => {
  expect(await refused(`lanes.memory_mib = 4\n${ONE}`)).toBe(
    'lanes.memory_mib is 4, the trainers on lane 0 and the largest engine there take 8: raise it, or spread the jobs over more lanes',
  );
});

test('a scenario of one plain job is a run', () => {
  const { scenario } = loadScenario({ file: write('one.toml', `${ONE}steps = 3`) });
  const [job] = scenario.jobs;
  expect(job?.config).toMatchObject({ steps: 3, scheduler: { policy: 'priority' } });
  expect(loadScenario().scenario.jobs.map(({ id }) => id)).toEqual(['main']);
});

test('--policy takes a name, or a file that is loaded before anything else', async () => {
  expect(await refused(ONE, { policy: 'best' })).toMatch(
    /^--policy best: no policy of that name: use one of .*priority.*, or a file such as \.\/my-policy\.ts$/,
  );
  const missing = join(folder, 'missing.ts');
  expect(await refused(ONE, { policy: missing })).toContain(`policy ${missing}: not found`);
  const broken = write('broken.ts', 'export default 3;');
  expect(await refused('steps = 3', { policy: broken })).toContain(
    `policy ${broken}: name of its default export`,
  );
  expect(await refused(`[scheduler]\npolicy = "./broken.ts"\n${ONE}`)).toContain(
    `policy ${broken}: name of its`,
  );
  // A name that is known goes on to the job, which wants a model that is not there.
  const nowhere = `[defaults.model]\npath = "nowhere"\n${ONE}`;
  expect(await refused(nowhere, { policy: 'priority' })).toContain(join(folder, 'nowhere'));
});
