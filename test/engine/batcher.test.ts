import { describe, expect, it } from 'vitest';
import { Batcher, type BatchEntry } from '#src/engine/batcher.js';
import { KvBlocks } from '#src/engine/kv-blocks.js';
import { noTokens, Sequence } from '#src/engine/sequence.js';
import { BLOCK_TOKENS, blocksFor } from '#src/kernels/kv-cache.js';
import { assert, at } from '#src/lib/assert.js';
import { Random } from '#src/lib/prng.js';

function sequence(id: number, promptTokens: number, tokensMax: number, generatedTokens = 0): Sequence {
  const list = new Array<number>(generatedTokens).fill(0);
  return new Sequence({
    id,
    promptTokenIds: new Array<number>(promptTokens).fill(0),
    generated: { ...noTokens(), tokenIds: list, logprobs: list, rawLogprobs: list, versions: list },
    tokensMax,
    sampling: { temperature: 1, topK: 0, topP: 1, minP: 0 },
    key: [0, 0],
    stopTokenIds: [],
  });
}

/** A batcher with the device and the owner of its sequences played by chance; every invariant is held at every step. */
class Story {
  readonly batcher: Batcher;
  readonly waiting: Sequence[] = [];
  readonly admitted: number[] = [];
  readonly added: number[] = [];
  readonly finished = new Set<number>();
  /** Steps whose tokens the host has not seen yet, oldest first. */
  readonly #onDevice: (readonly BatchEntry[])[] = [];
  readonly #rowsPlanned = new Map<number, number>();
  readonly #serials = new Set<number>();
  /** Rows ever planned of each sequence. */
  readonly #rowsReached = new Map<number, number>();
  #blocksMax = Infinity;
  #slotsMax = Infinity;
  #nextId = 1;

  constructor(
    readonly random: Random,
    readonly label: string,
  ) {
    const slots = random.int(1, 9);
    const kvBlocks = random.int(2, 24);
    this.batcher = new Batcher({ slots, kvBlocks, batchTokensMax: slots + random.int(0, 40) });
  }

  get live(): Sequence[] {
    return [...this.batcher.running, ...this.batcher.away, ...this.waiting];
  }

