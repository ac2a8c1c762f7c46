import { beforeAll, describe, expect, it } from 'vitest';
import { newEpisode, type Turn } from '#src/engine/episode.js';
import type { SequenceRequest } from '#src/engine/sequence.js';
import { assert, at } from '#src/lib/assert.js';
import { Random } from '#src/lib/prng.js';
import { useGpu } from '../helpers/gpu.js';
import { randomParams, randomTokens } from '../oracle/fixtures.js';
import { toBuckets } from '../oracle/params.js';
import { EpisodeOwner, type Heard, inOneGo, type Script, script } from './episode-fixtures.js';
import { atOnce } from './fixtures.js';
import { DROPPED, HELD, model, SPILLED } from './kv-fixtures.js';

const device = useGpu();
const random = new Random(1400);
const { vocabSize } = model.config;
const otherBuckets = toBuckets(model.layout, randomParams(model.config, new Random(1401)));

function turn(observed: number, tokensMax: number): Turn {
  return { tokenIds: randomTokens(random, observed, vocabSize), tokensMax };
}

function free(id: number, promptTokens: number, turns: readonly Turn[]): Script {
  const prompt = randomTokens(random, promptTokens, vocabSize);
  const sampling = { temperature: 1, topK: 0, topP: 1, minP: 0 };
  return script(id, prompt, turns, { sampling, key: [id, 7], stopTokenIds: [] });
}

/** Three that take two blocks of cache after their first turn and four in the last. */
const THREE = [1, 2, 3].map((id) => free(id, 18 + id, [turn(0, 5), turn(7, 6), turn(0, 3), turn(9, 5)]));
/** One that stops by itself at the second token of its first turn; its second turn fits in one block with the first. */
let stopper: Script;
let expected: Map<number, Heard>;

beforeAll(async () => {
  const first = free(4, 13, [turn(0, 9), turn(0, 1), turn(20, 4)]);
  const { tokenIds } = at([...(await inOneGo(device, model, [first])).values()], 0);
  const stopTokenIds = [at(tokenIds, 1)];
  stopper = { ...first, request: { ...first.request, stopTokenIds } };
  expected = await inOneGo(device, model, [...THREE, stopper]);
  assert(expected.get(4)?.turnEnds[0] === 'stop', 'the first turn does not stop');
});

async function open(options: Parameters<EpisodeOwner['open']>[0] = {}): Promise<EpisodeOwner> {
  const owner = new EpisodeOwner(device, model);
  await owner.open(options);
  return owner;
}

