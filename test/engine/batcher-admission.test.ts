import { describe, expect, it } from 'vitest';
import type { Admission } from '#src/engine/admission.js';
import { Batcher, type BatchEntry } from '#src/engine/batcher.js';
import { noTokens, Sequence } from '#src/engine/sequence.js';
import { BLOCK_TOKENS, blocksFor } from '#src/kernels/kv-cache.js';
import { assert } from '#src/lib/assert.js';
import { Random } from '#src/lib/prng.js';

const BLOCKS = 20;
const TOKENS_MAX = 5 * BLOCK_TOKENS;

function sequence(id: number, promptTokens: number, tokensMax: number): Sequence {
  return new Sequence({
    id,
    promptTokenIds: new Array<number>(promptTokens).fill(0),
    generated: noTokens(),
    tokensMax,
    sampling: { temperature: 1, topK: 0, topP: 1, minP: 0 },
    key: [0, 0],
    stopTokenIds: [],
  });
}

/** A batcher whose device answers at once: every draw has its token in the next step, and every cache is dropped. */
class Engine {
  readonly batcher = new Batcher({ slots: 16, kvBlocks: BLOCKS, batchTokensMax: 64 });
  evictions = 0;
  ended = 0;
  /** Most blocks in use after any step, and most sequences with blocks. */
  blocksPeak = 0;
  residentsPeak = 0;

  constructor(admission: Admission | null) {
    this.batcher.limitAdmission(admission, blocksFor(TOKENS_MAX));
  }

  step(): BatchEntry[] {
    const { batcher } = this;
    for (const each of batcher.takeBack(() => true)) each.resume();
    const entries = batcher.plan();
    this.evictions += batcher.takeEvictions();
    this.blocksPeak = Math.max(this.blocksPeak, BLOCKS - batcher.freeBlocks);
    this.residentsPeak = Math.max(this.residentsPeak, batcher.running.length);
    for (const { sequence: each, start, count, samples } of entries) {
      assert(each.blocks.length >= blocksFor(start + count), 'a row without a block');
      if (!samples) continue;
      each.drawsInFlight--;
      each.generated.tokenIds.push(0);
      if (!each.isFull) continue;
      batcher.finish(each, 'length');
      this.ended++;
    }
    return entries;
  }

  /** Runs until all have ended; how many steps that takes is bounded by what all of them need one by one, repeated. */
  drain(sequences: readonly Sequence[], label: string): number {
    for (const each of sequences) this.batcher.add(each);
    const stepsMax = sequences.length * (TOKENS_MAX + 1) * 4;
    let steps = 0;
    for (; this.ended < sequences.length; steps++) {
      assert(steps < stepsMax, `${label}: ${sequences.length - this.ended} starve`);
      this.step();
    }
    assert(this.batcher.freeBlocks === BLOCKS, `${label}: blocks are missing at the end`);
    return steps;
  }
}

/** Most are short, some as long as can be. */
function longTail(random: Random): Sequence[] {
  return Array.from({ length: 40 }, (_, index) => {
    const promptTokens = random.int(2, 12);
    const most = TOKENS_MAX - promptTokens;
    return sequence(index + 1, promptTokens, random.uniform() < 0.2 ? most : random.int(1, 20));
  });
}

const rule = (segments: Admission['segments'], blocks = BLOCKS): Admission => ({
  kvTokensMax: blocks * BLOCK_TOKENS,
  segments,
});
const CAPPED = [
  { fromTokens: 0, sequencesMax: 4 },
  { fromTokens: 16, sequencesMax: 1 },
  { fromTokens: 48, sequencesMax: 1 },
];

describe('Batcher under a rule of admission', () => {
  it('ends every sequence within the budget, however tight', () => {
    for (let seed = 900; seed < 920; seed++) {
      const blocks = new Random(seed).int(5, BLOCKS);
      for (const segments of [[], CAPPED]) {
        const engine = new Engine(rule(segments, blocks));
        engine.drain(longTail(new Random(seed)), `seed ${seed}, ${segments.length} segments`);
        expect(engine.blocksPeak, `seed ${seed}`).toBeLessThanOrEqual(blocks);
      }
    }
  });

  it('evicts far less with segments than without', () => {
    let [evictedFreely, evictedCapped] = [0, 0];
    for (let seed = 920; seed < 940; seed++) {
      const free = new Engine(rule([]));
      const capped = new Engine(rule(CAPPED));
      free.drain(longTail(new Random(seed)), `seed ${seed}, free`);
      capped.drain(longTail(new Random(seed)), `seed ${seed}, capped`);
      evictedFreely += free.evictions;
      evictedCapped += capped.evictions;
    }
    expect(evictedFreely).toBeGreaterThan(200);
    expect(evictedCapped * 10).toBeLessThan(evictedFreely);
  });

  it('admits more at once than when each takes all it may need', () => {
    const random = new Random(941);
    const reserved = new Engine(null);
    const capped = new Engine(rule(CAPPED));
    const sequences = Array.from({ length: 20 }, () => random.int(2, 12));
    const make = (): Sequence[] => sequences.map((prompt, index) => sequence(index + 1, prompt, 60));
    reserved.drain(make(), 'reserved');
    capped.drain(make(), 'capped');
    expect(reserved.evictions).toBe(0);
    expect(capped.residentsPeak).toBeGreaterThan(reserved.residentsPeak);
  });

  it('evicts whoever was admitted last, and lets it return before any that never ran', () => {
    const engine = new Engine(rule([], 5));
    const [a, b, c] = [sequence(1, 14, 60), sequence(2, 14, 40), sequence(3, 14, 2)];
    for (const each of [a, b, c]) engine.batcher.add(each);
    while (engine.evictions === 0) engine.step();
    const { running, away } = engine.batcher;
    expect(running[0]).toBe(a);
    expect(away).toHaveLength(1);
    expect(away[0]?.nextPosition).toBe(0);
    const [victim] = away;
    while (victim !== undefined && victim.slot < 0 && engine.ended < 2) engine.step();
    expect(victim === b || victim === c).toBe(true);
  });

  it('lets those go on that a rule taken back has left without all their blocks', () => {
    for (let seed = 950; seed < 970; seed++) {
      const random = new Random(seed);
      const engine = new Engine(rule([]));
      const sequences = longTail(random);
      const turns = [rule(CAPPED), null, rule([], 8), null];
      let step = 0;
      for (const each of sequences) engine.batcher.add(each);
      for (; engine.ended < sequences.length && step < 20_000; step++) {
        if (step % 7 === 0) engine.batcher.limitAdmission(random.pick(turns), blocksFor(TOKENS_MAX));
        engine.step();
      }
      expect(engine.ended, `seed ${seed}`).toBe(sequences.length);
      expect(engine.batcher.freeBlocks, `seed ${seed}`).toBe(BLOCKS);
    }
  });
});
