import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { UserError } from '#src/lib/errors.js';
import { Random } from '#src/lib/prng.js';
import { isPolicyPath, loadPolicy } from '#src/run/policy-file.js';
import { violationText } from '#src/run/policy-violation.js';
import { reduce } from '#src/scheduler/events.js';
import type { Policy } from '#src/scheduler/plan.js';
import { decide, Scheduler, type Effects } from '#src/scheduler/scheduler.js';
import { createSnapshot } from '#src/scheduler/state.js';
import {
  added,
  after,
  asks,
  awake,
  jobSpec,
  lanesUp,
  lines,
  randomEvent,
  released,
  settled,
  wants,
} from '../scheduler/world.js';

const EXAMPLE = fileURLToPath(new URL('../../examples/policy.ts', import.meta.url));

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'offbeat-policy-'));
});
afterAll(() => rmSync(folder, { recursive: true }));

function write(name: string, text: string): string {
  const file = join(folder, name);
  writeFileSync(file, text);
  return file;
}

/** The one line a user would read. */
async function complaint(name: string, text: string): Promise<string> {
  const file = write(name, text);
  try {
    (await loadPolicy(file)).create({});
  } catch (error) {
    if (!(error instanceof UserError)) throw error;
    expect(error.message).not.toContain('\n');
    return error.message.replaceAll(file, 'FILE');
  }
  throw new Error('nothing was refused');
}

async function load(file: string, options: unknown = {}): Promise<Policy> {
  return (await loadPolicy(file)).create(options);
}

const EMPTY = '{ wake: [], sleep: [], resize: [], grant: [], reservations: [] }';

describe('examples/policy.ts', () => {
  test('is short, and is what its name says', async () => {
    const code = readFileSync(EXAMPLE, 'utf8')
      .split('\n')
      .filter((line) => line.trim() !== '' && !line.trim().startsWith('//'));
    expect(code.length).toBeLessThanOrEqual(45);
    const { name, after: source, summary, turnsMax } = await loadPolicy(EXAMPLE);
    expect({ name, after: source, summary, turnsMax }).toEqual({
      name: 'policy',
      after: null,
      summary: `from ${EXAMPLE}`,
      turnsMax: Infinity,
    });
  });

  test('breaks no invariant in a hundred random worlds', async () => {
    const policy = await load(EXAMPLE);
    const seen = { wake: 0, sleep: 0, grant: 0 };
    for (let seed = 1; seed <= 100; seed++) {
      const random = new Random(seed);
      let snapshot = createSnapshot(random.int(1, 5), 0);
      for (let cycle = 0; cycle < 60; cycle++) {
        for (let draws = random.int(1, 4); draws > 0; draws--) {
          const event = randomEvent(snapshot, random);
          if (event !== null) snapshot = reduce(snapshot, event, snapshot.timeMs + 1);
        }
        const { plan, violations, next } = decide(snapshot, policy);
        expect(violations, `seed ${seed}, cycle ${cycle}`).toEqual([]);
        seen.wake += plan.wake.length;
        seen.sleep += plan.sleep.length;
        seen.grant += plan.grant.length;
        snapshot = next;
      }
    }
    for (const [part, count] of Object.entries(seen)) expect(count, part).toBeGreaterThan(100);
  });

  test('gives memory to who has least left, and stages theirs before all', async () => {
    const policy = await load(EXAMPLE);
    const big = { engineBytes: 60, trainerBytes: 10 };
    let snapshot = after(
      lanesUp(1, 100),
      added(jobSpec('long', big)),
      added(jobSpec('short', { ...big, trainerBytes: 0 })),
      wants('long', 9),
      wants('short', 2),
    );
    const step = (): string[] => {
      const { plan, violations, next } = decide(snapshot, policy);
      expect(violations).toEqual([]);
      snapshot = settled(next);
      return lines(plan);
    };
    expect(step()).toEqual(['wake short on 0 with 4 at v0']);
    snapshot = after(snapshot, asks('long', 'actorTraining', [0], 30));
    expect(step()).toEqual(['grant 1']);
    // Beside the first stage's 30 there is no room for this one, even with all engines asleep: nobody is moved for it.
    snapshot = after(snapshot, asks('short', 'actorTraining', [0], 70));
    expect(step()).toEqual([]);
    snapshot = released(snapshot);
    expect(step()).toEqual(['sleep short on 0']);
    expect(step()).toEqual(['grant 2']);
    snapshot = released(snapshot);
    expect(step()).toEqual(['wake short on 0 with 4 at v0']);
  });

  test('puts engines of finished jobs to sleep', async () => {
    const policy = await load(EXAMPLE);
    const running = awake(after(lanesUp(1), added(jobSpec('a'))), 'a', 0, 2);
    expect(lines(decide(running, policy).plan)).toEqual([]);
    const finished = after(running, { kind: 'jobFinished', job: 'a' });
    expect(lines(decide(finished, policy).plan)).toEqual(['sleep a on 0']);
  });
});

