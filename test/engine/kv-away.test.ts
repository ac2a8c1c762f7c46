import { beforeAll, describe, expect, it } from 'vitest';
import type { KvOnPreempt } from '#src/engine/engine.js';
import { noTokens } from '#src/engine/sequence.js';
import { submitProgram } from '#src/gpu/slice-encoder.js';
import { at } from '#src/lib/assert.js';
import { Random } from '#src/lib/prng.js';
import { useGpu } from '../helpers/gpu.js';
import { randomParams } from '../oracle/fixtures.js';
import { toBuckets } from '../oracle/params.js';
import {
  expectPrefix,
  expectSameOutcome,
  expectSameOutcomes,
  type Outcomes,
  runAlone,
  TestEngine,
} from './fixtures.js';
import {
  BLOCK_BYTES,
  DROPPED,
  FOUR,
  HELD,
  model,
  SEED,
  SPILLED,
  startFour,
  submitFirst,
  submitNext,
} from './kv-fixtures.js';

const device = useGpu();
const otherBuckets = toBuckets(model.layout, randomParams(model.config, new Random(SEED + 3)));

let alone: Outcomes;
beforeAll(async () => {
  alone = await runAlone(device, model, FOUR);
});

describe('those away', () => {
  it.each(['before the copies', 'between two copies', 'while they are mapped', 'on the host'])(
    'may be aborted %s: their memory is freed, the others go on',
    async (when) => {
      const test = await startFour(device, 4);
      const bytes = device.gpu.bytesAllocated;
      const program = test.engine.leave(SPILLED);
      const abort = (): void => {
        for (const id of [2, 4]) test.engine.abort(id);
      };
      if (when === 'before the copies') abort();
      submitFirst(device, program);
      if (when === 'between two copies') abort();
      submitProgram(device.gpu, program);
      if (when === 'while they are mapped') abort();
      await test.engine.settled();
      if (when === 'on the host') abort();
      expect(test.engine.spilledBytes).toBe(2 * BLOCK_BYTES);
      expect(device.gpu.bytesAllocated).toBe(bytes + 2 * BLOCK_BYTES);
      expect(test.engine.sequenceCount).toBe(2);
      test.engine.comeBack();
      await test.run();
      expectSameOutcomes(test.outcomes, alone, FOUR, when, new Set([2, 4]));
      for (const id of [2, 4]) expectPrefix(test.outcomes.get(id), alone.get(id), `${when}: aborted ${id}`);
      expect(device.gpu.bytesAllocated).toBe(bytes);
      test.destroy();
    },
  );

  it.each([SPILLED, DROPPED])('may come to their end by a late result ($kind)', async (kv) => {
    const short = FOUR.map((each, i) => ({ ...each, tokensMax: i < 2 ? 24 : 5 }));
    const bytes = device.gpu.bytesAllocated;
    const test = await TestEngine.load(device, model, { stepsAheadMax: 8 });
    // The device has stopped sequence 1 by the third step; the host has not heard of it when all must leave.
    const stop = at(alone.get(1).tokenIds, 2);
    const stopped = { ...at(short, 0), stopTokenIds: [stop] };
    const endsAt = alone.get(1).tokenIds.indexOf(stop) + 1;
    test.add([stopped, ...short.slice(1)]);
    for (let step = 0; step < 5; step++) submitNext(device, test);
    const counts = test.leave(kv);
    expect(counts.spilled + counts.dropped).toBe(2);
    await test.engine.settled();
    expect(test.engine.sequenceCount).toBe(1);
    expect(test.engine.spilledBytes).toBe(kv.kind === 'spilled' ? BLOCK_BYTES : 0);
    expect(test.outcomes.get(1)).toMatchObject({
      reason: 'stop',
      tokenIds: alone.get(1).tokenIds.slice(0, endsAt),
    });
    for (const id of [3, 4]) {
      const { tokenIds, reason } = test.outcomes.get(id);
      expect([tokenIds, reason]).toEqual([alone.get(id).tokenIds.slice(0, 5), 'length']);
    }
    test.engine.comeBack();
    await test.run();
    expectSameOutcome(test.outcomes.get(2), alone.get(2), 'the one that goes on');
    test.destroy();
    expect(device.gpu.bytesAllocated).toBe(bytes);
  });

  it('are evicted with all their tokens, whether their cache was copied or not, and go on elsewhere', async () => {
    const bytes = device.gpu.bytesAllocated;
    for (const when of ['given up before it began', 'half done', 'done']) {
      const test = await startFour(device, 6, { spillBytesMax: 2 * BLOCK_BYTES });
      const program = test.engine.leave(SPILLED);
      if (when === 'given up before it began') program.return();
      if (when === 'half done') submitFirst(device, program);
      if (when === 'done') submitProgram(device.gpu, program);
      test.engine.pause();
      expect([...test.engine.leave(DROPPED)]).toEqual([]);
      await test.engine.settled();
      const evicted = new Map(test.engine.evict().map(({ id, generated }) => [id, generated]));
      expect([evicted.size, test.engine.sequenceCount]).toEqual([4, 0]);
      test.destroy();
      expect(device.gpu.bytesAllocated, when).toBe(bytes);
      const next = await TestEngine.load(device, model);
      next.add(FOUR.map((each) => ({ ...each, generated: evicted.get(each.id) ?? noTokens() })));
      await next.run();
      for (const { id } of FOUR) {
        const before = evicted.get(id)?.tokenIds ?? [];
        expect([...before, ...next.outcomes.get(id).tokenIds], when).toEqual(alone.get(id).tokenIds);
      }
      next.destroy();
    }
  });

  it('come back a hundred times to an engine that has not grown', async () => {
    const random = new Random(SEED + 4);
    const test = await TestEngine.load(device, model, { spillBytesMax: 3 * BLOCK_BYTES });
    const bytes = device.gpu.bytesAllocated;
    let id = 10;
    for (let round = 0; round < 100; round++) {
      while (test.engine.sequenceCount < 4) test.add([{ ...random.pick(FOUR), id: id++ }]);
      await test.run((step) => step < random.int(1, 3));
      test.leave(random.pick([SPILLED, DROPPED, { kind: 'pressure', blocksMax: random.int(0, 8) }]));
      expect(test.engine.spilledBytes).toBeLessThanOrEqual(3 * BLOCK_BYTES);
      expect(device.gpu.bytesAllocated).toBe(bytes + test.engine.spilledBytes);
      test.engine.comeBack();
    }
    await test.run();
    expect([device.gpu.bytesAllocated, test.engine.spilledBytes]).toEqual([bytes, 0]);
    // All blocks are there: as many as the engine has run at once.
    test.add(FOUR);
    submitNext(device, test);
    expect(test.leave(HELD).held).toBe(4);
    await test.run();
    expectSameOutcomes(test.outcomes, alone, FOUR, 'after a hundred rounds');
    test.destroy();
  });
});

