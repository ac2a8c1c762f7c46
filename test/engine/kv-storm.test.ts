import { beforeAll, describe, expect, it } from 'vitest';
import type { KvOnPreempt } from '#src/engine/engine.js';
import type { SequenceRequest } from '#src/engine/sequence.js';
import { assert, at } from '#src/lib/assert.js';
import { Random } from '#src/lib/prng.js';
import { shuffled } from '../helpers/arrays.js';
import { useGpu } from '../helpers/gpu.js';
import {
  atOnce,
  expectSameOutcomes,
  type Outcomes,
  randomRequests,
  runAlone,
  type Submit,
  TestEngine,
} from './fixtures.js';
import { BLOCK_BYTES, DROPPED, FOUR, HELD, model, opByOp, SEED, SPILLED } from './kv-fixtures.js';

const device = useGpu();
const requests = randomRequests(new Random(SEED + 1), model, 24);

let alone: Outcomes;
beforeAll(async () => {
  alone = await runAlone(device, model, [...requests, ...FOUR]);
});

function randomKv(random: Random): KvOnPreempt {
  const blocksMax = random.pick([0, random.int(1, 6), random.int(1, 24)]);
  return random.pick<KvOnPreempt>([HELD, SPILLED, DROPPED, { kind: 'pressure', blocksMax }]);
}

/** Requests that arrive one by one, stages that come and go at random; what became of the caches is added up. */
class Stormy {
  readonly counts = { held: 0, spilled: 0, dropped: 0, recomputed: 0, both: 0 };
  readonly #submit: Submit;

  constructor(
    private readonly random: Random,
    private readonly test: TestEngine,
    private readonly toCome: SequenceRequest[],
    private readonly label: string,
  ) {
    this.#submit = random.uniform() < 0.2 ? opByOp : atOnce;
  }

  async run(): Promise<void> {
    const { random, toCome } = this;
    const { engine } = this.test;
    for (let turn = 0; engine.sequenceCount > 0 || toCome.length > 0; turn++) {
      assert(turn < 5000, `${this.label}: ${engine.sequenceCount} sequences starve`);
      const next = random.uniform() < 0.3 ? toCome.pop() : undefined;
      if (next !== undefined) engine.add(next);
      if (random.uniform() < 0.2) this.#leave();
      if (random.uniform() < 0.4) engine.comeBack();
      const step = engine.nextStep();
      if (step !== null) this.#submit(device.gpu, step);
      if (step === null || random.uniform() < 0.1) await engine.settled();
    }
    await engine.settled();
    this.counts.recomputed = engine.takeTokensRecomputed();
    device.gpu.assertHealthy();
  }

  #leave(): void {
    const counts = this.test.leave(randomKv(this.random), this.#submit);
    this.counts.held += counts.held;
    this.counts.spilled += counts.spilled;
    this.counts.dropped += counts.dropped;
    if (counts.spilled > 0 && counts.dropped > 0) this.counts.both++;
  }
}

describe('whatever becomes of the caches, the tokens and bits are those of a run alone', () => {
  const total = { held: 0, spilled: 0, dropped: 0, recomputed: 0, both: 0 };

  it.each(Array.from({ length: 24 }, (_, i) => 850 + i))('in a storm (seed %i)', async (seed) => {
    const random = new Random(seed);
    const slots = random.int(1, 8);
    const bytes = device.gpu.bytesAllocated;
    const test = await TestEngine.load(device, model, {
      slots,
      batchTokensMax: slots + random.int(0, 40),
      kvBlocks: random.int(4, 32),
      stepsAheadMax: random.int(1, 4),
      spillBytesMax: random.pick([0, random.int(1, 8) * BLOCK_BYTES, 1e9]),
    });
    const ownBytes = device.gpu.bytesAllocated;
    const some = shuffled(random, requests.length)
      .slice(0, 10)
      .map((index) => at(requests, index));
    const stormy = new Stormy(random, test, [...some], `seed ${seed}`);
    await stormy.run();
    expectSameOutcomes(test.outcomes, alone, some, `seed ${seed}`);
    expect([test.engine.spilledBytes, device.gpu.bytesAllocated], `seed ${seed}`).toEqual([0, ownBytes]);
    test.destroy();
    expect(device.gpu.bytesAllocated, `seed ${seed}`).toBe(bytes);
    for (const key of ['held', 'spilled', 'dropped', 'recomputed', 'both'] as const) {
      total[key] += stormy.counts[key];
    }
  });

  it('in storms that really moved caches every way', () => {
    expect(total.held).toBeGreaterThan(50);
    expect(total.spilled).toBeGreaterThan(50);
    expect(total.dropped).toBeGreaterThan(50);
    expect(total.both).toBeGreaterThan(5);
    expect(total.recomputed).toBeGreaterThan(500);
  });

  it.each([HELD, SPILLED, DROPPED])('when all are $kind at every single step', async (kv) => {
    for (const stepsAheadMax of [1, 3]) {
      // A batch holds the longest of them, so that the oldest gets a token further each time it is computed again.
      const test = await TestEngine.load(device, model, { stepsAheadMax, batchTokensMax: 32 });
      test.add(FOUR);
      await test.run((step) => {
        assert(step < 1000, 'they get no further');
        test.leave(kv);
        test.engine.comeBack();
      });
      expectSameOutcomes(test.outcomes, alone, FOUR, `${kv.kind}, ${stepsAheadMax} steps ahead`);
      const recomputed = test.engine.takeTokensRecomputed();
      if (kv.kind === 'dropped') expect(recomputed).toBeGreaterThan(24 * 23);
      else expect(recomputed).toBe(0);
      test.destroy();
    }
  });
});