describe('loadPolicy', () => {
  const snapshot = after(lanesUp(1), added(jobSpec('a')));
  const WAKES = (slots: string): string =>
    `{ ...${EMPTY}, wake: [{ job: 'a', lane: 0, slots: ${slots}, version: 0, reason: 'test' }] }`;

  test.each(['.ts', '.mjs', '.js'])('takes a bare policy from a %s file', async (extension) => {
    const types = extension === '.ts' ? ': unknown' : '';
    const file = write(`bare${extension}`, `export default (snapshot${types}) => (${WAKES('3')});`);
    const definition = await loadPolicy(file);
    expect(definition).toMatchObject({ name: 'bare', after: null, isWorkConserving: false });
    expect(lines(definition.create({})(snapshot))).toEqual(['wake a on 0 with 3 at v0']);
    expect(() => definition.create({ slots: 3 })).toThrow(
      /^scheduler\.options: policy bare does not take it \(.*slots.*\)/,
    );
  });

  const DEFINITION = `
import { STAGES, type Plan, type PolicyDefinition, type Snapshot } from 'offbeat';
import { z } from 'zod';
import { basename } from 'node:path';
import { reason } from './reason.mjs';

const options = z.strictObject({ slots: z.int().min(1).default(2) });
const definition: PolicyDefinition<z.output<typeof options>> = {
  name: basename('some/mine'),
  after: null,
  summary: \`\${STAGES.length} stages\`,
  isWorkConserving: true,
  turnsMax: 3,
  options,
  create: ({ slots }) => (snapshot: Snapshot): Plan => ({
    ...${EMPTY},
    wake: [{ job: [...snapshot.jobs.keys()][0] ?? '', lane: 0, slots, version: 0, reason }],
  }),
};
export default definition;
`;

  test("takes a definition, with imports of 'offbeat', packages, Node and files beside it", async () => {
    write('reason.mjs', "export const reason = 'from beside';");
    const definition = await loadPolicy(relative(process.cwd(), write('mine.ts', DEFINITION)));
    expect(definition).toMatchObject({
      name: 'mine',
      summary: '7 stages',
      isWorkConserving: true,
      turnsMax: 3,
    });
    expect(lines(definition.create({})(snapshot))).toEqual(['wake a on 0 with 2 at v0']);
    const { wake } = definition.create({ slots: 4 })(snapshot);
    expect(wake).toEqual([{ job: 'a', lane: 0, slots: 4, version: 0, reason: 'from beside' }]);
    expect(() => definition.create({ slots: 0 })).toThrow(
      /^scheduler\.options\.slots: policy mine does not take it \(.+\): mend it or leave it out$/,
    );
  });

  test.each([
    ['a.ts', 'export const policy = 1;', 'policy FILE: exports nothing as default: add `export default`'],
    [
      'b.ts',
      'export default async () => ({});',
      'policy FILE: its default export is an async function or a generator: ',
    ],
    ['c.ts', 'export default 3;', 'policy FILE: name of its default export must be a text that is not empty'],
    [
      'd.ts',
      "export default { name: 'd', after: null, summary: '', isWorkConserving: false, turnsMax: 1, options: {} };",
      'policy FILE: options of its default export must be a zod schema',
    ],
    [
      'e.ts',
      "export default 1;\nconst x: = 2;\nconst y = 'open",
      'policy FILE:2: not valid TypeScript (Type expected.): mend this line',
    ],
    [
      'f.ts',
      "throw new Error('at\\nonce');\nexport default 1;",
      'policy FILE: cannot be loaded (at once): mend it',
    ],
    ['g.ts', "import { x } from 'no-such-package';\nexport default x;", 'policy FILE: cannot be loaded ('],
    [
      'h.ts',
      "import { nothing } from 'offbeat';\nexport default nothing;",
      'policy FILE: cannot be loaded (',
    ],
    ['i.mjs', 'export default (', 'policy FILE: cannot be loaded ('],
    ['j.txt', '', 'policy FILE: must be a file that ends in .ts, .js, .mjs'],
    [
      'k.mjs',
      `import { z } from '${import.meta.resolve('zod')}';
export default { name: 'k', after: null, summary: '', isWorkConserving: false, turnsMax: 1, options: z.object({}), create: () => 3 };`,
      'policy FILE: create() must return a function from snapshot to plan',
    ],
  ])('%s', async (name, text, expected) => {
    const message = await complaint(name, text);
    expect(message).toContain(expected);
    expect(message).not.toContain('base64');
  });

  test('a file that is not there, and a folder', async () => {
    const missing = join(folder, 'missing.ts');
    await expect(loadPolicy(missing)).rejects.toThrow(
      `policy ${missing}: not found: name a file that exists, or one of the policies by its name`,
    );
    await expect(loadPolicy(join(folder, 'missing.d', '..'))).rejects.toThrow(UserError);
  });

  test('names are names and paths are paths', () => {
    for (const path of ['./x', '../x.ts', 'x.ts', 'a/x.mjs', '/x', 'x.js'])
      expect(isPolicyPath(path)).toBe(true);
    for (const name of ['priority', 'gapRatio', 'x', '']) expect(isPolicyPath(name)).toBe(false);
  });
});

