import { fileURLToPath } from 'node:url';
import { afterAll, expect, it } from 'vitest';
import { EnvironmentPool } from '#src/tasks/environment-pool.js';
import { environmentSeed, episodeOf, playEpisode } from '#src/tasks/episode.js';
import { openEnvironment } from '#src/tasks/registry.js';
import { take } from './turns.js';

const root = fileURLToPath(new URL('../..', import.meta.url));
const { environment, ref } = await openEnvironment('./examples/own-environment.mjs', { wait_ms: 20 }, root);
const pool = new EnvironmentPool({ environment: ref, workersMax: 2, timeoutMs: 20_000, queueMax: 100 });
afterAll(() => pool.close());

it('examples/own-environment.mjs: bisection finds every number, guesses at random seldom do', async () => {
  const tasks = take(environment.tasks({ split: 'train', seed: 2 }), 30);
  const heldout = [...environment.tasks({ split: 'heldout', seed: 2 })].map(({ key }) => key);
  expect(new Set(heldout).size).toBe(10);
  expect(tasks.filter(({ key }) => heldout.includes(key))).toEqual([]);
  await Promise.all(
    tasks.map(async (task, index) => {
      let [low, high] = [0, 99];
      let guess = NaN;
      const record = await playEpisode({
        rolloutId: String(index),
        environment,
        pool,
        task,
        seed: environmentSeed(2, task.key, 0),
        turnsMax: 100,
        generate: (observation) => {
          if (observation === '0;') low = guess + 1;
          if (observation === '1;') high = guess - 1;
          guess = Math.floor((low + high) / 2);
          return Promise.resolve({ text: `${String(guess).padStart(2, '0')};`, finishReason: 'stop' });
        },
      });
      expect(record.stopCondition).toBe('terminated');
      expect(record.turns.length).toBeLessThanOrEqual(7);
      expect(record.environmentMs).toBeGreaterThanOrEqual(20 * record.turns.length);
      const episode = episodeOf(task, record, environment);
      if (episode === null) throw new Error('no turn');
      const result = await pool.score({ rolloutId: String(index), ...episode });
      expect(result).toMatchObject({ failed: false, scores: { turns: record.turns.length } });
      const expected = 1 - 0.02 * (record.turns.length - 1);
      expect(!result.failed && result.reward).toBeCloseTo(expected, 12);
    }),
  );
});

it('examples/own-environment.mjs: gives up after its turns', async () => {
  const [task] = take(environment.tasks({ split: 'train', seed: 2 }), 1);
  if (task === undefined) throw new Error('no task');
  const generate = () => Promise.resolve({ text: '?', finishReason: 'length' } as const);
  const record = await playEpisode({
    rolloutId: '1',
    environment,
    pool,
    task,
    seed: 1,
    turnsMax: 100,
    generate,
  });
  expect(record).toMatchObject({ stopCondition: 'truncated', opening: '' });
  expect(record.turns).toHaveLength(8);
});