describe('between two turns', () => {
  it('the slot is given away and the cache stays: three take turns in one slot, and nothing is computed twice', async () => {
    const owner = await open({ slots: 1, kvBlocks: 24 });
    owner.begin(THREE);
    await owner.runTurns();
    expect(owner.paused).toEqual([1, 2, 3]);
    // 18 + id tokens and four of the five sampled: two blocks each.
    expect([owner.engine.freeBlocks, owner.engine.parkedCount]).toEqual([24 - 3 * 2, 3]);
    expect(owner.engine.nextStep()).toBeNull();
    for (const id of [3, 1, 2]) owner.answer(id);
    expect(owner.engine.parkedCount).toBe(0);
    await owner.runTurns();
    for (const id of [1, 2, 3]) expect(owner.heard.get(id)?.turnEnds).toEqual(['length', 'length']);
    await owner.runAll();
    owner.expectSame(expected, 'one slot');
    expect(owner.engine.takeTokensRecomputed()).toBe(0);
    expect(owner.engine.takeDisplacedCounts()).toEqual({ spilled: 0, dropped: 0 });
    expect(owner.engine.freeBlocks).toBe(24);
    owner.close();
  });

  it('newcomers run; one that is extended goes before those that never ran', async () => {
    const owner = await open({ slots: 1 });
    owner.begin([at(THREE, 0)]);
    await owner.runTurns();
    owner.begin([at(THREE, 1), at(THREE, 2)]);
    // Two has the slot when the environment of one answers; three has to wait for both.
    expect(owner.step()).toBe(true);
    owner.answer(1);
    await owner.runTurns();
    const firsts = [1, 2, 3].map((id) => owner.heard.get(id)?.turnEnds.length);
    expect(firsts).toEqual([2, 1, 1]);
    await owner.runAll();
    owner.expectSame(expected, 'newcomers');
    owner.close();
  });

  it.each([0, 1e9])(
    'caches leave for those that need the blocks, and come back to the same bits (%i bytes on the host)',
    async (spillBytesMax) => {
      const owner = await open({ slots: 2, kvBlocks: 4, spillBytesMax });
      owner.begin([...THREE, stopper]);
      await owner.runAll();
      owner.expectSame(expected, 'few blocks');
      const { spilled, dropped } = owner.engine.takeDisplacedCounts();
      expect(spilled + dropped).toBeGreaterThan(4);
      if (spillBytesMax === 0) expect(spilled).toBe(0);
      expect(owner.engine.takeTokensRecomputed() > 0).toBe(dropped > 0);
      expect([owner.engine.freeBlocks, owner.engine.spilledBytes]).toEqual([4, 0]);
      owner.close();
    },
  );

  it('no cache is sent away in vain: who could not run all the same waits', async () => {
    const owner = await open({ slots: 3, kvBlocks: 6 });
    owner.begin([at(THREE, 0)]);
    await owner.runTurns();
    // The parked one holds two blocks, the next runs with four; those of the parked one are not enough for the third.
    const long = [8, 9].map((id) => free(id, 21, [turn(0, 40)]));
    owner.begin(long);
    for (let step = 0; step < 3; step++) expect(owner.step()).toBe(true);
    await owner.engine.settled();
    expect(owner.engine.freeBlocks).toBe(0);
    owner.answer(1);
    expect(owner.step()).toBe(true);
    expect(owner.engine.takeDisplacedCounts()).toEqual({ spilled: 0, dropped: 0 });
    await owner.engine.settled();
    expect(owner.heard.get(9)?.tokenIds).toEqual([]);
    for (const { request } of long) {
      owner.engine.abort(request.id);
      owner.heard.delete(request.id);
    }
    await owner.runAll();
    owner.expectSame(expected, 'in vain');
    expect(owner.engine.takeTokensRecomputed()).toBe(0);
    owner.close();
  });

  it.each([HELD, SPILLED, DROPPED, { kind: 'pressure', blocksMax: 3 } as const])(
    'a stage takes the device: parked caches are $kind as well',
    async (kv) => {
      const owner = await open();
      owner.begin(THREE);
      await owner.runTurns();
      atOnce(device.gpu, owner.engine.leave(kv));
      const { held, spilled, dropped } = owner.engine.takeKvCounts();
      const left = { held: 0, spilled: 3, dropped: 3, pressure: 2 }[kv.kind];
      expect([held, spilled + dropped]).toEqual([3 - left, left]);
      expect(owner.engine.freeBlocks).toBe(24 - 2 * (3 - left));
      for (const id of [1, 2, 3]) owner.answer(id);
      await owner.engine.settled();
      if (kv.kind === 'spilled' || kv.kind === 'dropped') expect(owner.engine.nextStep()).toBeNull();
      owner.engine.comeBack();
      await owner.runAll();
      owner.expectSame(expected, kv.kind);
      expect(owner.engine.takeTokensRecomputed() > 0).toBe(dropped > 0);
      expect(owner.engine.freeBlocks).toBe(24);
      owner.close();
    },
  );

  it.each([HELD, SPILLED, DROPPED])(
    'caches that left before the end of the turn was known are $kind all the same',
    async (kv) => {
      const owner = await open({ stepsAheadMax: 8 });
      owner.begin([stopper]);
      // The turn is over at its second token; the device runs rows beyond it, into a second block.
      for (let step = 0; step < 6; step++) expect(owner.step()).toBe(true);
      atOnce(device.gpu, owner.engine.leave(kv));
      await owner.engine.settled();
      expect(owner.paused).toEqual([4]);
      expect(owner.engine.freeBlocks).toBe(kv === HELD ? 23 : 24);
      owner.engine.comeBack();
      await owner.runAll();
      owner.expectSame(expected, kv.kind);
      expect([owner.engine.freeBlocks, owner.engine.spilledBytes]).toEqual([24, 0]);
      owner.close();
    },
  );

  it('they move to another engine with all there is to know, and go on there', async () => {
    const owner = await open();
    owner.begin(THREE);
    await owner.runTurns();
    owner.answer(1);
    owner.answer(2);
    for (let step = 0; step < 3; step++) owner.step();
    const evicted = await owner.move({ slots: 1 });
    expect(evicted.map(({ id, tokensMax, episode }) => [id, tokensMax, episode?.turnEnd])).toEqual([
      [1, 11, null],
      [2, 11, null],
      [3, 5, 'length'],
    ]);
    expect(at(evicted, 0).episode?.observations).toEqual([
      { after: 5, tokenIds: at(at(THREE, 0).turns, 1).tokenIds },
    ]);
    expect(at(evicted, 2).episode?.observations).toEqual([]);
    expect([owner.engine.parkedCount, owner.engine.freeBlocks, owner.paused]).toEqual([1, 24, [3]]);
    await owner.runAll();
    owner.expectSame(expected, 'moved');
    owner.close();
  });

  it('an episode may be ended or aborted, wherever its cache is', async () => {
    for (const kv of [HELD, SPILLED, DROPPED]) {
      const owner = await open();
      const bytes = device.gpu.bytesAllocated;
      owner.begin(THREE);
      await owner.runTurns();
      atOnce(device.gpu, owner.engine.leave(kv));
      owner.engine.finish(1);
      owner.engine.abort(2);
      await owner.engine.settled();
      owner.engine.finish(3);
      const reasons = [1, 2, 3].map((id) => owner.heard.get(id)?.reason);
      expect(reasons).toEqual(['length', 'abort', 'length']);
      expect([owner.engine.sequenceCount, owner.engine.freeBlocks]).toEqual([0, 24]);
      expect([owner.engine.spilledBytes, device.gpu.bytesAllocated]).toEqual([0, bytes]);
      owner.close();
    }
  });
});