describe('a policy that breaks an invariant', () => {
  /** A scheduler whose lanes do at once what they are told. */
  function start(policy: Policy): {
    scheduler: Scheduler;
    messages: string[];
    failures: string[];
    waking: string[];
  } {
    const [messages, failures, waking]: [string[], string[], string[]] = [[], [], []];
    let timeMs = 0;
    const effects: Effects = {
      nowMs: () => timeMs++,
      wake: ({ job, slots, version }) => {
        waking.push(`${job} ${slots}`);
        return Promise.resolve(version);
      },
      sleep: () => Promise.resolve(),
      resize: () => Promise.resolve(),
      segment: () => Promise.resolve(),
      admit: () => Promise.resolve(),
      rounds: () => undefined,
      reviewAt: () => undefined,
      // As a run's records do, whatever the policy answered.
      record: ({ plan }) => void lines(plan),
      violation: (violations, plan) => messages.push(violationText('broken', violations, plan)),
      failed: ({ message }) => failures.push(message),
    };
    const scheduler = new Scheduler(policy, effects, 1);
    scheduler.dispatch({ kind: 'laneReady', lane: 0, bytesCapacity: Infinity });
    return { scheduler, messages, failures, waking };
  }

  const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

  test('is told which and what its plan was, and the run goes on under the last good one', async () => {
    // Greedy while two jobs are there, sane otherwise.
    const file = write(
      'greedy.ts',
      `import type { Plan, Snapshot } from 'offbeat';
export default function greedy({ jobs }: Snapshot): Plan {
  const slots = jobs.size > 1 ? 99 : 4;
  const asleep = [...jobs.values()].filter((job) => job.engines.length === 0 && !job.finished);
  return {
    wake: asleep.map(({ id, version }) => ({ job: id, lane: 0, slots, version, reason: 'more is more' })),
    sleep: [], resize: [], grant: [], reservations: [],
  };
}`,
    );
    const { scheduler, messages, failures, waking } = start(await load(file));
    scheduler.dispatch(added(jobSpec('a')));
    await turn();
    expect(waking).toEqual(['a 4']);
    scheduler.dispatch(added(jobSpec('b')));
    await turn();
    expect(messages).toEqual([
      'policy broken breaks invariant 7 (slots are whole, at most as many as the engine has, and at least 1 to wake): ' +
        '99 slots are not between 1 and 4; its plan: wake b on lane 0 with 99 slots at version 0 (more is more); ' +
        'the run goes on under the last good plan',
    ]);
    // What stood before stands: a is awake, b has nothing, nothing failed.
    expect(scheduler.snapshot.jobs.get('a')?.engines).toMatchObject([{ status: 'awake', slots: 4 }]);
    expect(scheduler.snapshot.jobs.get('b')?.engines).toEqual([]);
    expect({ waking, failures }).toEqual({ waking: ['a 4'], failures: [] });
    scheduler.dispatch({ kind: 'tick' });
    await turn();
    expect(messages).toHaveLength(2);
  });

  test.each([
    ['undefined', 'the answer must be a plan, with wake, sleep, resize, grant and reservations'],
    ['{ wake: [] }', 'sleep must be a list of orders'],
    [`{ ...${EMPTY}, wake: [null] }`, 'wake[1] must be an order with its reason'],
    [
      `{ ...${EMPTY}, sleep: [{ job: 'a', lane: 0, moveTo: 'bed', reason: '' }] }`,
      'sleep[1].moveTo must be "queue" or',
    ],
    [`{ ...${EMPTY}, grant: [{ request: 1 }] }`, 'grant[1].reason must be a text'],
    [`{ ...${EMPTY}, memory: new Map() }`, 'memory must be plain data'],
    ["(() => { throw new Error('no idea'); })()", 'no idea'],
  ])('answers with %s', async (answer, why) => {
    const { scheduler, messages, failures } = start(
      await load(write('strange.ts', `// ${why}\nexport default () => (${answer});`)),
    );
    await turn();
    scheduler.dispatch(added(jobSpec('a')));
    await turn();
    expect(messages).toHaveLength(2);
    expect(messages[0]).toContain('policy broken breaks invariant 0 (the policy answers with a plan');
    expect(messages[0]).toContain(`the policy gave no plan: ${why}`);
    expect(messages[0]).toContain('; its plan: none; ');
    expect(failures).toEqual([]);
  });

  test.each([
    ['jobs.get("a").weight = 9', /read only property 'weight'/],
    ['lanes[0].health = "lost"', /read only property 'health'/],
    ['jobs.get("a").engineLanes.push(7)', /object is not extensible/],
    ['memory.turns += 1', /read only property 'turns'/],
    ['jobs.delete("a")', null],
  ])('reaches into the snapshot: %s', async (act, why) => {
    const answer = `{ ...${EMPTY}, memory: memory ?? { turns: 0 } }`;
    const text = `export default ({ jobs, lanes, memory }) => { if (memory && jobs.size) ${act}; return ${answer}; };`;
    const { scheduler, messages, failures } = start(
      await load(write(`${act.replaceAll(/\W/g, '_')}.mjs`, text)),
    );
    await turn();
    scheduler.dispatch(added(jobSpec('a')));
    await turn();
    expect(messages).toHaveLength(why === null ? 0 : 1);
    if (why !== null) expect(messages[0]).toMatch(why);
    expect(scheduler.snapshot.jobs.get('a')).toMatchObject({ weight: 1, engineLanes: [0] });
    expect(scheduler.snapshot.memory).toEqual({ turns: 0 });
    expect(failures).toEqual([]);
    // Frozen as it is, the scheduler goes on with it.
    scheduler.dispatch(wants('a', 3));
    scheduler.dispatch({ kind: 'versionPublished', job: 'a', version: 1 });
    expect(scheduler.snapshot.jobs.get('a')).toMatchObject({ version: 1, demand: { rollouts: 3 } });
  });

  test('numbers that are none break the invariant of what they stand for', async () => {
    const answer = `{ ...${EMPTY}, wake: [{ job: 'a', lane: 0, slots: NaN, version: 0, reason: '' }] }`;
    const { scheduler, messages } = start(await load(write('nan.mjs', `export default () => (${answer});`)));
    scheduler.dispatch(added(jobSpec('a')));
    await turn();
    expect(messages[0]).toContain('invariant 7 (');
  });

  test('a message stays short however much is wrong', async () => {
    const wakes = `Array.from({ length: 1000 }, (_, lane) => ({ job: 'x', lane, slots: 1, version: 0, reason: '' }))`;
    const policy = await load(write('many.mjs', `export default () => ({ ...${EMPTY}, wake: ${wakes} });`));
    const { plan, violations } = decide(lanesUp(1), policy);
    const message = violationText('many', violations, plan);
    expect(message).toContain('; and 997 more; its plan: ');
    expect(message).toContain('; and 992 more; the run goes on');
    expect(message.length).toBeLessThan(1500);
  });
});
