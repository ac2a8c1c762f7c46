import { spawnSync } from 'node:child_process';
import { setImmediate as tick, setTimeout as sleep } from 'node:timers/promises';
import { afterEach, describe, expect, it } from 'vitest';
import { Random } from '#src/lib/prng.js';
import { openEnvironment } from '#src/tasks/registry.js';
import { RewardPool, type RewardPoolOptions, type RewardResult } from '#src/tasks/reward-pool.js';
import type { Json } from '#src/tasks/task.js';

const fixture = (name: string): string => new URL(`./fixtures/${name}`, import.meta.url).href;
const misbehaving = { module: fixture('misbehaving.mjs'), options: null };

const open: RewardPool[] = [];
afterEach(async () => {
  await Promise.all(open.splice(0).map((pool) => pool.close()));
});

function newPool(options: Partial<RewardPoolOptions> = {}): RewardPool {
  const pool = new RewardPool({
    environment: misbehaving,
    workersMax: 1,
    timeoutMs: 20_000,
    queueMax: 1_000,
    ...options,
  });
  open.push(pool);
  return pool;
}

function score(pool: RewardPool, behaviour: string, rolloutId = 'r1'): Promise<RewardResult> {
  const task = { key: behaviour, prompt: '?', info: behaviour };
  return pool.score({ rolloutId, task, text: 'four', finishReason: 'stop' });
}

const GOOD = { failed: false, reward: 1, scores: { main: 0.5, length: 4 } };

