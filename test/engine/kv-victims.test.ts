import { describe, expect, it } from 'vitest';
import {
  blocksMaxOf,
  chooseVictims,
  type Candidate,
  URGENCIES,
  type Urgency,
} from '#src/engine/kv-victims.js';
import type { Prices } from '#src/engine/kv-costs.js';
import { Random } from '#src/lib/prng.js';

const ROW_BYTES = 100;
/** Moving a row's bytes both ways takes 1 ms, computing it 2. */
const MOVING_IS_CHEAP: Prices = { moveMs: (bytes) => bytes / ROW_BYTES, recomputeMs: (rows) => rows * 2 };
const MOVING_IS_DEAR: Prices = { moveMs: (bytes) => bytes / ROW_BYTES, recomputeMs: (rows) => rows / 2 };

interface Named extends Candidate {
  readonly name: string;
}

function named(name: string, blocks: number, rows: number, urgency: Urgency = 2): Named {
  return { name, urgency, blocks, rows, bytes: rows * ROW_BYTES };
}

function names(list: readonly Named[]): string {
  return list.map(({ name }) => name).join('');
}

/** All ways to take some of a list. */
function subsets<T>(items: readonly T[]): T[][] {
  return items.reduce<T[][]>((sets, item) => [...sets, ...sets.map((set) => [...set, item])], [[]]);
}

function blocksOf(list: readonly Candidate[]): number {
  return list.reduce((sum, { blocks }) => sum + blocks, 0);
}

