import { beforeEach, describe, expect, it } from 'vitest';
import type { EngineUpdate } from '#src/engine/engine.js';
import type { FinishReason } from '#src/engine/sequence.js';
import { at } from '#src/lib/assert.js';
import { TokenLedger } from '#src/run/ledger.js';
import { type Group, type Rollout, RolloutPool } from '#src/run/rollouts.js';
import { Rounds } from '#src/run/rounds.js';

const SAMPLING = { temperature: 1, topK: 0, topP: 1, minP: 0 };
const KIND = { seed: 1, tokensMax: 9, sampling: SAMPLING, stopTokenIds: [] };
/** Two prompts by two; a short round has one more of both. */
const SHORT = { prompts: 3, samples: 3, isLongDue: false };

let aborted: { lane: number; ids: readonly number[] }[];
let score: (() => void)[];
let deferred: number[];
let pool: RolloutPool;
let ledger: TokenLedger;
let rounds: Rounds;

beforeEach(() => {
  [aborted, score, deferred] = [[], [], []];
  ledger = new TokenLedger();
  pool = new RolloutPool({
    send: () => undefined,
    abort: (lane, ids) => aborted.push({ lane, ids }),
    score: () =>
      new Promise((resolve) => score.push(() => resolve({ failed: false, reward: 1, scores: {} }))),
    changed: () => undefined,
  });
  let next = 0;
  rounds = new Rounds({
    pool,
    ledger,
    step: { prompts: 2, samples: 2 },
    kind: KIND,
    fresh: () => ({ task: { key: `${next}`, prompt: 'p', info: null }, tokenIds: [next++] }),
    onDeferred: (count) => deferred.push(count),
  });
});

/** One step of an engine: a token of each, and the end of some. */
function update(ids: readonly number[], ended: Readonly<Record<number, FinishReason>> = {}): EngineUpdate {
  const zeros = Float32Array.from(ids, () => 0);
  const finished = Object.entries(ended).map(([id, reason]) => ({ id: Number(id), reason }));
  return {
    version: 0,
    ids: Uint32Array.from(ids),
    tokenIds: Uint32Array.from(ids),
    logprobs: zeros,
    rawLogprobs: zeros,
    finished,
  };
}

const samplesOf = ({ rollouts }: Group): Rollout[] => [...rollouts];
const keys = (groups: readonly Group[]): string[] => groups.map(({ task }) => task.key);

describe('a short round', () => {
  it('aborts what nobody needs where it runs, and what waits without a word', () => {
    const round = rounds.start(1, SHORT);
    // Rollouts 1 to 7 run: all of two prompts and the first of the third.
    pool.place(new Map([[0, 7]]));
    pool.receive(0, update([1, 2, 3, 4, 5, 6, 7], { 1: 'stop', 3: 'stop' }));
    expect(aborted).toEqual([{ lane: 0, ids: [2] }]);
    pool.receive(0, update([2, 4, 5, 6, 7], { 4: 'stop', 5: 'length' }));
    expect(aborted.slice(1)).toEqual([{ lane: 0, ids: [6, 7] }]);
    expect(keys(round.taken)).toEqual(['0', '1']);
    expect(round.taken.map(({ rollouts }) => rollouts.map(({ id }) => id))).toEqual([
      [1, 3],
      [4, 5],
    ]);
    expect(deferred).toEqual([1]);
    expect(pool.demand).toEqual({ rollouts: 0, runnable: 0, tokensRemaining: 0 });
    expect(pool.runningOn(0)).toBe(0);
    // What rollout 2 sampled after it was given up is nobody's; 6 and 7 had two tokens each by then.
    expect(pool.decoded).toBe(11);
    const { aborted: tokens, in_flight } = ledger.counts(pool.decoded);
    expect([tokens, in_flight]).toEqual([5, 6]);
    const fates = round.started.flatMap(samplesOf).map(({ fate }) => fate);
    expect(fates.filter((fate) => fate === 'aborted')).toHaveLength(5);
  });

  it('waits for the rewards of what it takes, and of nothing else', async () => {
    const round = rounds.start(1, SHORT);
    pool.place(new Map([[0, 9]]));
    let isScored = false;
    void round.whenScored.then(() => (isScored = true));
    const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));
    // The first to end is of the prompt that is late in the end.
    pool.receive(0, update([7], { 7: 'stop' }));
    pool.receive(0, update([1, 2, 4, 5], { 1: 'stop', 2: 'stop', 4: 'stop', 5: 'stop' }));
    await round.whenFinished;
    for (const give of score.slice(1, -1)) give();
    await turn();
    expect(isScored).toBe(false);
    at(score, 4)();
    await round.whenScored;
    at(score, 0)();
    await turn();
    expect(keys(round.taken)).toEqual(['0', '1']);
  });

  it('leaves its lane in peace: what ends there later, comes back from there or is lost with it is no news', () => {
    for (const after of ['told', 'asleep', 'lost'] as const) {
      const started = rounds.start(1, SHORT).started.flatMap(samplesOf);
      pool.place(new Map([[0, 9]]));
      const ids = started.map(({ id }) => id);
      const ended = [0, 1, 3, 4].map((i) => at(ids, i));
      pool.receive(0, update(ended, Object.fromEntries(ended.map((id) => [id, 'stop' as const]))));
      const gone = ids.filter((id) => !ended.includes(id));
      const before = pool.decoded;
      if (after === 'told') {
        pool.receive(0, update(gone, Object.fromEntries(gone.map((id) => [id, 'abort' as const]))));
        expect(() => pool.comeBack(0, gone)).toThrow('came back');
      } else if (after === 'asleep') {
        pool.comeBack(0, gone);
      } else {
        expect(pool.laneLost(0)).toBe(0);
      }
      expect(pool.decoded).toBe(before);
      expect(pool.demand.rollouts).toBe(0);
    }
  });
});

describe('a long round', () => {
  it('begins the deferred prompts anew, with nothing to spare', () => {
    for (const step of [1, 2]) {
      const round = rounds.start(step, SHORT);
      pool.place(new Map([[0, 9]]));
      // The first prompt is late each time.
      const late = samplesOf(at(round.started, 0)).length;
      for (const { id } of round.started.flatMap(samplesOf).slice(late)) {
        if (round.taken.length < 2) pool.receive(0, update([id], { [id]: 'stop' }));
      }
    }
    expect(deferred).toEqual([1, 2]);
    const long = rounds.start(3, { ...SHORT, isLongDue: true });
    expect([long.kind, rounds.deferredPrompts, deferred]).toEqual(['long', 0, [1, 2, 0]]);
    expect(keys(long.started)).toEqual(['0', '3']);
    for (const { rollouts } of long.started) {
      expect(rollouts).toHaveLength(2);
      for (const { generated } of rollouts) expect(generated.tokenIds).toEqual([]);
    }
  });
});
