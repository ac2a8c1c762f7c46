import { describe, expect, it } from 'vitest';
import { Batcher, type BatchEntry, type MakeRoom } from '#src/engine/batcher.js';
import { newEpisode } from '#src/engine/episode.js';
import { noTokens, Sequence } from '#src/engine/sequence.js';
import { BLOCK_TOKENS, blocksFor } from '#src/kernels/kv-cache.js';
import { assert } from '#src/lib/assert.js';
import { Random } from '#src/lib/prng.js';

function episode(id: number, promptTokens: number, tokensMax: number): Sequence {
  return new Sequence({
    id,
    promptTokenIds: new Array<number>(promptTokens).fill(0),
    generated: noTokens(),
    tokensMax,
    sampling: { temperature: 1, topK: 0, topP: 1, minP: 0 },
    key: [0, 0],
    stopTokenIds: [],
    episode: newEpisode(),
  });
}

function observation(count: number): number[] {
  return new Array<number>(count).fill(1);
}

/** Gives the samples of a batch their tokens; returns those whose turn is at its limit. */
function draw(entries: readonly BatchEntry[]): Sequence[] {
  const sampled = entries.filter(({ samples }) => samples).map(({ sequence }) => sequence);
  for (const each of sampled) {
    each.drawsInFlight--;
    each.append({ token: 0, logprob: 0, rawLogprob: 0, flags: 0 }, 0);
  }
  return sampled.filter(({ isFull }) => isFull);
}

function shape(entries: readonly BatchEntry[]): unknown[] {
  return entries.map(({ sequence, start, count, samples }) => [sequence.request.id, start, count, samples]);
}

const READY = (each: Sequence): boolean => each.drawsInFlight === 0;

/** Episodes of random turns under random pressure; blocks and slots are accounted for after every event. */
class Story {
  readonly batcher: Batcher;
  readonly #turnsLeft = new Map<Sequence, number>();
  readonly live = new Set<Sequence>();
  displaced = 0;
  turns = 0;
  #nextId = 1;

  constructor(
    readonly random: Random,
    readonly label: string,
  ) {
    const slots = random.int(1, 5);
    this.batcher = new Batcher({
      slots,
      kvBlocks: random.int(6, 16),
      batchTokensMax: slots + random.int(0, 40),
    });
  }

  add(): void {
    const next = episode(this.#nextId++, this.random.int(1, 40), this.random.int(1, 12));
    this.batcher.add(next);
    this.live.add(next);
    this.#turnsLeft.set(next, this.random.int(0, 4));
  }

  step(): void {
    const { batcher, random } = this;
    const makeRoom: MakeRoom = (sequence, blocks) => this.#displace(sequence, blocks);
    for (const each of batcher.takeBack(READY, makeRoom)) each.resume();
    const entries = batcher.plan(makeRoom);
    this.check();
    for (const { sequence, start, count } of entries) {
      assert(start + count <= sequence.tokensInCacheMax, `${this.label}: planned beyond its cache`);
    }
    const full = new Set(draw(entries));
    for (const { sequence, samples } of entries) {
      if (!samples || !(full.has(sequence) || random.uniform() < 0.1)) continue;
      sequence.endTurn(full.has(sequence) ? 'length' : 'stop');
      batcher.park(sequence);
      this.turns++;
    }
    this.check();
  }

  /** An environment answers, or ends its episode. */
  answer(): void {
    const { batcher, random } = this;
    if (batcher.parked.length === 0) return;
    const one = random.pick(batcher.parked);
    const turnsLeft = this.#turnsLeft.get(one) ?? 0;
    const turn = { tokenIds: observation(random.int(0, 9)), tokensMax: random.int(1, 9) };
    const fits = batcher.canEverHold(one.tokenCount + turn.tokenIds.length + turn.tokensMax - 1);
    if (turnsLeft > 0 && fits) {
      this.#turnsLeft.set(one, turnsLeft - 1);
      one.beginTurn(turn);
      batcher.unpark(one);
    } else {
      batcher.finish(one, 'stop');
      this.live.delete(one);
    }
    this.check();
  }

  drain(): void {
    for (let step = 0; this.live.size > 0; step++) {
      assert(step < 4000, `${this.label}: ${this.live.size} episodes starve`);
      this.step();
      if (this.random.uniform() < 0.3) this.answer();
    }
    const { batcher } = this;
    assert(batcher.freeBlocks === batcher.limits.kvBlocks, `${this.label}: blocks are missing at the end`);
  }

  check(): void {
    const { running, away, parked, freeBlocks, limits } = this.batcher;
    const holders = [...running, ...away, ...parked];
    const blocks = holders.flatMap((each) => each.blocks);
    assert(new Set(blocks).size === blocks.length, `${this.label}: a block belongs to two`);
    assert(blocks.length + freeBlocks === limits.kvBlocks, `${this.label}: blocks are lost or made`);
    const slots = running.map(({ slot }) => slot);
    assert(
      new Set(slots).size === slots.length && !slots.includes(-1),
      `${this.label}: slots of those running`,
    );
    for (const { slot, blocks: held, nextPosition } of [...away, ...parked]) {
      assert(slot === -1, `${this.label}: a slot of one that does not run`);
      assert(
        held.length === 0 || held.length === blocksFor(nextPosition),
        `${this.label}: more than its cache`,
      );
    }
    for (const each of running) {
      assert(each.blocks.length * BLOCK_TOKENS >= each.tokensInCacheMax, `${this.label}: too few blocks`);
    }
  }

  #displace(newcomer: Sequence, blocks: number): boolean {
    const { parked, away } = this.batcher;
    const behind = away.filter(({ arrival }) => arrival > newcomer.arrival);
    const holders = [...parked, ...behind].filter((each) => each.blocks.length > 0);
    if (holders.reduce((sum, each) => sum + each.blocks.length, 0) < blocks) return false;
    let missing = blocks;
    for (const each of holders) {
      if (missing <= 0) break;
      missing -= each.blocks.length;
      each.loseCache();
      this.batcher.sendAway(each);
      this.displaced++;
    }
    return true;
  }
}