describe('the reward pool', () => {
  it('adds up weighted scores and reports metrics of weight 0', async () => {
    const pool = newPool();
    expect(await score(pool, 'good')).toEqual(GOOD);
    expect(await score(pool, 'good later')).toEqual(GOOD);
    expect(pool.stats).toMatchObject({ running: 0, queued: 0, waiting: 0, scored: 2, workersLost: 0 });
  });

  it('scores the built-in environment as the environment itself does', async () => {
    const { environment, ref } = await openEnvironment('arithmetic', { digits: 3 }, '.');
    const pool = newPool({ environment: ref, workersMax: 2 });
    let compared = 0;
    for (const example of environment.corpus?.({ seed: 4, sloppiness: 0.15 }) ?? []) {
      if (compared++ === 40) break;
      const [left = NaN, right = NaN] = example.prompt.split(/[+=]/).map(Number);
      const task = { key: example.prompt, prompt: example.prompt, info: { left, right } };
      const episode = { task, text: example.completion, finishReason: 'stop' as const };
      const scores: Record<string, number> = {};
      for (const [name, { fn }] of Object.entries(environment.rewards)) scores[name] = await fn(episode);
      const expected = { failed: false, reward: scores['correct'], scores };
      expect(await pool.score({ rolloutId: 'r', ...episode }), example.completion).toEqual(expected);
    }
    expect(compared).toBe(41);
  });

  it.each([
    ['throws', 'threw', 'rollout r1: reward "main" threw: no such luck'],
    ['rejects null', 'threw', 'rollout r1: reward "main" threw: null'],
    ['throws what has no text', 'threw', 'cannot be shown as text'],
    ['throws a message that is no text', 'threw', 'Symbol(oops)'],
    ['throws from a timer', 'threw', 'thrown from a timer'],
    ['NaN', 'not a number', 'returned NaN'],
    ['infinite', 'not a number', 'returned -Infinity'],
    ['text', 'not a number', 'a value of type string'],
    ['nothing', 'not a number', 'a value of type undefined'],
  ] as const)(
    'marks a rollout whose reward function %s, and keeps its worker',
    async (behaviour, reason, line) => {
      const pool = newPool();
      const result = await score(pool, behaviour);
      expect(result).toMatchObject({ failed: true, reason });
      expect(result.failed && result.message).toContain(line);
      expect(await score(pool, 'good')).toEqual(GOOD);
      expect(pool.stats.workersLost).toBe(0);
      expect(pool.stats.failed[reason]).toBe(1);
    },
  );

  it('marks a sum that is not finite', async () => {
    const steep = newPool({ environment: { module: fixture('steep.mjs'), options: null } });
    expect(await score(steep, 'good')).toMatchObject({ failed: true, reason: 'not a number' });
  });

  it.each(['loops for ever', 'never resolves'])('ends a reward function that %s', async (behaviour) => {
    const pool = newPool({ timeoutMs: 250 });
    expect(await score(pool, 'good')).toEqual(GOOD);
    expect(await score(pool, behaviour)).toEqual({
      failed: true,
      reason: 'timed out',
      message: 'rollout r1: scoring took longer than 250 ms',
    });
    expect(await score(pool, 'good')).toEqual(GOOD);
    expect(pool.stats.workersLost).toBe(1);
  });

  it('survives a worker that exits or runs out of memory', async () => {
    const pool = newPool({ heapMiBMax: 32 });
    expect(await score(pool, 'exits')).toMatchObject({ failed: true, reason: 'exited' });
    expect(await score(pool, 'good')).toEqual(GOOD);
    expect(await score(pool, 'eats memory')).toMatchObject({ failed: true, reason: 'exited' });
    expect(await score(pool, 'good')).toEqual(GOOD);
    expect(pool.stats.workersLost).toBe(2);
  });

  it('blames nobody for an error that comes after its own rollout was answered', async () => {
    const pool = newPool();
    for (const behaviour of ['answers, then rejects', 'answers, then throws']) {
      expect(await score(pool, behaviour)).toEqual(GOOD);
      // Long enough for the stray error to surface in the middle of another rollout's scoring.
      expect(await score(pool, 'good later')).toEqual(GOOD);
    }
    expect(pool.stats.workersLost).toBe(0);
  });

  it('marks a rollout whose task cannot be sent to another thread', async () => {
    const pool = newPool();
    const info: Json = new Proxy({}, {});
    const task = { key: 'k', prompt: '?', info };
    const result = await pool.score({ rolloutId: 'r', task, text: '', finishReason: 'stop' });
    expect(result).toMatchObject({ failed: true, reason: 'threw' });
    expect(await score(pool, 'good')).toEqual(GOOD);
  });

  it('gives each failure to load the environment as a marked failure', async () => {
    const broken = newPool({ environment: { module: fixture('broken.mjs'), options: null } });
    expect(await score(broken, 'good')).toMatchObject({ failed: true, reason: 'threw' });
    const never = newPool({
      environment: { module: fixture('never-loads.mjs'), options: null },
      loadTimeoutMs: 700,
    });
    const result = await score(never, 'good');
    expect(result).toMatchObject({ failed: true, reason: 'timed out' });
    expect(result.failed && result.message).toContain('loading took longer than 700 ms');
  });

  it('keeps standard output free of what reward functions print', () => {
    const script = `
      import { RewardPool } from '#src/tasks/reward-pool.js';
      const environment = { module: ${JSON.stringify(misbehaving.module)}, options: null };
      const pool = new RewardPool({ environment, workersMax: 1, timeoutMs: 20000, queueMax: 1 });
      const task = { key: 'k', prompt: '?', info: 'talks' };
      const result = await pool.score({ rolloutId: 'r', task, text: '', finishReason: 'stop' });
      await pool.close();
      process.stdout.write(String(result.failed));`;
    const child = spawnSync(process.execPath, ['--input-type=module', '-e', script], { encoding: 'utf8' });
    expect(child.stdout).toBe('false');
    expect(child.stderr).toContain('said by a reward function');
  });
});