describe('chooseVictims', () => {
  const all = [named('a', 4, 40), named('b', 2, 9), named('c', 3, 0), named('d', 1, 16)];

  it('holds all, spills all or drops all when told to; those with nothing to lose just leave', () => {
    const lists = (kind: 'held' | 'spilled' | 'dropped', bytes = Infinity): string[] => {
      const { unburdened, spilled, dropped } = chooseVictims(all, { kind }, bytes, MOVING_IS_DEAR);
      return [names(unburdened), names(spilled), names(dropped)];
    };
    expect(lists('held')).toEqual(['', '', '']);
    expect(lists('spilled')).toEqual(['c', 'abd', '']);
    expect(lists('dropped')).toEqual(['c', '', 'abd']);
  });

  it('spills what saves most while there is room, and drops the rest', () => {
    const spill = (bytes: number): string[] => {
      const { spilled, dropped } = chooseVictims(all, { kind: 'spilled' }, bytes, MOVING_IS_CHEAP);
      return [names(spilled), names(dropped)];
    };
    expect(spill(6500)).toEqual(['abd', '']);
    expect(spill(6499)).toEqual(['ad', 'b']);
    expect(spill(5599)).toEqual(['ab', 'd']);
    expect(spill(3999)).toEqual(['bd', 'a']);
    expect(spill(0)).toEqual(['', 'abd']);
  });

  it('goes the cheaper way under pressure, each sequence for itself', () => {
    const pressure = { kind: 'pressure', blocksMax: 0 } as const;
    expect(names(chooseVictims(all, pressure, Infinity, MOVING_IS_CHEAP).spilled)).toBe('abd');
    expect(names(chooseVictims(all, pressure, Infinity, MOVING_IS_DEAR).dropped)).toBe('abd');
    // Blocks move whole: for one that has just begun its last block, computing again is cheaper.
    const mixed = [
      { ...named('long', 3, 40), bytes: 6000 },
      { ...named('short', 1, 1), bytes: 1600 },
    ];
    const { spilled, dropped } = chooseVictims(mixed, pressure, Infinity, MOVING_IS_CHEAP);
    expect([names(spilled), names(dropped)]).toEqual(['long', 'short']);
  });

  it('lets those with nothing to lose go first, then one long one rather than two short ones', () => {
    const leave = (blocksMax: number): string => {
      const { unburdened, spilled } = chooseVictims(
        all,
        { kind: 'pressure', blocksMax },
        1e9,
        MOVING_IS_CHEAP,
      );
      return `${names(unburdened)} ${names(spilled)}`;
    };
    expect(leave(10)).toBe(' ');
    expect(leave(9)).toBe('c ');
    expect(leave(7)).toBe('c ');
    expect(leave(6)).toBe('c b');
    expect(leave(4)).toBe('c a');
    expect(leave(2)).toBe('c ab');
    expect(leave(0)).toBe('c abd');
  });

  it('spares the older of two that cost the same', () => {
    const equal = [named('a', 2, 8), named('b', 2, 8), named('c', 2, 8)];
    const leave = (blocksMax: number): string =>
      names(chooseVictims(equal, { kind: 'pressure', blocksMax }, 1e9, MOVING_IS_CHEAP).spilled);
    expect([leave(4), leave(2), leave(0)]).toEqual(['c', 'bc', 'abc']);
  });

  it('takes nothing from who is more urgent while the less urgent can make up for it', () => {
    const mixed = [named('a', 4, 60), named('b', 2, 20, 0), named('c', 3, 40, 1), named('d', 1, 8, 0)];
    const leave = (blocksMax: number): string =>
      names(chooseVictims(mixed, { kind: 'pressure', blocksMax }, 1e9, MOVING_IS_CHEAP).spilled);
    expect([9, 8, 7, 6, 4, 3, 0].map(leave)).toEqual(['d', 'b', 'bd', 'bcd', 'bcd', 'abcd', 'abcd']);
    for (let seed = 1010; seed < 1060; seed++) {
      const random = new Random(seed);
      const candidates = Array.from({ length: random.int(1, 9) }, (_, i) =>
        named(`${i}`, random.int(1, 6), random.int(1, 90), random.pick(URGENCIES)),
      );
      const kv = { kind: 'pressure', blocksMax: random.int(0, 20) } as const;
      const { spilled, dropped } = chooseVictims(candidates, kv, 1e9, MOVING_IS_CHEAP);
      const victims = new Set([...spilled, ...dropped]);
      const label = `seed ${seed}`;
      const most = Math.max(-1, ...[...victims].map(({ urgency }) => urgency));
      const spared = candidates.filter((each) => !victims.has(each));
      for (const each of spared) expect(each.urgency, label).toBeGreaterThanOrEqual(most);
      expect(blocksOf(spared), label).toBeLessThanOrEqual(kv.blocksMax);
    }
  });

  it('frees enough, with as few as can be and nobody in vain, and stays within the room on the host', () => {
    let both = 0;
    for (let seed = 800; seed < 1000; seed++) {
      const random = new Random(seed);
      const candidates = Array.from({ length: random.int(0, 9) }, (_, i) =>
        named(`${i}`, random.int(1, 6), random.pick([0, random.int(1, 90)])),
      );
      const inUse = blocksOf(candidates);
      const blocksMax = random.int(0, 12);
      const spillBytes = random.int(0, 20_000);
      const prices: Prices = {
        moveMs: (bytes) => 20 + bytes / ROW_BYTES,
        recomputeMs: (rows) => rows * 1.5,
      };
      const kv = { kind: 'pressure', blocksMax } as const;
      const { unburdened, spilled, dropped } = chooseVictims(candidates, kv, spillBytes, prices);
      const label = `seed ${seed}`;
      const burdened = [...spilled, ...dropped];
      const victims = [...unburdened, ...burdened];
      expect(new Set(victims).size, label).toBe(victims.length);
      expect(inUse - blocksOf(victims), label).toBeLessThanOrEqual(blocksMax);
      for (const each of burdened)
        expect(inUse - blocksOf(victims) + each.blocks, label).toBeGreaterThan(blocksMax);
      const free = candidates.filter(({ rows }) => rows === 0);
      if (burdened.length > 0) expect(unburdened, label).toEqual(free);
      const fewest = subsets(candidates.filter(({ rows }) => rows > 0))
        .filter((set) => inUse - blocksOf(free) - blocksOf(set) <= blocksMax)
        .reduce((least, { length }) => Math.min(least, length), Infinity);
      expect(burdened.length, label).toBe(fewest);
      const bytes = spilled.reduce((sum, each) => sum + each.bytes, 0);
      expect(bytes, label).toBeLessThanOrEqual(spillBytes);
      for (const each of spilled)
        expect(prices.moveMs(each.bytes), label).toBeLessThan(prices.recomputeMs(each.rows));
      for (const each of dropped) {
        const wouldFit = bytes + each.bytes <= spillBytes;
        if (wouldFit)
          expect(prices.recomputeMs(each.rows), label).toBeLessThanOrEqual(prices.moveMs(each.bytes));
      }
      if (spilled.length > 0 && dropped.length > 0) both++;
    }
    expect(both).toBeGreaterThan(20);
  });

  it('is quick for the most slots an engine has', () => {
    const random = new Random(1000);
    const many = Array.from({ length: 512 }, (_, i) => named(`${i}`, random.int(1, 64), random.int(1, 1000)));
    const { spilled, dropped } = chooseVictims(
      many,
      { kind: 'pressure', blocksMax: 100 },
      1e9,
      MOVING_IS_CHEAP,
    );
    expect(spilled.length + dropped.length).toBeGreaterThan(400);
  });

  it('refuses a negative number of blocks', () => {
    const kv = { kind: 'pressure', blocksMax: -1 } as const;
    expect(() => chooseVictims([], kv, 0, MOVING_IS_CHEAP)).toThrow('-1 blocks may stay');
  });
});

describe('blocksMaxOf', () => {
  it('is what may stay in use', () => {
    expect(blocksMaxOf({ kind: 'held' })).toBe(Infinity);
    expect(blocksMaxOf({ kind: 'spilled' })).toBe(0);
    expect(blocksMaxOf({ kind: 'dropped' })).toBe(0);
    expect(blocksMaxOf({ kind: 'pressure', blocksMax: 7 })).toBe(7);
  });
});