describe('new weights while sequences are away', () => {
  /** Four steps, then the caches leave, other weights arrive, and the caches return. */
  async function flip(kv: KvOnPreempt): Promise<Outcomes> {
    const test = await startFour(device, 4);
    test.leave(kv);
    await test.loadWeights(otherBuckets, 1);
    test.engine.comeBack();
    await test.run();
    test.destroy();
    return test.outcomes;
  }

  it('leave a spilled cache as a held one; every token tells what it was sampled under', async () => {
    const [held, spilled] = [await flip(HELD), await flip(SPILLED)];
    expectSameOutcomes(spilled, held, FOUR, 'spilled');
    for (const { id } of FOUR) {
      const { versions } = spilled.get(id);
      expect(versions).toEqual(held.get(id).versions);
      expect(versions).toEqual(Array.from(versions, (_, i) => (i < 4 ? 0 : 1)));
      expect(spilled.get(id).rawLogprobs.slice(4)).not.toEqual(alone.get(id).rawLogprobs.slice(4));
    }
  });

  it('make a dropped cache anew: as if the sequence had moved to an engine that has them', async () => {
    const [held, dropped] = [await flip(HELD), await flip(DROPPED)];
    const fresh = await TestEngine.load(device, { ...model, buckets: otherBuckets });
    fresh.add(
      FOUR.map((each) => {
        const { tokenIds, logprobs, rawLogprobs, versions } = dropped.get(each.id);
        const first = <T>(list: readonly T[]): T[] => list.slice(0, 4);
        const generated = {
          tokenIds: first(tokenIds),
          logprobs: first(logprobs),
          rawLogprobs: first(rawLogprobs),
          versions: first(versions),
        };
        return { ...each, generated };
      }),
    );
    await fresh.run();
    for (const { id } of FOUR) {
      const { tokenIds, rawLogprobs, versions } = dropped.get(id);
      const moved = fresh.outcomes.get(id);
      expect([tokenIds.slice(4), rawLogprobs.slice(4)]).toEqual([moved.tokenIds, moved.rawLogprobs]);
      expect(versions).toEqual(Array.from(versions, (_, i) => (i < 4 ? 0 : 1)));
      expect(rawLogprobs.slice(4)).not.toEqual(held.get(id).rawLogprobs.slice(4));
    }
    fresh.destroy();
  });
});
