import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, describe, expect, it } from 'vitest';
import { EnvironmentPool } from '#src/tasks/environment-pool.js';
import { environmentSeed, episodeOf, playEpisode, type EpisodeRecord } from '#src/tasks/episode.js';
import { openEnvironment } from '#src/tasks/registry.js';
import type { Action, Environment } from '#src/tasks/task.js';

const module = new URL('./fixtures/turns.mjs', import.meta.url);
const { environment, ref } = await openEnvironment(module.pathname, null, '.');
const pool = new EnvironmentPool({ environment: ref, workersMax: 1, timeoutMs: 20_000, queueMax: 100 });
afterAll(() => pool.close());

interface Played {
  readonly record: EpisodeRecord;
  /** What the model read before each of its turns. */
  readonly read: string[];
}

async function play(
  script: readonly (string | Action | null)[],
  options: {
    info?: string;
    turnsMax?: number;
    signal?: AbortSignal;
    world?: Environment;
    from?: EpisodeRecord;
    workers?: EnvironmentPool;
  } = {},
): Promise<Played> {
  const { info = 'good', turnsMax = 20, signal, from, world = environment, workers = pool } = options;
  const read: string[] = [];
  const record = await playEpisode({
    rolloutId: 'r1',
    environment: world,
    pool: workers,
    task: { key: 'k', prompt: '?', info },
    seed: 1,
    turnsMax,
    ...(signal === undefined ? {} : { signal }),
    ...(from === undefined ? {} : { from }),
    generate: (observation, turn) => {
      read.push(observation);
      const next = script[turn] ?? null;
      return Promise.resolve(typeof next === 'string' ? { text: next, finishReason: 'stop' } : next);
    },
  });
  return { record, read };
}

describe('an episode', () => {
  it('goes turn by turn to its end', async () => {
    const { record, read } = await play(['counts', 'counts', 'ends', 'counts']);
    expect(read).toEqual(['seen', 'seen 1', 'seen 2']);
    expect(record).toMatchObject({ opening: 'seen', stopCondition: 'terminated', failure: null });
    expect(record.turns.map(({ reward }) => reward)).toEqual([0.5, 0.5, 2]);
    expect(record.turns.at(-1)).toMatchObject({ action: { text: 'ends' }, observation: 'over' });
    expect(JSON.parse(JSON.stringify(record))).toEqual(record);
    const episode = episodeOf({ key: 'k', prompt: '?', info: null }, record, environment);
    expect(episode).toMatchObject({ text: 'ends', finishReason: 'stop', state: { count: 0 } });
  });

  it.each([
    ['the environment cuts it off', ['counts', 'cuts off'], 'truncated', 2],
    ['there is no room for another turn', ['counts', null], 'length', 1],
    ['the model never has room', [null], 'length', 0],
    ['its generation is given up', ['counts', { text: 'coun', finishReason: 'abort' }], 'abort', 2],
  ] as const)('ends when %s', async (_, script, stopCondition, turns) => {
    const { record } = await play(script);
    expect(record).toMatchObject({ stopCondition, failure: null });
    expect(record.turns).toHaveLength(turns);
  });

  it('ends at the bound on turns', async () => {
    const { record } = await play(
      Array.from({ length: 9 }, () => 'counts'),
      { turnsMax: 4 },
    );
    expect(record).toMatchObject({ stopCondition: 'turns', state: { count: 4 } });
  });

  it('hands a turn that was cut at the token limit to the environment', async () => {
    const { record } = await play([{ text: 'counts', finishReason: 'length' }, 'ends']);
    expect(record.turns[0]).toMatchObject({ action: { finishReason: 'length' }, observation: 'seen 1' });
  });

  it('goes on from its record, kept as JSON, in other workers, as if it had never stopped', async () => {
    const timeless = (record: EpisodeRecord) => ({
      ...record,
      environmentMs: 0,
      turns: record.turns.map((turn) => ({ ...turn, environmentMs: 0 })),
    });
    const script = ['counts', 'counts', 'counts', 'counts', 'cuts off'];
    const { record: whole } = await play(script);
    const others = new EnvironmentPool({ environment: ref, workersMax: 2, timeoutMs: 20_000, queueMax: 100 });
    try {
      for (let stop = 1; stop <= 4; stop++) {
        const { record: half } = await play(script, { turnsMax: stop });
        expect(half.turns).toHaveLength(stop);
        const kept = JSON.parse(JSON.stringify(half)) as EpisodeRecord;
        const { record, read } = await play(script, { from: kept, workers: others });
        expect(timeless(record)).toEqual(timeless(whole));
        expect(record.environmentMs).toBeGreaterThan(half.environmentMs);
        expect(read[0]).toBe(`seen ${stop}`);
      }
    } finally {
      await others.close();
    }
    await expect(play(script, { from: whole })).rejects.toThrow('the episode is over: truncated');
  });

  it.each([
    ['throws', 'threw'],
    ['exits', 'exited'],
    ['nothing', 'malformed'],
  ])('ends with `error` and its turns kept when a step %s', async (behaviour, reason) => {
    const { record } = await play(['counts', behaviour, 'counts']);
    expect(record).toMatchObject({ stopCondition: 'error', state: { count: 1 } });
    expect(record.failure).toMatchObject({ phase: 'step', reason });
    expect(record.turns.map(({ action }) => action.text)).toEqual(['counts', behaviour]);
  });

  it('ends with `error` before its first turn when reset fails', async () => {
    const { record, read } = await play(['counts'], { info: 'throws' });
    expect(record).toMatchObject({
      stopCondition: 'error',
      turns: [],
      state: null,
      failure: { phase: 'reset' },
    });
    expect(read).toEqual([]);
    expect(episodeOf({ key: 'k', prompt: '?', info: null }, record, environment)).toBeNull();
  });

  it('ends with `abort` in the middle of a wait', async () => {
    const abort = new AbortController();
    const playing = play(['counts', 'waits 60000'], { signal: abort.signal });
    while (pool.stats.thinking === 0) await sleep(5);
    abort.abort();
    const { record } = await playing;
    expect(record).toMatchObject({ stopCondition: 'abort', state: { count: 1 } });
    expect(record.failure).toMatchObject({ reason: 'aborted' });
  });

  it('of an environment without step is one turn', async () => {
    const { environment: single } = await openEnvironment('arithmetic', {}, '.');
    const { record, read } = await play(['7+5+0=12;12', 'more'], { world: single });
    expect(read).toEqual(['']);
    expect(record).toMatchObject({ stopCondition: 'terminated', state: null, environmentMs: 0 });
    expect(record.turns).toHaveLength(1);
    const episode = episodeOf({ key: 'k', prompt: '?', info: null }, record, single);
    expect(episode).toEqual({
      task: { key: 'k', prompt: '?', info: null },
      text: '7+5+0=12;12',
      finishReason: 'stop',
    });
  });
});

it('the environment seed depends on run seed, task key and sample index, each alone', () => {
  const seeds = new Set<number>();
  for (let run = 0; run < 20; run++) {
    for (let sample = 0; sample < 20; sample++) {
      for (const key of ['a', 'b', '47+85=']) {
        const seed = environmentSeed(run, key, sample);
        expect(Number.isSafeInteger(seed) && seed >= 0).toBe(true);
        expect(environmentSeed(run, key, sample)).toBe(seed);
        seeds.add(seed);
      }
    }
  }
  expect(seeds.size).toBe(20 * 20 * 3);
});
