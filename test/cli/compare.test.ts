import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { z } from 'zod';
import { compare, type CompareFlags } from '#src/cli/compare.js';
import { UserError } from '#src/lib/errors.js';
import { offbeat } from './offbeat.js';

const SCENARIO = 'examples/scenarios/four-agents.toml';
let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'offbeat-compare-'));
});
afterAll(() => rmSync(folder, { recursive: true }));

const interval = z.tuple([z.number(), z.number()]).nullable();
const resultSchema = z.object({
  format: z.literal('offbeat-compare/1'),
  mode: z.literal('simulated'),
  seeds: z.array(z.number()),
  interrupted: z.literal(false),
  rows: z.array(
    z.object({
      policy: z.string(),
      job: z.string().nullable(),
      goodput: z.number(),
      makespan_s: z.number(),
      slowdown: z.number(),
      jain: z.number(),
      queue_wait_ms: z.record(z.string(), z.object({ n: z.number(), p50: z.number(), p99: z.number() })),
      yield_ms: z.object({ n: z.number() }).nullable(),
      busy: z.number(),
      wasted: z.number(),
      weight_bytes: z.number(),
      ci95: z.object({ goodput: interval, makespan_s: interval, slowdown: interval, jain: interval }),
    }),
  ),
});

describe('offbeat compare', () => {
  test('runs the example on simulated lanes: a table, a file and a page', async () => {
    const [out, json] = [join(folder, 'whole'), join(folder, 'rows.json')];
    const { code, stdout, stderr } = await offbeat(
      ...['compare', SCENARIO, '--policies', 'serial,static,gapRatio', '--simulated', '--repeats', '2'],
      ...['--set', 'defaults.steps=2', '--json', json, '--out', out],
    );
    expect(stderr).toContain('run 14 of 14');
    expect(code).toBe(0);
    for (const words of [
      'four-agents: 4 jobs, 1 lane',
      'seeds 4, 5',
      'against serial',
      'highest goodput: ',
    ]) {
      expect(stdout).toContain(words);
    }
    expect(stdout.trimEnd().split('\n').at(-1)).toBe(`report       ${join(out, 'report.html')}`);
    const text = readFileSync(json, 'utf8');
    expect(text).toBe(readFileSync(join(out, 'result.json'), 'utf8'));
    const { rows, seeds } = resultSchema.parse(JSON.parse(text));
    expect(seeds).toEqual([4, 5]);
    expect(rows).toHaveLength(3 * 5);
    expect(rows.every(({ slowdown }) => slowdown > 0.9)).toBe(true);
    expect(readFileSync(join(out, 'report.html'), 'utf8')).toContain('3 policies compared');
  });

  test('ends with exit code 2 and one line for what the user can mend', async () => {
    const wrong = await offbeat('compare', SCENARIO, '--policies', 'serial,gapRato', '--simulated');
    expect(wrong).toMatchObject({ code: 2, stdout: '' });
    expect(wrong.stderr).toMatch(/^offbeat: --policies gapRato: no policy of that name: use some of .*\n$/);
    const missing = await offbeat('compare', SCENARIO);
    expect(missing).toMatchObject({ code: 2, stdout: '' });
    expect(missing.stderr).toBe(
      "offbeat: required option '--policies <name,…>' not specified; see `offbeat compare --help`\n",
    );
  });

  const two = { policies: 'serial, fifo', simulated: true } as const;
  const refused: readonly (readonly [flags: CompareFlags, message: RegExp])[] = [
    [{ ...two, policies: 'serial' }, /^--policies serial: one policy has nothing to be compared with/],
    [{ ...two, repeats: '0' }, /^--repeats is 0, must be a whole number from 1 to 50$/],
    [{ ...two, repeats: 'some' }, /^--repeats is some, must be/],
    [{ ...two, live: true }, /^--live and --simulated contradict each other/],
    [{ ...two, set: ['lanes.count=0'] }, /lanes\.count=0: must be a whole number/],
    [
      { ...two, set: ['job.slow-tool.sim.filtered_share=2'] },
      /filtered_share=2: must be a number from 0 to 1/,
    ],
    [{ ...two, json: 'no/such/x.json' }, /^--json no\/such\/x\.json: cannot be written/],
  ];
  test.each(refused)('%j is refused in one line, and nothing is written', async (flags, message) => {
    const out = join(folder, 'never');
    const refusal = await compare(SCENARIO, { ...flags, out }).catch((error: unknown) => error);
    expect(refusal).toBeInstanceOf(UserError);
    expect(refusal).toHaveProperty('message', expect.stringMatching(message));
    expect(existsSync(out)).toBe(false);
  });
});
