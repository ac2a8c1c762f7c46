import { setImmediate as tick, setTimeout as sleep } from 'node:timers/promises';
import { afterEach, describe, expect, it } from 'vitest';
import {
  EnvironmentPool,
  type EnvironmentOutcome,
  type EnvironmentPoolOptions,
} from '#src/tasks/environment-pool.js';
import { openEnvironment } from '#src/tasks/registry.js';
import type { Json, ResetResult, StepResult } from '#src/tasks/task.js';

const turns = { module: new URL('./fixtures/turns.mjs', import.meta.url).href, options: null };
const context = { seed: 1 };

const open: EnvironmentPool[] = [];
afterEach(async () => {
  await Promise.all(open.splice(0).map((pool) => pool.close()));
});

function newPool(options: Partial<EnvironmentPoolOptions> = {}): EnvironmentPool {
  const defaults = { environment: turns, workersMax: 1, timeoutMs: 20_000, queueMax: 10_000 };
  const pool = new EnvironmentPool({ ...defaults, ...options });
  open.push(pool);
  return pool;
}

function step(
  pool: EnvironmentPool,
  text: string,
  options: { state?: Json; rolloutId?: string; signal?: AbortSignal } = {},
): Promise<EnvironmentOutcome<StepResult>> {
  const { state = { count: 0 }, rolloutId = 'r1', signal } = options;
  return pool.step({ rolloutId, action: { text, finishReason: 'stop' }, state, context }, signal);
}

function reset(
  pool: EnvironmentPool,
  info: string,
  signal?: AbortSignal,
): Promise<EnvironmentOutcome<ResetResult>> {
  return pool.reset({ rolloutId: 'r1', task: { key: info, prompt: '?', info }, context }, signal);
}

const SEEN = { failed: false, result: { observation: 'seen', state: { count: 0 } } };

describe('the environment pool', () => {
  it('resets, steps and scores in the same workers', async () => {
    const pool = newPool();
    expect(await reset(pool, 'good')).toMatchObject(SEEN);
    expect(await step(pool, 'counts', { state: { count: 4 } })).toMatchObject({
      failed: false,
      waitedMs: 0,
      result: {
        observation: 'seen 5',
        state: { count: 5 },
        reward: 0.5,
        terminated: false,
        truncated: false,
      },
    });
    const task = { key: 'k', prompt: '?', info: null };
    const turn = {
      action: { text: 'x', finishReason: 'stop' },
      observation: '',
      reward: 0,
      environmentMs: 1,
    } as const;
    const episode = {
      task,
      text: 'x',
      finishReason: 'stop',
      turns: [turn, turn],
      state: { count: 3 },
    } as const;
    expect(await pool.score({ rolloutId: 'r1', ...episode })).toMatchObject({ failed: false, reward: 32 });
    expect(pool.stats).toMatchObject({ turns: 2, scored: 1, running: 0, thinking: 0, workersLost: 0 });
  });

  it.each([
    ['throws', 'threw', 'the lake is closed'],
    ['throws from a timer', 'threw', 'thrown from a timer'],
    ['nothing', 'malformed', 'observation must be a text'],
    ['no text', 'malformed', 'observation must be a text'],
    ['endless text', 'malformed', 'observation is longer than 65536 characters'],
    ['a date', 'malformed', 'state must be plain JSON, but state.when is no plain object'],
    ['a function', 'malformed', 'state.inner.0 is of type function'],
    ['not a number', 'malformed', 'state.inner.1 is NaN'],
    ['a circle', 'malformed', 'more than 64 levels deep'],
    ['too much', 'malformed', 'state is longer than 1048576 characters as JSON'],
    ['waits for no number', 'malformed', 'waitMs must be a number of milliseconds'],
  ] as const)('tells of a reset or step that gives: %s', async (behaviour, reason, line) => {
    const pool = newPool();
    for (const phase of ['reset', 'step'] as const) {
      const outcome = await (phase === 'reset' ? reset : step)(pool, behaviour);
      expect(outcome).toMatchObject({ failed: true, phase, reason });
      const message = outcome.failed ? outcome.message : '';
      expect(message).toContain(line);
      expect(message).toMatch(new RegExp(`^rollout r1: ${phase}: `));
      expect(message).not.toContain('\n');
    }
    expect(await step(pool, 'good')).toMatchObject(SEEN);
    expect(pool.stats.workersLost).toBe(0);
  });

  it.each([
    ['reward is text', 'reward must be a finite number'],
    ['no end told', 'terminated must be true or false'],
  ])('tells of a step whose answer is wrong: %s', async (behaviour, line) => {
    const outcome = await step(newPool(), behaviour);
    expect(outcome).toMatchObject({ failed: true, reason: 'malformed' });
    expect(outcome.failed && outcome.message).toContain(line);
  });

  it('gives a state as JSON keeps it', async () => {
    const outcome = await step(newPool(), 'minus zero');
    expect(!outcome.failed && outcome.result.state).toEqual({ zero: 0 });
  });

  it('survives a worker that exits', async () => {
    const pool = newPool();
    expect(await step(pool, 'exits')).toMatchObject({ failed: true, reason: 'exited' });
    expect(await reset(pool, 'exits')).toMatchObject({ failed: true, reason: 'exited' });
    expect(await step(pool, 'good')).toMatchObject(SEEN);
    expect(pool.stats.workersLost).toBe(2);
  });

  it('says that an environment of a single turn has no turns', async () => {
    const { ref } = await openEnvironment('arithmetic', {}, '.');
    const outcome = await step(newPool({ environment: ref }), 'good');
    expect(outcome).toMatchObject({ failed: true, reason: 'malformed' });
  });
});

