import { describe, expect, it } from 'vitest';
import { Random } from '#src/lib/prng.js';
import { createEnvironment, type CalculatorState } from '#src/tasks/calculator.js';
import { EnvironmentPool } from '#src/tasks/environment-pool.js';
import { environmentSeed, episodeOf } from '#src/tasks/episode.js';
import { openEnvironment } from '#src/tasks/registry.js';
import type { FinishReason, Json, StepResult, Task } from '#src/tasks/task.js';
import { playScript, stepElsewhere, take, written, type StepCall } from './turns.js';

const quick = { latency: { median_ms: 1, max_ms: 5 } };
const task: Task<{ left: number; right: number }> = {
  key: '47+85=',
  prompt: '47+85=',
  info: { left: 47, right: 85 },
};
const fresh: CalculatorState = { turn: 0, invalid: 0 };

async function step(
  options: Json,
  text: string,
  state = fresh,
  seed = 1,
): Promise<StepResult<CalculatorState>> {
  return createEnvironment(options).step({ text, finishReason: 'stop' }, state, { seed });
}

async function scores(record: Parameters<typeof episodeOf>[1]): Promise<Record<string, number>> {
  const { environment } = await openEnvironment('calculator', quick, '.');
  const episode = episodeOf(task, record, environment);
  if (episode === null) throw new Error('no turn');
  const found: Record<string, number> = {};
  for (const [name, { fn }] of Object.entries(environment.rewards)) found[name] = await fn(episode);
  return found;
}

describe('golden transcripts of calculator', () => {
  it('call the tool for each column and answer', async () => {
    const record = await playScript('calculator', quick, task, ['7+5+0=', '4+8+1=', '132', 'more']);
    expect(written(task, record)).toBe('47+85=7+5+0=|12;4+8+1=|13;132|');
    expect(record).toMatchObject({ stopCondition: 'terminated', state: { turn: 3, invalid: 0 } });
    expect(record.turns.map(({ environmentMs }) => environmentMs > 0)).toEqual([true, true, true]);
    expect(await scores(record)).toEqual({ correct: 1, penalty: 0, calls: 2 });
  });

  it('get nothing for a wrong answer, and pay for calls that are none', async () => {
    const options = { ...quick, format_penalty: 0.25 };
    const record = await playScript('calculator', options, task, ['+=', '7;=', '123456789+1=', '0132']);
    expect(written(task, record)).toBe('47+85=+=|;7;=|;123456789+1=|123456790;0132|');
    expect(record).toMatchObject({ stopCondition: 'terminated', state: { turn: 4, invalid: 2 } });
    expect(await scores(record)).toEqual({ correct: 0, penalty: -0.5, calls: 3 });
  });

  it('are cut off after the turns there are', async () => {
    const record = await playScript('calculator', { ...quick, turns: 3 }, task, Array(9).fill('1+1='));
    expect(written(task, record)).toBe('47+85=1+1=|02;1+1=|02;1+1=|02;');
    expect(record.stopCondition).toBe('truncated');
    expect(await scores(record)).toMatchObject({ correct: 0, calls: 3 });
  });
});

describe('the calculator', () => {
  it.each([
    ['7+5+0=', '12;'],
    ['0=', '00;'],
    ['007+1=', '08;'],
    ['999999999+1=', '1000000000;'],
    [`${'1+'.repeat(15)}1=`, '16;'],
    [`${'1+'.repeat(16)}1=`, ';'],
    ['1234567890=', ';'],
    ['7+=', ';'],
    ['+7=', ';'],
    ['7==', ';'],
    ['=', ';'],
    ['7*5=', ';'],
  ])('answers %s with %s', async (call, answer) => {
    expect(await step(quick, call)).toMatchObject({
      observation: answer,
      terminated: false,
      truncated: false,
    });
  });

  it.each<[string, FinishReason, number]>([
    ['132', 'stop', 1],
    ['132', 'length', 0],
    ['132', 'abort', 0],
    ['12;132', 'stop', 0],
    ['', 'stop', 0],
  ])('scores the answer %j that ended by %s', async (text, finishReason, correct) => {
    const { rewards } = createEnvironment({});
    const turns = [{ action: { text, finishReason }, observation: '', reward: 0, environmentMs: 0 }];
    expect(await rewards['correct']?.fn({ task, text, finishReason, turns, state: fresh })).toBe(correct);
  });

  it('speaks the characters of arithmetic alone, so that its model can play', async () => {
    const { environment } = await openEnvironment('arithmetic', {}, '.');
    const calculator = createEnvironment({});
    expect(calculator.alphabet).toBe(environment.alphabet);
    expect(calculator.stops).toEqual(['=']);
    const keys = (from: typeof environment): string[] =>
      take(from.tasks({ split: 'train', seed: 3 }), 40).map(({ key }) => key);
    expect(keys((await openEnvironment('calculator', {}, '.')).environment)).toEqual(keys(environment));
  });

  it('steps alike in another process, from JSON', async () => {
    const random = new Random(5);
    const calls: StepCall[] = [];
    const here: unknown[] = [];
    for (let round = 0; round < 100; round++) {
      const seed = random.int(0, 2 ** 50);
      let state = fresh;
      for (let turn = 0; turn < 4; turn++) {
        const text = random.pick(['7+5+0=', '4+=', '12', `${random.int(0, 99)}+${random.int(0, 99)}=`]);
        calls.push({ text, state, seed });
        const result = await step({}, text, state, seed);
        here.push(result);
        state = result.state;
      }
    }
    expect(await stepElsewhere('calculator', {}, calls)).toEqual(here);
    expect(JSON.parse(JSON.stringify(here))).toEqual(here);
  });
});