describe('time and order in the reward pool', () => {
  it('counts the limit from the start of scoring, not from the queue', async () => {
    const pool = newPool({ timeoutMs: 1_000 });
    const results = await Promise.all(Array.from({ length: 9 }, () => score(pool, 'slow')));
    expect(results).toEqual(Array.from({ length: 9 }, () => GOOD));
  });

  it('believes an answer that came in time although this thread was too busy to look', async () => {
    const pool = newPool({ timeoutMs: 150 });
    expect(await score(pool, 'good')).toEqual(GOOD);
    const pending = score(pool, 'good later');
    await tick();
    const busyUntilMs = performance.now() + 600;
    while (performance.now() < busyUntilMs);
    expect(await pending).toEqual(GOOD);
  });

  it('goes on scoring beside a hung rollout', async () => {
    const pool = newPool({ workersMax: 2, timeoutMs: 3_000 });
    let hungSettled = false;
    const hung = score(pool, 'loops for ever').finally(() => (hungSettled = true));
    for (let i = 0; i < 50; i++) expect(await score(pool, 'good')).toEqual(GOOD);
    expect(hungSettled).toBe(false);
    expect(await hung).toMatchObject({ reason: 'timed out' });
  });

  it('makes callers wait for room instead of failing', async () => {
    const pool = newPool({ queueMax: 2 });
    await pool.room();
    const pending = Array.from({ length: 6 }, () => score(pool, 'slow'));
    await tick();
    expect(pool.stats).toMatchObject({ running: 1, queued: 2, waiting: 3 });
    let roomy = false;
    const room = pool.room().then(() => (roomy = true));
    await pending[0];
    await tick();
    expect(roomy).toBe(false);
    expect(pool.stats).toMatchObject({ running: 1, queued: 2 });
    expect(await Promise.all(pending)).toEqual(Array.from({ length: 6 }, () => GOOD));
    await room;
    expect(pool.stats).toMatchObject({ running: 0, queued: 0, waiting: 0, scored: 6 });
  });

  it('scores 200 at once of which one in twenty is bad, each marked for itself', async () => {
    const bad = ['loops for ever', 'exits', 'throws', 'NaN', 'never resolves'];
    const reasons = ['timed out', 'exited', 'threw', 'not a number', 'timed out'];
    const pool = newPool({ workersMax: 2, timeoutMs: 300, queueMax: 16 });
    const seed = 23;
    const places = new Set<number>();
    const random = new Random(seed);
    while (places.size < 10) places.add(random.int(0, 199));
    const badAt = [...places];
    const results = await Promise.all(
      Array.from({ length: 200 }, (_, index) => {
        const turn = badAt.indexOf(index);
        return score(pool, turn < 0 ? 'good' : (bad[turn % bad.length] ?? ''), `r${index}`);
      }),
    );
    results.forEach((result, index) => {
      const turn = badAt.indexOf(index);
      const expected = turn < 0 ? GOOD : { failed: true, reason: reasons[turn % reasons.length] };
      expect(result, `rollout ${index}, seed ${seed}`).toMatchObject(expected);
      if (result.failed) expect(result.message).toContain(`rollout r${index}:`);
    });
    expect(pool.stats.scored).toBe(190);
    expect(pool.stats.workersLost).toBe(6);
  });

  it('closes promptly over a busy loop and answers everybody', async () => {
    const pool = newPool({ timeoutMs: 60_000, queueMax: 2 });
    expect(await score(pool, 'good')).toEqual(GOOD);
    const pending = [score(pool, 'loops for ever'), ...Array.from({ length: 8 }, () => score(pool, 'good'))];
    await sleep(100);
    const startMs = performance.now();
    await Promise.all([pool.close(), pool.close()]);
    expect(performance.now() - startMs).toBeLessThan(3_000);
    for (const result of await Promise.all(pending))
      expect(result).toMatchObject({ failed: true, reason: 'closed' });
    expect(await score(pool, 'good')).toMatchObject({ failed: true, reason: 'closed' });
    expect(pool.stats).toMatchObject({ running: 0, queued: 0, waiting: 0, scored: 1, workersLost: 0 });
  });
});