describe('limits in the environment pool', () => {
  it.each(['loops for ever', 'never resolves'])('are of each phase, and end what %s', async (behaviour) => {
    const pool = newPool({ resetTimeoutMs: 300, stepTimeoutMs: 150 });
    expect(await step(pool, 'good')).toMatchObject(SEEN);
    for (const [phase, limitMs] of [
      ['reset', 300],
      ['step', 150],
    ] as const) {
      const outcome = await (phase === 'reset' ? reset : step)(pool, behaviour);
      const doing = phase === 'reset' ? 'resetting' : 'stepping';
      const message = `rollout r1: ${phase}: ${doing} took longer than ${limitMs} ms`;
      expect(outcome).toEqual({ failed: true, phase, reason: 'timed out', message });
    }
    expect(await step(pool, 'good')).toMatchObject(SEEN);
    expect(pool.stats.workersLost).toBe(2);
  });

  it('kill the offending call and no other', async () => {
    const pool = newPool({ workersMax: 2, stepTimeoutMs: 2_000 });
    let settled = false;
    const hung = step(pool, 'loops for ever', { rolloutId: 'bad' }).finally(() => (settled = true));
    const waiting = step(pool, 'waits 2500', { rolloutId: 'waiting' });
    for (let i = 0; i < 30; i++) expect(await step(pool, 'good')).toMatchObject(SEEN);
    expect(settled).toBe(false);
    expect(await hung).toMatchObject({ failed: true, reason: 'timed out' });
    // A wait is no part of the call: it may be longer than the call's limit.
    expect(await waiting).toMatchObject(SEEN);
    expect(pool.stats.workersLost).toBe(1);
  });

  it('refuse a wait that is longer than allowed, without waiting', async () => {
    const startMs = performance.now();
    const outcome = await step(newPool({ waitMsMax: 60_000 }), 'waits 60001');
    expect(outcome).toMatchObject({ failed: true, reason: 'waited too long' });
    expect(performance.now() - startMs).toBeLessThan(30_000);
  });

  it('bound what is under way, waits included', async () => {
    const pool = newPool({ turnsMax: 3 });
    await step(pool, 'good');
    const pending = Array.from({ length: 9 }, () => step(pool, 'waits 250'));
    let most = 0;
    const watch = setInterval(() => (most = Math.max(most, pool.stats.thinking)), 10);
    const startMs = performance.now();
    for (const outcome of await Promise.all(pending)) expect(outcome).toMatchObject(SEEN);
    clearInterval(watch);
    expect(most).toBe(3);
    expect(performance.now() - startMs).toBeGreaterThan(3 * 250);
  });
});

