import { beforeAll, describe, expect, it } from 'vitest';
import type { KvOnPreempt } from '#src/engine/engine.js';
import type { EngineOptions } from '#src/engine/webgpu-engine.js';
import { assert, at } from '#src/lib/assert.js';
import { Random } from '#src/lib/prng.js';
import { shuffled } from '../helpers/arrays.js';
import { useGpu } from '../helpers/gpu.js';
import { EpisodeOwner, type Heard, inOneGo, randomScripts, type Script } from './episode-fixtures.js';
import { atOnce, type Submit } from './fixtures.js';
import { BLOCK_BYTES, DROPPED, HELD, model, opByOp, SPILLED } from './kv-fixtures.js';

const device = useGpu();
const scripts = randomScripts(new Random(1300), model, 40);

let expected: Map<number, Heard>;
beforeAll(async () => {
  expected = await inOneGo(device, model, scripts);
});

function randomOptions(random: Random): Partial<EngineOptions> {
  const slots = random.int(1, 5);
  return {
    slots,
    batchTokensMax: slots + random.int(0, 40),
    kvBlocks: random.int(4, 16),
    stepsAheadMax: random.int(1, 4),
    spillBytesMax: random.pick([0, random.int(1, 6) * BLOCK_BYTES, 1e9]),
  };
}

function randomKv(random: Random): KvOnPreempt {
  const blocksMax = random.pick([0, random.int(1, 6), random.int(1, 16)]);
  return random.pick<KvOnPreempt>([HELD, SPILLED, DROPPED, { kind: 'pressure', blocksMax }]);
}

/** What happened in all storms. */
const sum = {
  episodes: 0,
  turns: 0,
  spilled: 0,
  dropped: 0,
  displaced: 0,
  recomputed: 0,
  moved: 0,
  movedParked: 0,
};

/** Episodes that arrive one by one, environments that take their time, stages that come and go, and engines too. */
class Storm {
  readonly #submit: Submit;

  constructor(
    private readonly random: Random,
    private readonly owner: EpisodeOwner,
    private readonly toCome: Script[],
    private readonly label: string,
  ) {
    this.#submit = random.uniform() < 0.2 ? opByOp : atOnce;
  }

  async run(): Promise<void> {
    const { random, owner, toCome } = this;
    const answers = random.pick([0.05, 0.2, 0.6]);
    for (let tick = 0; owner.engine.sequenceCount > 0 || toCome.length > 0; tick++) {
      assert(tick < 5000, `${this.label}: ${owner.engine.sequenceCount} episodes starve`);
      const next = random.uniform() < 0.3 ? toCome.pop() : undefined;
      if (next !== undefined) owner.begin([next]);
      for (const id of owner.paused) if (random.uniform() < answers) owner.answer(id);
      if (random.uniform() < 0.1) this.#leave();
      if (random.uniform() < 0.4) owner.engine.comeBack();
      if (random.uniform() < 0.02) await this.#move();
      const isIdle = !owner.step(this.#submit);
      if (isIdle || random.uniform() < 0.1) await owner.engine.settled();
    }
    await owner.engine.settled();
    this.#count();
    device.gpu.assertHealthy();
  }

  #leave(): void {
    this.#submit(device.gpu, this.owner.engine.leave(randomKv(this.random)));
  }

  async #move(): Promise<void> {
    this.#count();
    const evicted = await this.owner.move(randomOptions(this.random));
    for (const { id, generated, episode } of evicted) {
      const heard = this.owner.heard.get(id);
      assert(
        heard !== undefined && episode !== undefined,
        `${this.label}: what came out is no episode of ours`,
      );
      const { tokenIds, logprobs, rawLogprobs, versions } = heard;
      expect(generated, this.label).toEqual({ tokenIds, logprobs, rawLogprobs, versions });
      expect(episode.turnEnd, this.label).toBe(heard.isPaused ? heard.turnEnds.at(-1) : null);
      sum.moved++;
      if (heard.isPaused) sum.movedParked++;
    }
  }

  #count(): void {
    const { engine } = this.owner;
    const [kv, displaced] = [engine.takeKvCounts(), engine.takeDisplacedCounts()];
    sum.spilled += kv.spilled + displaced.spilled;
    sum.dropped += kv.dropped + displaced.dropped;
    sum.displaced += displaced.spilled + displaced.dropped;
    sum.recomputed += engine.takeTokensRecomputed();
  }
}

describe('whatever an episode goes through, its tokens and bits are those of its prefixes computed in one go', () => {
  it.each(Array.from({ length: 20 }, (_, i) => 1310 + i))('in a storm (seed %i)', async (seed) => {
    const random = new Random(seed);
    const bytes = device.gpu.bytesAllocated;
    const owner = new EpisodeOwner(device, model);
    await owner.open(randomOptions(random));
    const some = shuffled(random, scripts.length)
      .slice(0, 10)
      .map((index) => at(scripts, index));
    await new Storm(random, owner, [...some], `seed ${seed}`).run();
    expect(owner.heard.size).toBe(some.length);
    owner.expectSame(expected, `seed ${seed}`);
    const { engine } = owner;
    expect([engine.spilledBytes, engine.freeBlocks], `seed ${seed}`).toEqual([0, engine.options.kvBlocks]);
    owner.close();
    expect(device.gpu.bytesAllocated, `seed ${seed}`).toBe(bytes);
    sum.episodes += some.length;
    for (const { turnEnds } of owner.heard.values()) sum.turns += turnEnds.length;
  });

  it('in storms that really did all of that', () => {
    expect(sum.episodes).toBe(200);
    expect(sum.turns).toBeGreaterThan(400);
    expect(sum.spilled).toBeGreaterThan(50);
    expect(sum.dropped).toBeGreaterThan(50);
    expect(sum.displaced).toBeGreaterThan(30);
    expect(sum.recomputed).toBeGreaterThan(500);
    expect(sum.moved).toBeGreaterThan(30);
    expect(sum.movedParked).toBeGreaterThan(10);
  });
});