  add(): void {
    const { random, batcher } = this;
    const promptTokens = random.int(1, 60);
    const tokensMax = random.int(1, 40);
    const next = sequence(this.#nextId++, promptTokens, tokensMax, random.int(0, tokensMax - 1));
    const fits = blocksFor(promptTokens + tokensMax - 1) <= batcher.limits.kvBlocks;
    this.#check(batcher.canEverHold(next.tokensInCacheMax) === fits, 'canEverHold is wrong');
    if (!fits) return;
    batcher.add(next);
    this.waiting.push(next);
    this.added.push(next.request.id);
  }

  abort(): void {
    if (this.live.length > 0) this.#end(this.random.pick(this.live), 'abort');
  }

  /** A stage comes: anyone may be sent away, and blocks may be limited. */
  preempt(): void {
    const { random, batcher } = this;
    this.#blocksMax = random.pick([Infinity, 0, random.int(0, batcher.limits.kvBlocks)]);
    batcher.limitBlocks(this.#blocksMax);
    for (const each of [...batcher.running]) {
      if (random.uniform() < 0.5) batcher.sendAway(each);
    }
    this.checkOwnership();
  }

  /** The stage is gone. */
  release(): void {
    this.#blocksMax = Infinity;
    this.batcher.limitBlocks(Infinity);
    this.#slotsMax = this.batcher.limits.slots;
    this.batcher.limitSlots(this.#slotsMax);
  }

  /** The plan has a word: fewer may run, none at all, or as many as there are slots. */
  limitSlots(): void {
    const { random, batcher } = this;
    this.#slotsMax = random.pick([0, random.int(0, batcher.limits.slots), batcher.limits.slots]);
    batcher.limitSlots(this.#slotsMax);
    this.checkOwnership();
  }

  /** Those whose tokens are known return, some with their cache and some without. */
  takeBack(): void {
    const { batcher, random } = this;
    const isReady = (each: Sequence): boolean => each.drawsInFlight === 0;
    const ready = batcher.away.filter(isReady);
    const before = batcher.away.length + batcher.running.length;
    const returned = batcher.takeBack(isReady);
    this.#check(
      returned.every((each, i) => each === ready[i]),
      'they do not return oldest first',
    );
    this.#check(before === batcher.away.length + batcher.running.length, 'a sequence is lost or made');
    const all = this.#blocksMax === Infinity && this.#slotsMax >= batcher.limits.slots;
    this.#check(!all || returned.length === ready.length, 'one of those that ran before finds no room');
    for (const each of returned) {
      const { id } = each.request;
      this.#check(!this.#serials.has(each.serial), 'a serial is used twice');
      this.#serials.add(each.serial);
      if (random.uniform() < 0.5) each.loseCache();
      each.resume();
      this.#rowsPlanned.set(id, each.nextPosition);
    }
    this.checkOwnership();
  }

  plan(): void {
    const { batcher } = this;
    const ready = this.#decodesReady();
    const entries = batcher.plan();
    this.#admitSeen();
    this.#checkEntries(entries);
    const unheld = batcher.running.slice(0, this.#slotsMax);
    this.#check(
      entries.every(({ sequence: each }) => unheld.includes(each)),
      'one that is held has rows',
    );
    const planned = new Set(entries.map((entry) => entry.sequence));
    for (const each of ready) this.#check(planned.has(each), `sequence ${each.request.id} was passed over`);
    if (entries.length > 0) this.#onDevice.push(entries);
    this.checkOwnership();
  }

  /** The device answers the oldest step; any of its sequences may have stopped there. */
  answer(): void {
    for (const { sequence: each, samples } of this.#onDevice.shift() ?? []) {
      if (samples) each.drawsInFlight--;
      if (!samples || each.finished !== null) continue;
      each.generated.tokenIds.push(0);
      const full = each.generated.tokenIds.length === each.request.tokensMax;
      if (full || this.random.uniform() < 0.05) this.#end(each, full ? 'length' : 'stop');
    }
    this.checkOwnership();
  }

  /** Blocks and slots belong to one running sequence each, and none is lost. */
  checkOwnership(): void {
    const { batcher } = this;
    const { slots, kvBlocks } = batcher.limits;
    const blocks = batcher.running.flatMap((each) => each.blocks);
    const strays = [...batcher.away, ...this.waiting].filter(
      (each) => each.blocks.length > 0 || each.slot >= 0,
    );
    this.#check(strays.length === 0, 'a sequence that does not run has a slot or blocks');
    this.#check(new Set(blocks).size === blocks.length, 'a block belongs to two sequences');
    this.#check(
      blocks.every((block) => block >= 0 && block < kvBlocks),
      'a block that does not exist',
    );
    this.#check(blocks.length + batcher.freeBlocks === kvBlocks, 'blocks are lost or made');
    const taken = batcher.running.map((each) => each.slot);
    this.#check(new Set(taken).size === taken.length, 'a slot belongs to two sequences');
    this.#check(
      taken.every((slot) => slot >= 0 && slot < slots),
      'a slot that does not exist',
    );
    for (const each of batcher.running) {
      this.#check(
        each.blocks.length * BLOCK_TOKENS >= each.tokensInCacheMax,
        'too few blocks for a sequence',
      );
    }
    this.#check(batcher.waitingCount === this.waiting.length, 'the number of those waiting');
  }