describe('a batcher of episodes', () => {
  it('gives a slot away between turns, and goes on where the cache ends', () => {
    const batcher = new Batcher({ slots: 1, batchTokensMax: 32, kvBlocks: 6 });
    const [a, b] = [episode(1, 5, 1), episode(2, 17, 20)];
    for (const each of [a, b]) batcher.add(each);
    expect(shape(batcher.plan())).toEqual([[1, 0, 5, true]]);
    a.drawsInFlight--;
    a.append({ token: 0, logprob: 0, rawLogprob: 0, flags: 0 }, 0);
    a.endTurn('length');
    batcher.park(a);
    expect([a.slot, a.blocks.length, batcher.freeBlocks]).toEqual([-1, 1, 5]);
    const first = batcher.plan();
    expect(shape(first)).toEqual([[2, 0, 17, true]]);
    expect([b.blocks.length, batcher.freeBlocks]).toEqual([3, 2]);
    a.beginTurn({ tokenIds: observation(12), tokensMax: 3 });
    batcher.unpark(a);
    expect(batcher.takeBack(READY)).toEqual([]);
    draw(first);
    // It stops early, while a row beyond the end is on the device: that row does not count.
    const late = batcher.plan();
    expect(shape(late)).toEqual([[2, 17, 1, true]]);
    b.endTurn('stop');
    batcher.park(b);
    expect([b.nextPosition, b.blocks.length, batcher.freeBlocks]).toEqual([17, 2, 3]);
    expect(batcher.takeBack(READY)).toEqual([a]);
    a.resume();
    // The last sampled token and the observation, nothing else; 20 positions are two blocks.
    expect(shape(batcher.plan())).toEqual([[1, 5, 13, true]]);
    expect([a.blocks.length, batcher.freeBlocks, batcher.takeRowsRepeated()]).toEqual([2, 2, 0]);
    expect(() => batcher.unpark(a)).toThrow('not where it should be');
    expect(() => batcher.park(b)).toThrow('not where it should be');
    batcher.finish(b, 'stop');
    expect(batcher.freeBlocks).toBe(4);
    batcher.finish(a, 'abort');
    expect(batcher.freeBlocks).toBe(6);
  });

  it('asks for room only for who has a slot and is next in line, and only for what is missing', () => {
    const batcher = new Batcher({ slots: 2, batchTokensMax: 64, kvBlocks: 4 });
    const [a, b, c] = [episode(1, 16, 1), episode(2, 30, 10), episode(3, 30, 10)];
    batcher.add(a);
    draw(batcher.plan());
    a.endTurn('length');
    batcher.park(a);
    for (const each of [b, c]) batcher.add(each);
    const asked: [number, number][] = [];
    const refuse: MakeRoom = ({ request }, blocks) => {
      asked.push([request.id, blocks]);
      return false;
    };
    // b takes the three free blocks; c lacks all of its own.
    expect(shape(batcher.plan(refuse))).toEqual([[2, 0, 30, true]]);
    expect(asked).toEqual([[3, 3]]);
    batcher.sendAway(a);
    expect([a.blocks, batcher.freeBlocks, batcher.parked]).toEqual([[], 1, [a]]);
    expect(() => batcher.sendAway(a)).toThrow('has no cache');
  });

  it('loses no block or slot, and starves nobody, in random episodes', () => {
    const sum = { displaced: 0, turns: 0 };
    for (let seed = 1200; seed < 1260; seed++) {
      const story = new Story(new Random(seed), `seed ${seed}`);
      for (let event = 0; event < 120; event++) {
        const dice = story.random.uniform();
        if (dice < 0.15) story.add();
        else if (dice < 0.4) story.answer();
        else story.step();
      }
      story.drain();
      sum.displaced += story.displaced;
      sum.turns += story.turns;
    }
    expect(sum.displaced).toBeGreaterThan(200);
    expect(sum.turns).toBeGreaterThan(1000);
  });
});