/** Quantiles of the standard normal. */
const QUANTILES = [
  [0.01, -2.3263478740408408],
  [0.1, -1.2815515655446004],
  [0.25, -0.6744897501960817],
  [0.5, 0],
  [0.75, 0.6744897501960817],
  [0.9, 1.2815515655446004],
  [0.99, 2.3263478740408408],
] as const;

describe('the calculator’s latency', () => {
  it.each([
    { median_ms: 200, sigma: 0.8, max_ms: 5_000 },
    { median_ms: 3_000, sigma: 1.5, max_ms: 600_000 },
    { median_ms: 40, sigma: 0.1, max_ms: 60 },
  ])('has the quantiles of the lognormal it states: %o', async (latency) => {
    const environment = createEnvironment({ latency });
    const draws: number[] = [];
    for (let sample = 0; sample < 1_000; sample++) {
      const seed = environmentSeed(17, 'quantiles', sample);
      for (let turn = 0; turn < 6; turn++) {
        const action = { text: '1=', finishReason: 'stop' } as const;
        const { waitMs = NaN } = await environment.step(action, { turn, invalid: 0 }, { seed });
        draws.push(waitMs);
      }
    }
    expect(Math.max(...draws)).toBeLessThanOrEqual(latency.max_ms);
    expect(new Set(draws).size).toBeGreaterThan(draws.length * 0.98);
    for (const [quantile, z] of QUANTILES) {
      const edge = latency.median_ms * Math.exp(latency.sigma * z);
      if (edge >= latency.max_ms) continue;
      const below = draws.filter((draw) => draw <= edge).length;
      const sigma = Math.sqrt(draws.length * quantile * (1 - quantile));
      expect(Math.abs(below - draws.length * quantile), `run seed 17, quantile ${quantile}`).toBeLessThan(
        5 * sigma,
      );
    }
  });

  it('is cut at max_ms, and constant without sigma', async () => {
    const waits = async (latency: Json): Promise<number[]> => {
      const found: number[] = [];
      for (let seed = 0; seed < 200; seed++)
        found.push((await step({ latency }, '1=', fresh, seed)).waitMs ?? NaN);
      return found;
    };
    const cut = (await waits({ median_ms: 100, sigma: 2, max_ms: 100 })).filter((ms) => ms === 100).length;
    expect(Math.abs(cut - 100), 'seeds 0 to 199').toBeLessThan(36);
    expect(new Set(await waits({ median_ms: 70, sigma: 0 }))).toEqual(new Set([70]));
  });

  it('passes in real time', async () => {
    const options = { latency: { median_ms: 150, sigma: 0.5, max_ms: 400 } };
    const { environment, ref } = await openEnvironment('calculator', options, '.');
    const pool = new EnvironmentPool({ environment: ref, workersMax: 1, timeoutMs: 20_000, queueMax: 100 });
    try {
      const action = { text: '1+1=', finishReason: 'stop' } as const;
      await Promise.all(
        Array.from({ length: 30 }, async (_, seed) => {
          const expected = await environment.step?.(action, fresh, { seed });
          const context = { seed };
          const outcome = await pool.step({ rolloutId: String(seed), action, state: fresh, context });
          if (outcome.failed) throw new Error(outcome.message);
          expect(outcome.result).toEqual(expected);
          expect(outcome.waitedMs).toBeGreaterThanOrEqual(expected?.waitMs ?? NaN);
          expect(outcome.environmentMs).toBeGreaterThanOrEqual(outcome.waitedMs);
        }),
      );
    } finally {
      await pool.close();
    }
  });
});
