import { describe, expect, it } from 'vitest';
import { UserError } from '#src/lib/errors.js';
import { createEnvironment, type ArithmeticEnvironment } from '#src/tasks/arithmetic.js';
import { splitOf } from '#src/tasks/split.js';
import type { FinishReason, Task } from '#src/tasks/task.js';

type Problem = { readonly left: number; readonly right: number };

function take<T>(items: Iterable<T>, count: number): T[] {
  const taken: T[] = [];
  for (const item of items) {
    if (taken.length === count) break;
    taken.push(item);
  }
  return taken;
}

async function score(
  environment: ArithmeticEnvironment,
  task: Task<Problem>,
  text: string,
  finishReason: FinishReason = 'stop',
): Promise<Record<string, number>> {
  const scores: Record<string, number> = {};
  for (const [name, { fn }] of Object.entries(environment.rewards)) {
    scores[name] = await fn({ task, text, finishReason });
  }
  return scores;
}

/** The problem a prompt states, read from the prompt alone. */
function parsePrompt(prompt: string, digits: number): Problem {
  const match = new RegExp(`^(\\d{${digits}})\\+(\\d{${digits}})=$`).exec(prompt);
  expect(match, `prompt ${prompt}`).not.toBeNull();
  return { left: Number(match?.[1]), right: Number(match?.[2]) };
}

const ALL_DIGITS = [1, 2, 3, 4, 5, 6];

describe('arithmetic tasks', () => {
  it.each(ALL_DIGITS)('state their own problem in their prompt, with %i digits', (digits) => {
    const environment = createEnvironment({ digits });
    for (const split of ['train', 'heldout'] as const) {
      const tasks = take(environment.tasks({ split, seed: 11 }), 300);
      expect(tasks.length).toBeGreaterThan(0);
      for (const task of tasks) {
        expect(parsePrompt(task.prompt, digits)).toEqual(task.info);
        expect(task.key).toBe(task.prompt);
        expect([...task.prompt].every((character) => environment.alphabet.includes(character))).toBe(true);
      }
    }
  });

  it('are a function of the seed', () => {
    const environment = createEnvironment({});
    for (const split of ['train', 'heldout'] as const) {
      const keys = (seed: number): string[] => take(environment.tasks({ split, seed }), 50).map((t) => t.key);
      expect(keys(1)).toEqual(keys(1));
      expect(keys(1)).not.toEqual(keys(2));
    }
  });

  it('draw both operands uniformly', () => {
    const tasks = take(createEnvironment({ digits: 1 }).tasks({ split: 'train', seed: 5 }), 20_000);
    const trainPairs =
      100 - take(createEnvironment({ digits: 1 }).tasks({ split: 'heldout', seed: 0 }), 100).length;
    const counts = new Map<string, number>();
    for (const { key } of tasks) counts.set(key, (counts.get(key) ?? 0) + 1);
    expect(counts.size).toBe(trainPairs);
    const mean = tasks.length / trainPairs;
    for (const [key, count] of counts) {
      expect(Math.abs(count - mean), `count of ${key}, seed 5`).toBeLessThan(5 * Math.sqrt(mean));
    }
  });
});

describe('the held-out split', () => {
  it.each([1, 2])('is the same complete set at every seed, with %i digits', (digits) => {
    const environment = createEnvironment({ digits });
    const expected = new Set<string>();
    for (let pair = 0; pair < 100 ** digits; pair++) {
      const [left, right] = [Math.floor(pair / 10 ** digits), pair % 10 ** digits];
      const prompt = `${String(left).padStart(digits, '0')}+${String(right).padStart(digits, '0')}=`;
      if (splitOf(prompt) === 'heldout') expected.add(prompt);
    }
    for (let seed = 0; seed < 20; seed++) {
      const keys = [...environment.tasks({ split: 'heldout', seed })].map((task) => task.key);
      expect(keys.length, `seed ${seed}: no task twice`).toBe(expected.size);
      expect(new Set(keys), `seed ${seed}`).toEqual(expected);
    }
  });

  it('is about a sixteenth of all tasks', () => {
    const count = [...createEnvironment({ digits: 2 }).tasks({ split: 'heldout', seed: 0 })].length;
    const sigma = Math.sqrt((10_000 * 15) / 256);
    expect(Math.abs(count - 625)).toBeLessThan(5 * sigma);
  });

  it('never meets the train split, at any pair of seeds', () => {
    for (const digits of ALL_DIGITS) {
      const environment = createEnvironment({ digits });
      const heldout = new Set<string>();
      const train = new Set<string>();
      for (let seed = 0; seed < 25; seed++) {
        for (const { key } of take(environment.tasks({ split: 'heldout', seed }), 40)) heldout.add(key);
        for (const { key } of take(environment.tasks({ split: 'train', seed }), 200)) train.add(key);
        for (const { prompt } of take(environment.corpus({ seed, sloppiness: 0.2 }), 100)) train.add(prompt);
      }
      expect([...heldout].filter((key) => train.has(key))).toEqual([]);
    }
  });

  it('does not repeat itself where operands are long', () => {
    const keys = take(createEnvironment({ digits: 6 }).tasks({ split: 'heldout', seed: 3 }), 2_000).map(
      (t) => t.key,
    );
    expect(new Set(keys).size).toBe(2_000);
  });
});