describe('waits in the environment pool', () => {
  it('are real time, measured, and hold no thread', async () => {
    const pool = newPool({ workersMax: 1 });
    await step(pool, 'good');
    const startMs = performance.now();
    const outcomes = await Promise.all(Array.from({ length: 300 }, () => step(pool, 'waits 400.5')));
    // One after the other they would take two minutes.
    expect(performance.now() - startMs).toBeLessThan(20_000);
    for (const outcome of outcomes) {
      if (outcome.failed) throw new Error(outcome.message);
      expect(outcome.waitedMs).toBeGreaterThanOrEqual(400.5);
      expect(outcome.environmentMs).toBeGreaterThanOrEqual(outcome.waitedMs);
      expect(outcome.queuedMs).toBeGreaterThanOrEqual(0);
    }
    expect(pool.stats.thinking).toBe(0);
  });

  it('count the time of the call itself too', async () => {
    const outcome = await reset(newPool(), 'slow call');
    expect(outcome).toMatchObject({ failed: false, waitedMs: 0 });
    expect(!outcome.failed && outcome.environmentMs).toBeGreaterThanOrEqual(195);
  });
});

describe('aborting in the environment pool', () => {
  it('ends a wait at once', async () => {
    const pool = newPool();
    await step(pool, 'good');
    const abort = new AbortController();
    const pending = step(pool, 'waits 60000', { signal: abort.signal });
    while (pool.stats.thinking === 0) await sleep(5);
    abort.abort();
    expect(await pending).toMatchObject({ failed: true, phase: 'step', reason: 'aborted' });
    expect(pool.stats).toMatchObject({ thinking: 0, running: 0 });
  });

  it('takes a call out of the queue, and answers for one at work without losing its worker', async () => {
    const pool = newPool({ queueMax: 2 });
    await step(pool, 'good');
    const warnings: Error[] = [];
    const listen = (warning: Error): unknown => warnings.push(warning);
    process.on('warning', listen);
    const abort = new AbortController();
    const calls = Array.from({ length: 12 }, () => step(pool, 'slow call', { signal: abort.signal }));
    const reopening = reset(pool, 'slow call', abort.signal);
    const other = step(pool, 'good', { rolloutId: 'other' });
    await tick();
    expect(pool.stats).toMatchObject({ running: 1, queued: 2, waiting: 11 });
    abort.abort();
    for (const outcome of await Promise.all([...calls, reopening])) {
      expect(outcome).toMatchObject({ failed: true, reason: 'aborted' });
    }
    await tick();
    expect(pool.stats).toMatchObject({ running: 1, queued: 1, waiting: 0 });
    expect(await other).toMatchObject(SEEN);
    expect(pool.stats).toMatchObject({ running: 0, queued: 0, waiting: 0, workersLost: 0 });
    process.off('warning', listen);
    expect(warnings, 'one signal serves many calls').toEqual([]);
    const early = await step(pool, 'good', { signal: abort.signal });
    expect(early).toMatchObject({ failed: true, reason: 'aborted' });
  });

  it('is what closing does to everybody', async () => {
    const pool = newPool({ queueMax: 1 });
    await step(pool, 'good');
    const pending = [step(pool, 'waits 60000')];
    while (pool.stats.thinking === 0) await sleep(5);
    pending.push(step(pool, 'loops for ever'), step(pool, 'good'), step(pool, 'good'));
    await sleep(50);
    const startMs = performance.now();
    await pool.close();
    for (const outcome of await Promise.all(pending)) {
      expect(outcome).toMatchObject({ failed: true, reason: 'closed' });
    }
    expect(performance.now() - startMs).toBeLessThan(3_000);
    expect(await step(pool, 'good')).toMatchObject({ failed: true, reason: 'closed' });
  });
});

it('the pool takes thousands of steps in seconds, in the order of each rollout', async () => {
  const pool = newPool({ workersMax: 2, queueMax: 64 });
  await step(pool, 'good');
  const startMs = performance.now();
  await Promise.all(
    Array.from({ length: 40 }, async (_, rollout) => {
      let state: Json = { count: 0 };
      for (let turn = 1; turn <= 50; turn++) {
        const outcome = await step(pool, 'counts', { state, rolloutId: String(rollout) });
        if (outcome.failed) throw new Error(outcome.message);
        state = outcome.result.state;
        expect(state).toEqual({ count: turn });
      }
    }),
  );
  const stepsPerSecond = 2_000 / ((performance.now() - startMs) / 1_000);
  // 2,400 on two idle cores; a thread held, or a worker started anew for a step, would show as tens.
  expect(stepsPerSecond).toBeGreaterThan(100);
  expect(pool.stats).toMatchObject({ turns: 2_001, queued: 0, waiting: 0 });
});