  /** Runs on without arrivals or aborts: everything must come to its end within what it can possibly take. */
  drain(): void {
    const steps = this.live.reduce((sum, each) => sum + each.tokensInCacheMax + 1, 1);
    this.release();
    while (this.#onDevice.length > 0) this.answer();
    for (let step = 0; this.live.length > 0; step++) {
      this.#check(step <= steps, `${this.live.length} sequences starve`);
      this.takeBack();
      this.plan();
      this.answer();
    }
    this.#check(this.batcher.freeBlocks === this.batcher.limits.kvBlocks, 'blocks are missing at the end');
  }

  #decodesReady(): Sequence[] {
    const unheld = this.batcher.running.slice(0, this.#slotsMax);
    return unheld.filter((each) => each.prefillRowsLeft === 0 && each.rowsLeft > 0);
  }

  #admitSeen(): void {
    for (const each of this.batcher.running) {
      if (this.admitted.includes(each.request.id)) continue;
      this.#check(this.waiting[0] === each, `sequence ${each.request.id} was admitted before its turn`);
      this.#check(each.serial > 0 && !this.#serials.has(each.serial), 'a serial is used twice');
      this.#serials.add(each.serial);
      this.waiting.shift();
      this.admitted.push(each.request.id);
    }
    const [next] = this.waiting;
    const { slots } = this.batcher.limits;
    const { freeBlocks, limits, away } = this.batcher;
    const wanted = next === undefined ? Infinity : blocksFor(next.tokensInCacheMax);
    const room =
      away.length === 0 &&
      this.batcher.running.length < Math.min(slots, this.#slotsMax) &&
      wanted <= freeBlocks &&
      limits.kvBlocks - freeBlocks + wanted <= this.#blocksMax;
    this.#check(!room, `sequence ${next?.request.id} waits though there is room`);
  }

  #checkEntries(entries: readonly BatchEntry[]): void {
    const rows = entries.reduce((sum, { count }) => sum + count, 0);
    this.#check(rows <= this.batcher.limits.batchTokensMax, `${rows} rows in one batch`);
    this.#check(
      new Set(entries.map((entry) => entry.sequence)).size === entries.length,
      'a sequence twice in a batch',
    );
    let repeated = 0;
    for (const { sequence: each, start, count, samples } of entries) {
      const { id } = each.request;
      const reached = this.#rowsReached.get(id) ?? 0;
      repeated += Math.max(0, Math.min(reached, start + count) - start);
      this.#rowsReached.set(id, Math.max(reached, start + count));
      this.#check(each.finished === null, `sequence ${id} is planned after its end`);
      this.#check(start === (this.#rowsPlanned.get(id) ?? 0), `sequence ${id} has a gap or an overlap`);
      this.#rowsPlanned.set(id, start + count);
      const known = each.knownTokens.length;
      this.#check(start + count <= each.tokensInCacheMax, `sequence ${id} is planned beyond its cache`);
      this.#check(samples === start + count >= known, `sequence ${id} samples in the wrong place`);
      this.#check(start < known || count === 1, `sequence ${id} decodes ${count} rows at once`);
    }
    this.#check(this.batcher.takeRowsRepeated() === repeated, 'the number of rows repeated');
  }

  #end(each: Sequence, reason: 'abort' | 'stop' | 'length'): void {
    this.batcher.finish(each, reason);
    const waits = this.waiting.indexOf(each);
    if (waits >= 0) this.waiting.splice(waits, 1);
    this.finished.add(each.request.id);
  }

  #check(condition: boolean, what: string): void {
    assert(condition, `${this.label}: ${what}`);
  }
}

