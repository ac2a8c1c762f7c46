import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test, vi } from 'vitest';
import { z } from 'zod';
import { compare } from '#src/cli/compare.js';
import { loadScenario } from '#src/run/scenario.js';

const TWO_JOBS = `
seed = 2
[defaults]
steps = 1
[defaults.rollout]
prompts_per_step = 2
samples_per_prompt = 3
max_tokens = 12
[defaults.algorithm]
staleness_versions_max = 0
# Groups that all did as well teach something too.
kl_coefficient = 0.05
[defaults.evaluation]
heldout_prompts = 0
[output]
checkpoint = false
[[job]]
id = "a"
[[job]]
id = "b"
`;

const rowSchema = z.looseObject({
  policy: z.string(),
  job: z.string().nullable(),
  goodput: z.number().positive(),
  makespan_s: z.number().positive(),
  slowdown: z.number().positive(),
  jain: z.number().nullable(),
  busy: z.number().positive().nullable(),
  tokens_trained: z.number().positive(),
});
const resultSchema = z.looseObject({ mode: z.literal('live'), rows: z.array(rowSchema) });

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'offbeat-compare-live-'));
});
afterAll(() => rmSync(folder, { recursive: true }));

test('a live contest runs every policy and every job alone, to the same tokens', async () => {
  const file = join(folder, 'two.toml');
  writeFileSync(file, TWO_JOBS);
  const out = join(folder, 'out');
  const silence = vi.spyOn(process.stderr, 'write').mockReturnValue(true);
  let printed = '';
  const stdout = vi.spyOn(process.stdout, 'write').mockImplementation((text) => {
    printed += String(text);
    return true;
  });
  try {
    expect(await compare(file, { policies: 'serial,gapRatio', repeats: '1', out })).toBe(0);
  } finally {
    silence.mockRestore();
    stdout.mockRestore();
  }
  const { rows } = resultSchema.parse(JSON.parse(readFileSync(join(out, 'result.json'), 'utf8')));
  expect(rows.map(({ policy, job }) => `${policy} ${job ?? 'all'}`)).toEqual([
    'serial all',
    'serial a',
    'serial b',
    'gapRatio all',
    'gapRatio a',
    'gapRatio b',
  ]);
  // On policy, what is trained on does not depend on the policy.
  for (const job of [null, 'a', 'b']) {
    const trained = rows.filter((row) => row.job === job).map((row) => row.tokens_trained);
    expect(new Set(trained).size, String(job)).toBe(1);
  }
  for (const run of ['1-serial', '1-gapRatio', '1-alone-a', '1-alone-b'])
    expect(existsSync(join(out, 'runs', run, 'trace.json')), run).toBe(true);
  // Each run can be run, or simulated, again as it was.
  for (const [run, policy] of [
    ['1-serial', 'serial'],
    ['1-gapRatio', 'gapRatio'],
  ] as const) {
    const { scenario } = loadScenario({ file: join(out, 'runs', run, 'config.toml') });
    expect(scenario.scheduler.policy).toBe(policy);
  }
  expect(printed).toContain('gapRatio');
  expect(readFileSync(join(out, 'report.html'), 'utf8')).toContain('serial');
});