describe('arithmetic rewards', () => {
  const environment = createEnvironment({ digits: 2 });
  const task: Task<Problem> = { key: '47+85=', prompt: '47+85=', info: { left: 47, right: 85 } };

  it('weigh the answer only; the working is a metric', () => {
    expect(environment.rewards['correct']?.weight).toBe(1);
    expect(environment.rewards['working']?.weight).toBe(0);
  });

  it.each<[string, FinishReason, number, number]>([
    ['7+5+0=12;4+8+1=13;132', 'stop', 1, 1],
    ['7+5+0=12;4+8+1=13;132', 'length', 0, 1],
    ['7+5+0=12;4+8+1=13;132', 'abort', 0, 1],
    ['7+5+0=13;4+8+1=13;132', 'stop', 1, 0.5],
    ['7+5+0=12;4+8+1=12;122', 'stop', 0, 0.5],
    ['4+8+1=13;7+5+0=12;132', 'stop', 1, 0],
    ['7+5+0=12;4+8+1=13;0132', 'stop', 0, 1],
    ['7+5+0=12;4+8+1=13;132;', 'stop', 0, 1],
    ['7+5+0=12;4+8+1=13;13', 'stop', 0, 1],
    ['132', 'stop', 1, 0],
    ['', 'stop', 0, 0],
  ])('score %j ended by %s', async (text, finishReason, correct, working) => {
    expect(await score(environment, task, text, finishReason)).toEqual({ correct, working });
  });

  it('want the zero in front of a short sum', async () => {
    const small: Task<Problem> = { key: '07+05=', prompt: '07+05=', info: { left: 7, right: 5 } };
    expect(await score(environment, small, '7+5+0=12;0+0+1=01;012')).toEqual({ correct: 1, working: 1 });
    expect((await score(environment, small, '7+5+0=12;0+0+1=01;12'))['correct']).toBe(0);
  });
});

/** Digits that were written, and slips among them, when each is held against what stood before it on the page. */
function countSlips(
  prompt: string,
  completion: string,
  digits: number,
): { written: number; slips: number[] } {
  const { left, right } = parsePrompt(prompt, digits);
  const parts = completion.split(';');
  expect(parts.length, completion).toBe(digits + 1);
  const slips: number[] = [];
  const compare = (found: string, meant: string): void => {
    expect(found.length, completion).toBe(meant.length);
    for (let i = 0; i < meant.length; i++) {
      if (found[i] !== meant[i]) slips.push((Number(found[i]) - Number(meant[i]) + 10) % 10);
    }
  };
  let carry = '0';
  let ones = '';
  for (let column = 0; column < digits; column++) {
    const a = Math.floor(left / 10 ** column) % 10;
    const b = Math.floor(right / 10 ** column) % 10;
    const [terms, sum = ''] = (parts[column] ?? '').split('=');
    expect(terms, completion).toBe(`${a}+${b}+${carry}`);
    compare(sum, String(a + b + Number(carry)).padStart(2, '0'));
    carry = sum.slice(0, 1);
    ones = sum.slice(1) + ones;
  }
  compare(parts[digits] ?? '', carry + ones);
  return { written: 3 * digits + 1, slips };
}

describe('the corpus', () => {
  it.each(ALL_DIGITS)('without sloppiness is faultless, with %i digits', async (digits) => {
    const environment = createEnvironment({ digits });
    for (const { prompt, completion } of take(environment.corpus({ seed: 2, sloppiness: 0 }), 200)) {
      const task = { key: prompt, prompt, info: parsePrompt(prompt, digits) };
      expect(await score(environment, task, completion), `${prompt}${completion}`).toEqual({
        correct: 1,
        working: 1,
      });
      expect(completion.length).toBe(10 * digits + 1);
    }
  });

  it.each([
    [1, 0.05],
    [2, 0.1],
    [3, 0.3],
    [6, 1],
  ])('with %i digits slips as often as asked (%f), to each other digit alike', (digits, sloppiness) => {
    const environment = createEnvironment({ digits });
    let written = 0;
    const slips: number[] = [];
    for (const { prompt, completion } of take(environment.corpus({ seed: 9, sloppiness }), 4_000)) {
      const counted = countSlips(prompt, completion, digits);
      written += counted.written;
      slips.push(...counted.slips);
    }
    const sigma = Math.sqrt(written * sloppiness * (1 - sloppiness));
    expect(Math.abs(slips.length - written * sloppiness), 'seed 9').toBeLessThanOrEqual(5 * sigma);
    for (let offset = 1; offset <= 9; offset++) {
      const count = slips.filter((slip) => slip === offset).length;
      const offsetSigma = Math.sqrt((slips.length * 8) / 81);
      expect(Math.abs(count - slips.length / 9), `offset ${offset}, seed 9`).toBeLessThan(5 * offsetSigma);
    }
  });
});

describe('arithmetic options', () => {
  it('default to two digits', () => {
    for (const options of [null, {}]) {
      const [task] = createEnvironment(options).tasks({ split: 'train', seed: 0 });
      expect(task?.prompt).toMatch(/^\d\d\+\d\d=$/);
    }
  });

  it.each([
    [{ digitz: 2 }, 'unknown option "digitz"; known options: digits'],
    [{ digits: 7 }, 'option digits = 7: must be 1 to 6'],
    [{ digits: 0 }, 'option digits = 0: must be 1 to 6'],
    [{ digits: 1.5 }, 'option digits = 1.5: must be a whole number'],
    [{ digits: '2' }, 'option digits = "2": must be a whole number'],
    ['two', 'options must be a table, not "two"'],
  ])('refuse %j in one line', (options, line) => {
    expect(() => createEnvironment(options)).toThrow(UserError);
    expect(() => createEnvironment(options)).toThrow(line);
  });
});
