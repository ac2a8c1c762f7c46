import { describe, expect, it } from 'vitest';
import { LowPriorityLoad } from '#src/bench/preempt/load.js';
import { loadShape, sequenceAt } from '#src/bench/preempt/load-shape.js';
import type { EngineUpdate } from '#src/engine/engine.js';
import { noTokens, type FinishReason, type SequenceRequest } from '#src/engine/sequence.js';
import { kvBlockBytes } from '#src/kernels/kv-cache.js';
import { UserError } from '#src/lib/errors.js';
import { TINY } from '../../cli/tiny-model.js';

const PROMPT = [1, 2, 3];

function request(index: number): SequenceRequest {
  return {
    id: index,
    promptTokenIds: PROMPT,
    generated: noTokens(),
    tokensMax: 4,
    sampling: { temperature: 1, topK: 0, topP: 1, minP: 0 },
    key: [index, 0],
    stopTokenIds: [],
  };
}

function update(
  ids: readonly number[],
  finished: readonly [id: number, reason: FinishReason][] = [],
): EngineUpdate {
  return {
    ids: Uint32Array.from(ids),
    tokenIds: new Uint32Array(ids.length),
    logprobs: new Float32Array(ids.length),
    rawLogprobs: new Float32Array(ids.length),
    version: 0,
    finished: finished.map(([id, reason]) => ({ id, reason })),
  };
}

/** A load of two sequences, and what it asked for. The test says what comes back. */
function makeLoad() {
  const added: SequenceRequest[] = [];
  const aborted: number[][] = [];
  const load = new LowPriorityLoad(2, request, {
    add: (sequences) => Promise.resolve(added.push(...sequences)),
    abort: (ids) => Promise.resolve(aborted.push([...ids])),
  });
  return { load, added, aborted };
}

describe('LowPriorityLoad', () => {
  it('keeps the engine full: one ends, the next begins', () => {
    const { load, added } = makeLoad();
    load.start();
    expect(added.map(({ id }) => id)).toEqual([1, 2]);
    load.receive(update([1, 2], [[1, 'length']]));
    expect(added.map(({ id }) => id)).toEqual([1, 2, 3]);
    load.start();
    expect(added).toHaveLength(3);
  });

  it('counts tokens, and rows: a prompt with its first token, then one a token', () => {
    const { load } = makeLoad();
    load.start();
    load.receive(update([1]));
    load.receive(update([1, 2]));
    expect(load.counts).toEqual({
      tokens: 3,
      rows: 2 * PROMPT.length + 1,
      tokensDiscarded: 0,
      rowsDiscarded: 0,
    });
  });

  it('discards what an aborted sequence did since counting began, and no more', async () => {
    const { load, aborted } = makeLoad();
    load.start();
    load.receive(update([1]));
    load.receive(update([1]));
    load.beginCounting();
    load.receive(update([1, 2]));
    const abort = load.abort();
    expect(aborted).toEqual([[1, 2]]);
    load.receive(update([], [[1, 'abort']]));
    load.receive(update([], [[2, 'abort']]));
    await abort;
    const rows = 1 + PROMPT.length;
    expect(load.counts).toEqual({ tokens: 2, rows, tokensDiscarded: 2, rowsDiscarded: rows });
  });

  it('begins aborted ones again from their prompts, as sequences of their own, before new ones', async () => {
    const { load, added } = makeLoad();
    load.start();
    const abort = load.abort();
    load.receive(
      update(
        [],
        [
          [1, 'length'],
          [2, 'abort'],
        ],
      ),
    );
    await abort;
    expect(added).toHaveLength(2);
    load.retry();
    expect(added.slice(2).map(({ id, key }) => [id, key[0]])).toEqual([
      [3, 2],
      [4, 3],
    ]);
  });

  it('drains: nothing new begins, and it resolves at the last end', async () => {
    const { load, added } = makeLoad();
    load.start();
    let isEmpty = false;
    const drained = load.drain().then(() => (isEmpty = true));
    load.receive(update([1, 2], [[1, 'length']]));
    await Promise.resolve();
    expect({ isEmpty, added: added.length }).toEqual({ isEmpty: false, added: 2 });
    load.receive(update([2], [[2, 'length']]));
    await drained;
    expect(isEmpty).toBe(true);
  });

  it('waits for tokens, and not for ever', async () => {
    const { load } = makeLoad();
    load.start();
    const next = load.nextTokens(60_000);
    load.receive(update([1]));
    expect(await next).toBe(true);
    expect(await load.nextTokens(1)).toBe(false);
  });

  it('tells those who wait when the lane is gone, and asks nothing more of it', async () => {
    const { load, added } = makeLoad();
    load.start();
    const waits = [load.drain(), load.nextTokens(60_000)];
    load.fail(new Error('the device was lost'));
    for (const wait of waits) await expect(wait).rejects.toThrow('the device was lost');
    load.start();
    expect(added).toHaveLength(2);
  });
});

describe('the shape of a load', () => {
  const shape = loadShape(TINY, 'tiny', 2 ** 27);

  it('follows from the model: every sequence fits its context and the engine', () => {
    const { promptTokens, completionTokens, engine } = shape;
    expect(promptTokens.max + completionTokens.max).toBeLessThanOrEqual(TINY.contextTokensMax);
    expect(shape.sequences).toBeGreaterThan(engine.slots);
    const lengths = new Set<number>();
    for (let index = 1; index <= 200; index++) {
      const { promptTokenIds, tokensMax } = sequenceAt(shape, TINY, 7, index);
      expect(promptTokenIds.length).toBeGreaterThanOrEqual(promptTokens.min);
      expect(promptTokenIds.length + tokensMax).toBeLessThanOrEqual(engine.contextTokensMax);
      for (const token of promptTokenIds) expect(token).toBeLessThan(TINY.vocabSize);
      lengths.add(promptTokenIds.length);
    }
    expect(lengths.size).toBeGreaterThan(3);
  });

  it('is the same for the same seed, another for another', () => {
    const first = sequenceAt(shape, TINY, 7, 3);
    expect(sequenceAt(shape, TINY, 7, 3)).toEqual(first);
    expect(sequenceAt(shape, TINY, 8, 3).key).not.toEqual(first.key);
    expect(sequenceAt(shape, TINY, 7, 4).promptTokenIds).not.toEqual(first.promptTokenIds);
  });

  it('has fewer slots where the adapter binds little, and is refused where it binds too little for one', () => {
    const blockBytes = kvBlockBytes(TINY);
    expect(loadShape(TINY, 'tiny', 10 * blockBytes).engine.slots).toBeLessThan(10);
    expect(() => loadShape(TINY, 'tiny', blockBytes)).toThrow(UserError);
    expect(() => loadShape(TINY, 'tiny', blockBytes)).toThrow(
      /^--model tiny: one sequence takes \d+ bytes .*: use a smaller/,
    );
  });
});