describe('Batcher', () => {
  it('loses no block, slot or sequence, and overlaps none, however sequences leave and return', () => {
    let returns = 0;
    for (let seed = 720; seed < 800; seed++) {
      const story = new Story(new Random(seed), `seed ${seed}`);
      for (let event = 0; event < 200; event++) {
        const dice = story.random.uniform();
        if (dice < 0.2) story.add();
        else if (dice < 0.25) story.abort();
        else if (dice < 0.32) story.preempt();
        else if (dice < 0.4) story.release();
        else if (dice < 0.43) story.limitSlots();
        else if (dice < 0.5) {
          const away = story.batcher.away.length;
          story.takeBack();
          returns += away - story.batcher.away.length;
        } else if (dice < 0.75) story.plan();
        else story.answer();
      }
      story.drain();
      expect(story.finished.size, `seed ${seed}`).toBe(story.added.length);
    }
    expect(returns).toBeGreaterThan(200);
  });

  it('lets those away return before any that never ran, and only as blocks allow', () => {
    const batcher = new Batcher({ slots: 3, batchTokensMax: 64, kvBlocks: 6 });
    const [a, b, c, d] = [sequence(1, 20, 5), sequence(2, 20, 5), sequence(3, 20, 5), sequence(4, 20, 5)];
    for (const each of [a, b, c, d]) batcher.add(each);
    batcher.plan();
    batcher.limitBlocks(2);
    for (const each of [c, a, b]) batcher.sendAway(each);
    expect(batcher.away).toEqual([a, b, c]);
    expect(batcher.plan()).toEqual([]);
    const isReady = (each: Sequence): boolean => each !== a;
    expect(batcher.takeBack(isReady)).toEqual([b]);
    expect(batcher.takeBack(() => true)).toEqual([]);
    batcher.limitBlocks(Infinity);
    expect(batcher.takeBack(() => true)).toEqual([a, c]);
    expect(batcher.running).toEqual([a, b, c]);
    expect(() => batcher.sendAway(d)).toThrow('does not run');
    batcher.finish(a, 'abort');
    batcher.plan();
    expect(batcher.running).toEqual([b, c, d]);
  });

  it('holds its invariants through random arrivals, aborts and ends, and starves nobody', () => {
    let longest = 0;
    for (let seed = 600; seed < 700; seed++) {
      const story = new Story(new Random(seed), `seed ${seed}`);
      for (let event = 0; event < 150; event++) {
        const dice = story.random.uniform();
        if (dice < 0.25) story.add();
        else if (dice < 0.3) story.abort();
        else if (dice < 0.7) story.plan();
        else story.answer();
      }
      longest = Math.max(longest, story.added.length);
      story.drain();
      expect(story.finished.size, `seed ${seed}`).toBe(story.added.length);
    }
    expect(longest).toBeGreaterThan(25);
  });

  it('takes decode rows first and fills the rest with the oldest prompts', () => {
    const batcher = new Batcher({ slots: 3, batchTokensMax: 10, kvBlocks: 30 });
    const [a, b, c] = [sequence(1, 2, 5), sequence(2, 12, 5), sequence(3, 4, 5)];
    for (const each of [a, b, c]) batcher.add(each);
    const shape = (entries: readonly BatchEntry[]) =>
      entries.map(({ sequence: each, start, count, samples }) => [each.request.id, start, count, samples]);
    expect(shape(batcher.plan())).toEqual([
      [1, 0, 2, true],
      [2, 0, 8, false],
    ]);
    expect(shape(batcher.plan())).toEqual([
      [1, 2, 1, true],
      [2, 8, 4, true],
      [3, 0, 4, true],
    ]);
    expect(shape(batcher.plan())).toEqual([
      [1, 3, 1, true],
      [2, 12, 1, true],
      [3, 4, 1, true],
    ]);
  });

  it('reads tokens another engine generated again, without sampling them', () => {
    const batcher = new Batcher({ slots: 1, batchTokensMax: 4, kvBlocks: 4 });
    batcher.add(sequence(1, 3, 8, 4));
    const samples = Array.from({ length: 5 }, () => batcher.plan()).flatMap((entries) =>
      entries.map((entry) => [entry.start, entry.count, entry.samples]),
    );
    expect(samples).toEqual([
      [0, 4, false],
      [4, 3, true],
      [7, 1, true],
      [8, 1, true],
      [9, 1, true],
    ]);
    expect(batcher.plan()).toEqual([]);
  });

  it('refuses to end a sequence twice, or one it never had', () => {
    const batcher = new Batcher({ slots: 1, batchTokensMax: 1, kvBlocks: 1 });
    const one = sequence(1, 1, 1);
    batcher.add(one);
    batcher.finish(one, 'abort');
    expect(() => batcher.finish(one, 'abort')).toThrow('finished twice');
    expect(() => batcher.finish(sequence(2, 1, 1), 'abort')).toThrow('not in the batcher');
    expect(() => new Batcher({ slots: 2, batchTokensMax: 1, kvBlocks: 1 })).toThrow('a row for every slot');
  });
});

describe('KvBlocks', () => {
  it('hands out neighbours where it can', () => {
    const blocks = new KvBlocks(6);
    const [one, two] = [blocks.take(2), blocks.take(3)];
    expect([one, two]).toEqual([
      [4, 5],
      [1, 2, 3],
    ]);
    blocks.give(one);
    blocks.give(two);
    expect(blocks.take(6)).toEqual([0, 1, 2, 3, 4, 5]);
  });

  it('hands out each block once and takes back what it gave', () => {
    for (let seed = 700; seed < 720; seed++) {
      const random = new Random(seed);
      const blocks = new KvBlocks(random.int(1, 40));
      const held: number[][] = [];
      for (let event = 0; event < 200; event++) {
        const wanted = random.int(1, 8);
        if (random.uniform() < 0.5 && blocks.canTake(wanted)) held.push(blocks.take(wanted));
        else if (held.length > 0) blocks.give(at(held.splice(random.int(0, held.length - 1), 1), 0));
        const out = held.flat();
        expect(new Set(out).size, `seed ${seed}`).toBe(out.length);
        expect(out.length + blocks.freeCount, `seed ${seed}`).toBe(blocks.total);
      }
    }
  });

  it('refuses to give more than there is, and to take back more than it gave', () => {
    const blocks = new KvBlocks(2);
    expect(blocks.canTake(3)).toBe(false);
    expect(() => blocks.take(3)).toThrow('3 blocks wanted, 2 free');
    expect(() => blocks.give([0])).toThrow('more blocks given back');
  });
});
