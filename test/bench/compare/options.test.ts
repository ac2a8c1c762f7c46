import { describe, expect, test } from 'vitest';
import { resolveCompareOptions, type CompareInput } from '#src/bench/compare/options.js';
import { policyMakers } from '#src/bench/compare/policies.js';
import { UserError } from '#src/lib/errors.js';
import { scenario } from './fixtures.js';

const TWO = ['serial', 'fifo'];

describe('options', () => {
  test('have three repeats on live lanes unless it is said otherwise', () => {
    expect(resolveCompareOptions({ policies: TWO })).toEqual({ policies: TWO, repeats: 3, mode: 'live' });
    expect(resolveCompareOptions({ policies: TWO, repeats: 1, simulated: true })).toMatchObject({
      repeats: 1,
      mode: 'simulated',
    });
  });

  const refused: readonly (readonly [input: CompareInput, message: string])[] = [
    [
      { policies: ['serial'] },
      '--policies serial: one policy has nothing to be compared with: name two or more',
    ],
    [{ policies: [''] }, '--policies : policy 1 has no name: leave out the comma'],
    [{ policies: ['serial', ''] }, '--policies serial,: policy 2 has no name: leave out the comma'],
    [{ policies: ['a', 'b', 'a'] }, '--policies a,b,a: names a twice: name each policy once'],
    [{ policies: TWO, repeats: 0 }, '--repeats is 0, must be a whole number from 1 to 50'],
    [{ policies: TWO, repeats: 51 }, '--repeats is 51, must be a whole number from 1 to 50'],
    [{ policies: TWO, repeats: 1.5 }, '--repeats is 1.5, must be a whole number from 1 to 50'],
    [{ policies: TWO, repeats: 'many' }, '--repeats is many, must be a whole number from 1 to 50'],
    [
      { policies: TWO, live: true, simulated: true },
      '--live and --simulated contradict each other: give one of them',
    ],
  ];
  test.each(refused)('%j is refused in one line', (input, message) => {
    expect(() => resolveCompareOptions(input)).toThrow(new UserError(message));
  });

  test('name 16 policies at most', () => {
    const policies = Array.from({ length: 17 }, (_, index) => `p${index}`);
    expect(() => resolveCompareOptions({ policies })).toThrow('names 17 policies, must be at most 16');
  });
});

describe('policies', () => {
  test('are made anew each time, the one for jobs alone among them', async () => {
    const policyOf = await policyMakers(TWO, scenario());
    expect(policyOf('serial')).toBeTypeOf('function');
    expect(policyOf('priority')).toBeTypeOf('function');
    expect(() => policyOf('gapRatio')).toThrow('nobody asked for policy gapRatio');
  });

  test('of the user come from files', async () => {
    const policyOf = await policyMakers(['serial', './examples/policy.ts'], scenario());
    expect(policyOf('./examples/policy.ts')).toBeTypeOf('function');
  });

  test('of no such name, and files that are not there, are refused', async () => {
    await expect(policyMakers(['serial', 'gapRato'], scenario())).rejects.toThrow(
      /^--policies gapRato: no policy of that name: use some of serial, .*, or a file such as \.\/my-policy\.ts$/,
    );
    await expect(policyMakers(['./nowhere.ts', 'fifo'], scenario())).rejects.toThrow(UserError);
  });

  test('get the options of the scenario only when they are its own', async () => {
    const set = ['scheduler.policy="roundRobin"', 'scheduler.options.turn_ms=0'];
    await expect(policyMakers(TWO, scenario(...set))).resolves.toBeTypeOf('function');
    await expect(policyMakers(['roundRobin', 'fifo'], scenario(...set))).rejects.toThrow(
      /^scheduler\.options\.turn_ms is 0, must be/,
    );
  });
});