describe('new weights between two turns', () => {
  /** The first turn under the old weights, the others under the new ones. */
  async function flip(kv: typeof HELD, stepsAheadMax: number): Promise<Map<number, Heard>> {
    const owner = await open({ stepsAheadMax });
    owner.begin([...THREE, stopper]);
    await owner.runTurns();
    atOnce(device.gpu, owner.engine.leave(kv));
    await owner.loadWeights(otherBuckets, 1);
    owner.engine.comeBack();
    await owner.runAll();
    owner.close();
    return owner.heard;
  }

  it('leave the cache as it was; every token tells what it was sampled under, however far the device ran ahead', async () => {
    const held = await flip(HELD, 1);
    for (const [id, heard] of held) {
      const firsts = id === 4 ? 2 : 5;
      expect(heard.versions).toEqual(heard.versions.map((_, i) => (i < firsts ? 0 : 1)));
      expect(heard.tokenIds.slice(0, firsts)).toEqual(expected.get(id)?.tokenIds.slice(0, firsts));
      expect(heard.rawLogprobs[firsts]).not.toBe(expected.get(id)?.rawLogprobs[firsts]);
    }
    for (const other of [await flip(HELD, 6), await flip(SPILLED, 3)]) {
      expect([...other]).toEqual([...held]);
    }
    const dropped = await flip(DROPPED, 3);
    expect(dropped.get(1)?.rawLogprobs.slice(5)).not.toEqual(held.get(1)?.rawLogprobs.slice(5));
  });
});

describe('turns that nobody could take', () => {
  it('are refused, and harm nobody', async () => {
    const owner = await open({ slots: 1 });
    owner.begin([at(THREE, 0), at(THREE, 1)]);
    const { engine } = owner;
    const extend =
      (id: number, change: Partial<Turn> = {}) =>
      (): void =>
        engine.extend(id, { tokenIds: [1], tokensMax: 2, ...change });
    owner.step();
    for (const id of [1, 2, 77]) expect(extend(id)).toThrow(`sequence ${id} is not between two turns`);
    expect(() => engine.finish(1)).toThrow('not between two turns');
    expect(() => engine.finish(77)).toThrow('not between two turns');
    await owner.runTurns();
    expect(extend(1, { tokensMax: 0 })).toThrow('a turn of 0 tokens');
    expect(extend(1, { tokensMax: 1.5 })).toThrow('a turn of 1.5 tokens');
    expect(extend(1, { tokenIds: [3, vocabSize] })).toThrow(`token ${vocabSize} of ${vocabSize}`);
    expect(extend(1, { tokensMax: 42 })).toThrow('does not fit the engine');
    expect(engine.parkedCount).toBe(2);
    await owner.runAll();
    owner.expectSame(expected, 'after refusals');
    expect(extend(1)).toThrow('not between two turns');
    owner.close();
  });

  it.each<[string, Partial<SequenceRequest>]>([
    ['after token 3 of 2', { episode: { observations: [{ after: 3, tokenIds: [1] }], turnEnd: null } }],
    [
      'after token 1 of 2, behind one after token 2',
      {
        episode: {
          observations: [
            { after: 2, tokenIds: [1] },
            { after: 1, tokenIds: [1] },
          ],
          turnEnd: null,
        },
      },
    ],
    ['token 99 of 37', { episode: { observations: [{ after: 1, tokenIds: [99] }], turnEnd: null } }],
    ['nothing was sampled', { episode: { observations: [{ after: 2, tokenIds: [1] }], turnEnd: 'stop' } }],
    ['2 of 1 tokens', { episode: { observations: [], turnEnd: 'stop' }, tokensMax: 1 }],
    ['2 of 2 tokens', { episode: newEpisode(), tokensMax: 2 }],
  ])('are refused from another engine: %s', async (message, change) => {
    const owner = await open();
    const generated = { tokenIds: [4, 5], logprobs: [-1, -1], rawLogprobs: [-1, -1], versions: [0, 0] };
    const { request } = at(THREE, 0);
    expect(() => owner.engine.add({ ...request, generated, ...change })).toThrow(message);
    expect(owner.engine.sequenceCount).toBe(0);
    owner.engine.add({ ...request, generated, episode: { observations: [], turnEnd: 'stop' }, tokensMax: 2 });
    expect(owner.engine.parkedCount).toBe(1);
    expect(owner.engine.evict()).toHaveLength(1);
    owner.close();
  });
});
