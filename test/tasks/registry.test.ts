import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { UserError } from '#src/lib/errors.js';
import { openEnvironment } from '#src/tasks/registry.js';
import type { Json } from '#src/tasks/task.js';

const fixtures = fileURLToPath(new URL('./fixtures/', import.meta.url));

async function refusal(name: string, options: Json = {}): Promise<string> {
  const error: unknown = await openEnvironment(name, options, fixtures).catch((reason: unknown) => reason);
  if (!(error instanceof UserError))
    throw new Error(`${name} was not refused with a UserError`, { cause: error });
  expect(error.message).not.toContain('\n');
  return error.message;
}

describe('opening an environment', () => {
  it('finds arithmetic by name and passes its options on', async () => {
    const { environment, ref } = await openEnvironment('arithmetic', { digits: 3 }, fixtures);
    expect(environment.id).toBe('arithmetic');
    const [task] = environment.tasks({ split: 'train', seed: 1 });
    expect(task?.prompt).toMatch(/^\d{3}\+\d{3}=$/);
    expect(ref.options).toEqual({ digits: 3 });
    expect(ref.module).toMatch(/^file:.*arithmetic\.js$/);
  });

  it('finds a module of the user by relative and by absolute path', async () => {
    for (const path of ['./misbehaving.mjs', `${fixtures}misbehaving.mjs`]) {
      const { environment } = await openEnvironment(path, { weight: 7 }, fixtures);
      expect(environment.rewards['main']?.weight).toBe(7);
    }
  });

  it('names the known environments when one is unknown', async () => {
    expect(await refusal('arithmetics')).toMatch(
      'unknown task "arithmetics"; known: arithmetic, calculator, frozenLake, or the path',
    );
  });

  it('names bad options and the known ones', async () => {
    expect(await refusal('arithmetic', { digit: 3 })).toMatch(
      'unknown option "digit"; known options: digits',
    );
    expect(await refusal('frozenLake', { holes: 0.7 })).toBe(
      'task frozenLake: option holes = 0.7: must be 0 to 0.5',
    );
    expect(await refusal('frozenLake', { size: 8 })).toMatch(
      'unknown option "size"; known options: holes, slippery, turns, step_penalty, format_penalty, instructions',
    );
    expect(await refusal('calculator', { latency: { sigma: 9 } })).toBe(
      'task calculator: option latency.sigma = 9: must be 0 to 3',
    );
    expect(await refusal('calculator', { latency: { mean_ms: 9 } })).toBe(
      'task calculator: unknown option "latency.mean_ms"; known options: latency.median_ms, latency.sigma, latency.max_ms',
    );
    expect(await refusal('calculator', { latency: { median_ms: 9_000 } })).toContain(
      'median_ms must be at most max_ms',
    );
  });

  it.each<[string, Json, string]>([
    ['./absent.mjs', {}, 'absent.mjs does not exist'],
    ['./broken.mjs', {}, 'cannot be loaded: broken at import'],
    ['./no-factory.mjs', {}, 'exports no function named createEnvironment'],
    ['./misbehaving.mjs', { refuse: true }, 'createEnvironment() threw: refused by option'],
    ['./bad-shape.mjs', {}, 'rewards must hold at least one reward'],
    ['./bad-shape.mjs', { id: '' }, 'id must be a string that is not empty'],
    ['./bad-shape.mjs', { tasks: 3 }, 'tasks must be a function'],
    ['./bad-shape.mjs', { rewards: { a: { weight: 1 } } }, 'rewards.a.fn must be a function'],
    ['./bad-turns.mjs', { step: 3 }, 'step must be a function'],
    ['./bad-turns.mjs', { step: null }, 'step must be a function'],
    [
      './bad-turns.mjs',
      { without: 'step' },
      'reset comes alone: an environment of several turns has reset and step',
    ],
    [
      './bad-turns.mjs',
      { without: 'reset' },
      'step comes alone: an environment of several turns has reset and',
    ],
    ['./bad-turns.mjs', { stops: ['', ';'] }, 'stops must be texts that are not empty'],
    ['./bad-turns.mjs', { stops: ';' }, 'stops must be texts that are not empty'],
  ])('says what is wrong with %s given %j', async (path, options, line) => {
    expect(await refusal(path, options)).toContain(line);
  });
});
