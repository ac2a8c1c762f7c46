import { expect, it } from 'vitest';
import type { EngineUpdate } from '#src/engine/engine.js';
import { RolloutPool } from '#src/run/rollouts.js';

const KIND = {
  seed: 1,
  tokensMax: 8,
  sampling: { temperature: 1, topK: 0, topP: 1, minP: 0 },
  stopTokenIds: [],
};
const PROMPT = { task: { key: 'k', prompt: 'abc', info: null }, tokenIds: [1, 2, 3] };

/** A token of each of these, and the end of some. */
function update(ids: readonly number[], finished: EngineUpdate['finished']): EngineUpdate {
  const values = new Float32Array(ids.length);
  const tokenIds = Uint32Array.from(ids);
  return { ids: tokenIds, tokenIds, logprobs: values, rawLogprobs: values, version: 0, finished };
}

it('a pool tells once how long the rollouts were that came to an end of their own', () => {
  const pool = new RolloutPool({
    send: () => undefined,
    score: () => Promise.resolve({ failed: false, reward: 0, scores: {} }),
    changed: () => undefined,
  });
  const ids = pool.start(PROMPT, 1, 3, KIND).rollouts.map(({ id }) => id);
  const [first = NaN, second = NaN, third = NaN] = ids;
  pool.place(new Map([[0, 3]]));
  pool.receive(0, update(ids, []));
  expect(pool.takeEnded()).toEqual([]);
  pool.receive(0, update([first, third], [{ id: second, reason: 'stop' }]));
  pool.receive(0, update([first], [{ id: first, reason: 'length' }]));
  pool.receive(0, update([], [{ id: third, reason: 'abort' }]));
  expect(pool.takeEnded()).toEqual([
    { promptTokens: 3, tokens: 1 },
    { promptTokens: 3, tokens: 3 },
  ]);
  expect(pool.takeEnded()).toEqual([]);
});

it('and keeps only so many of them for whoever never asks', () => {
  const pool = new RolloutPool({
    send: () => undefined,
    score: () => Promise.resolve({ failed: false, reward: 0, scores: {} }),
    changed: () => undefined,
  });
  const ids = pool.start(PROMPT, 1, 5000, KIND).rollouts.map(({ id }) => id);
  pool.place(new Map([[0, 5000]]));
  for (const id of ids) pool.receive(0, update([], [{ id, reason: 'stop' }]));
  expect(pool.takeEnded()).toHaveLength(4096);
});
