import { beforeAll, describe, expect, test } from 'vitest';
import { POLICIES, policyNamed } from '#src/scheduler/policies/index.js';
import { randomCharModel } from './char-models.js';
import { RunFiles } from './run-folders.js';
import { expectSame, go, jobFiles, ordersOf, type Ran, scenarioOf } from './scenario-runs.js';

/** On policy: what a job does depends on nothing but itself. */
const HEAD = `
seed = 11
[output]
checkpoint = true
[defaults]
steps = 2
[defaults.rollout]
prompts_per_step = 2
samples_per_prompt = 3
max_tokens = 24
[defaults.engine]
slots = 4
[defaults.algorithm]
staleness_versions_max = 0
[defaults.evaluation]
heldout_prompts = 0
`;

type Jobs = Readonly<Record<string, string>>;
type Options = Readonly<Record<string, unknown>>;

function under(name: string, jobs: Jobs, options: Options = {}): Promise<Ran> {
  return go(scenarioOf(HEAD, jobs), { policy: { name, plan: policyNamed(name, options) } });
}

/** Each job of these by itself. */
async function eachAlone(jobs: Jobs): Promise<Map<string, RunFiles>> {
  const alone = new Map<string, RunFiles>();
  for (const [id, text] of Object.entries(jobs))
    alone.set(id, new RunFiles((await go(scenarioOf(HEAD, { [id]: text }))).folder));
  return alone;
}

/** Each job came to its end, with the bits of the other run of it. */
function expectAsAlone({ folder }: Ran, alone: ReadonlyMap<string, RunFiles>, label: string): void {
  for (const [id, own] of alone) {
    const shared = jobFiles(folder, id);
    expect(shared.metrics, `${label}: ${id}`).toHaveLength(2);
    expectSame(shared, own, `${label}: ${id}`);
  }
}

/** Two runs of the same jobs. */
function expectSameJobs(ran: Ran, other: Ran, label: string): void {
  const ids = ran.outcome.jobs.map(({ id }) => id);
  expectAsAlone(ran, new Map(ids.map((id) => [id, jobFiles(other.folder, id)])), label);
}

describe('every policy of the registry, live, with two jobs on one lane', () => {
  const jobs = { a: '', b: 'weight = 2\n[job.rollout]\ntemperature = 1.3\n' };
  let alone: ReadonlyMap<string, RunFiles>;
  beforeAll(async () => {
    alone = await eachAlone(jobs);
  });

  // What rounds end early depends on what is fast.
  test.each([...POLICIES.keys()].filter((name) => name !== 'tailBatch'))(
    '%s brings both to their end with the bits they have alone',
    async (name) => {
      expectAsAlone(await under(name, jobs), alone, name);
    },
  );

  test('tailBatch brings both to their end', async () => {
    const { folder, outcome } = await under('tailBatch', jobs);
    for (const { id, summary } of outcome.jobs) {
      expect(jobFiles(folder, id).metrics, id).toHaveLength(2);
      expect(summary.tokens.trained, id).toBeGreaterThan(0);
      expect(summary.tokens.expired, id).toBe(0);
    }
  });
});

/** Jobs whose rollouts go on for as long as they may: untrained models hardly ever write their end token. */
async function untrained(size: Parameters<typeof randomCharModel>[2] = {}): Promise<string> {
  const path = await randomCharModel('0123456789+=;', 128, size);
  return `[job.model]\npath = ${JSON.stringify(path)}\n[job.rollout]\nmax_tokens = 96\n`;
}

test('segmentCap tells engines how to admit once it has seen how long rollouts are', async () => {
  // A cache for two of the longest sequences.
  const small = '[job.engine]\nkv_blocks = 6\n';
  const jobs = { a: small, b: small };
  const ran = await under('segmentCap', jobs, { rollouts_min: 6 });
  const rules = ordersOf(ran).filter((order) =>
    /^[ab] engine on lane 0 admits by \d+ segments: of/.test(order),
  );
  for (const id of ['a', 'b'])
    expect(
      rules.some((order) => order.startsWith(id)),
      id,
    ).toBe(true);
  expectSameJobs(ran, await under('fifo', jobs), 'segmentCap');
});

test('stageAligned cuts the work of two models into segments as long as a step of the faster one', async () => {
  const large = { hiddenSize: 128, intermediateSize: 256, layers: 6 };
  const jobs = { small: await untrained(), big: await untrained(large) };
  const ran = await under('stageAligned', jobs);
  const lengths = ordersOf(ran).flatMap((order) => {
    const [, us] = /^segments on lane 0 of (\d+) µs: a decode step of the fastest of 2$/.exec(order) ?? [];
    return us === undefined ? [] : [Number(us)];
  });
  expect(lengths.length).toBeGreaterThan(0);
  expectSameJobs(ran, await under('fifo', jobs), 'stageAligned');
});

describe('sloGuard, where somebody waits for the tokens of one of two jobs', () => {
  const withLimit = async (limitMs: number): Promise<string[]> => {
    const job = await untrained();
    const jobs = { chat: `token_latency_ms = ${limitMs}\n${job}`, background: job };
    return ordersOf(await under('sloGuard', jobs, { slots_start: 4 }));
  };
  const cut = 'resize background engine on lane 0 to 0 slots: others have its slots now';

  test('the other is cut while the latency is over its limit', async () => {
    // Below a step of any device.
    const orders = await withLimit(0.001);
    expect(orders).toContain(cut);
    expect(orders.filter((order) => /^resize chat engine .* to 0 slots/.test(order))).toEqual([]);
  });

  test('it never is where the latency is within its limit', async () => {
    const orders = await withLimit(60_000);
    expect(orders.some((order) => order.startsWith('wake background engine'))).toBe(true);
    expect(orders).not.toContain(cut);
  });
});
