import { describe, expect, it } from 'vitest';
import { Random } from '#src/lib/prng.js';
import { Dpf, type Claim } from '#src/scheduler/policies/dpf.js';

const idsOf = (claims: readonly Claim[]): string[] => claims.map((claim) => claim.id);

describe("DPF's worked example (Luo et al., OSDI 2021)", () => {
  const DEMANDS: Claim[] = [
    { id: 'P1', demand: { PB1: 0.5, PB2: 1.5 } },
    { id: 'P2', demand: { PB1: 1, PB2: 1 } },
    { id: 'P3', demand: { PB1: 1.5, PB2: 1 } },
  ];

  it('grants P2 at t = 2 and P1 at t = 3, and lets P3 wait', () => {
    // A fair share of 1: capacity 3, N = 3.
    let state = new Dpf().state;
    const setUp = new Dpf(state);
    setUp.addBlock('PB1', 3);
    setUp.addBlock('PB2', 3);
    state = setUp.state;
    const grants: string[][] = [];
    for (const claim of DEMANDS) {
      const dpf = new Dpf(state);
      dpf.arrive(claim);
      dpf.unlockByArrivals(3);
      grants.push(idsOf(dpf.allocate()));
      state = dpf.state;
    }
    expect(grants).toEqual([[], ['P2'], ['P1']]);
    expect(idsOf(state.waiting)).toEqual(['P3']);
    expect(state.blocks).toEqual({
      PB1: { capacity: 3, arrivals: 3, unlocked: 3, allocated: 1.5, consumed: 0 },
      PB2: { capacity: 3, arrivals: 3, unlocked: 3, allocated: 2.5, consumed: 0 },
    });
  });

  it('would order P3 before P1 by the dominant share alone: the second share decides', () => {
    const dpf = new Dpf();
    dpf.addBlock('PB1', 3);
    dpf.addBlock('PB2', 3);
    for (const index of [2, 0]) dpf.arrive(DEMANDS[index] ?? { id: '', demand: {} });
    dpf.unlockByTime(1);
    expect(idsOf(dpf.allocate())).toEqual(['P1', 'P3']);
  });
});

const CAPACITY = 1_000;
const MOUSE = 10;
const ELEPHANT = 100;

/** Three quarters mice, one quarter elephants, in an order drawn from the seed. */
function arrivals(seed: number, count: number): number[] {
  const random = new Random(seed);
  return Array.from({ length: count }, () => (random.int(0, 3) > 0 ? MOUSE : ELEPHANT));
}

function grantsUnder(
  n: number,
  sizes: readonly number[],
): { mice: number; elephants: number; granted: string[] } {
  const dpf = new Dpf();
  dpf.addBlock('block', CAPACITY);
  const granted: string[] = [];
  sizes.forEach((size, index) => {
    dpf.arrive({ id: `${index}:${size}`, demand: { block: size } });
    dpf.unlockByArrivals(n);
    for (const { id } of dpf.allocate()) {
      granted.push(id);
      dpf.settle(id, () => size);
    }
  });
  const elephants = granted.filter((id) => id.endsWith(`:${ELEPHANT}`)).length;
  return { mice: granted.length - elephants, elephants, granted };
}

/** Whoever comes gets what it asks for, until one does not fit: from there on everybody waits behind it. */
function firstComeFirstServed(sizes: readonly number[]): number {
  let left = CAPACITY;
  let granted = 0;
  for (const size of sizes) {
    if (size > left) break;
    left -= size;
    granted++;
  }
  return granted;
}

describe("DPF's mice and elephants: 75 % want 1 % of a block, 25 % want 10 %", () => {
  const SEEDS = Array.from({ length: 6 }, (_, seed) => seed);

  it('grants up to the 100 mice that a block can hold where first come, first served grants about 28', () => {
    const fcfs = SEEDS.map((seed) => firstComeFirstServed(arrivals(seed, 500)));
    const mean = fcfs.reduce((sum, count) => sum + count, 0) / SEEDS.length;
    expect(mean).toBeGreaterThan(24);
    expect(mean).toBeLessThan(34);
    for (const seed of SEEDS) {
      const { mice, elephants } = grantsUnder(500, arrivals(seed, 500));
      expect([mice, elephants], `seed ${seed}`).toEqual([100, 0]);
    }
  });

  it('grants no fewer the more slowly it unlocks, at the elephants’ cost', () => {
    for (const seed of SEEDS) {
      const sizes = arrivals(seed, 500);
      const [fast, slow] = [grantsUnder(1, sizes), grantsUnder(500, sizes)];
      expect(slow.granted.length, `seed ${seed}`).toBeGreaterThan(fast.granted.length);
      expect(fast.elephants, `seed ${seed}`).toBeGreaterThan(slow.elephants);
    }
  });

  it('grants the first N at once whatever comes with them, if they want a fair share at most', () => {
    for (const seed of SEEDS) {
      const n = 25;
      const random = new Random(seed);
      const dpf = new Dpf();
      dpf.addBlock('block', CAPACITY);
      for (let index = 0; index < n; index++) {
        const size = random.int(0, 1) === 0 ? ELEPHANT : random.int(1, CAPACITY / n);
        dpf.arrive({ id: `${index}`, demand: { block: size } });
        dpf.unlockByArrivals(n);
        const granted = idsOf(dpf.allocate());
        if (size <= CAPACITY / n) expect(granted, `seed ${seed}`).toContain(`${index}`);
      }
    }
  });
});

describe('a block', () => {
  it('never gives out more than is unlocked, over random claims, settlements and unlocks', () => {
    for (let seed = 0; seed < 20; seed++) {
      const random = new Random(seed);
      let dpf = new Dpf();
      for (const id of ['a', 'b', 'c']) dpf.addBlock(id, random.int(50, 200));
      for (let step = 0; step < 100; step++) {
        const draw = random.int(0, 3);
        if (draw === 0) {
          const blocks = ['a', 'b', 'c'].filter(() => random.int(0, 1) === 0);
          const demand = Object.fromEntries(
            (blocks.length > 0 ? blocks : ['a']).map((id) => [id, random.int(1, 30)]),
          );
          dpf.arrive({ id: `${step}`, demand });
        }
        if (draw === 1) dpf.unlockByTime(step / 100);
        if (draw === 2) dpf.allocate();
        const [first] = dpf.granted.keys();
        if (draw === 3 && first !== undefined) dpf.settle(first, () => random.int(0, 60));
        for (const { capacity, unlocked, allocated, consumed } of dpf.blocks.values()) {
          const text = `seed ${seed}, step ${step}`;
          expect(allocated + consumed, text).toBeLessThanOrEqual(unlocked);
          expect(unlocked, text).toBeLessThanOrEqual(capacity);
        }
        dpf = new Dpf(JSON.parse(JSON.stringify(dpf.state)) as typeof dpf.state);
      }
    }
  });

  it('gets back what a claim did not use, and pays for what it used beyond from what is free', () => {
    const dpf = new Dpf();
    dpf.addBlock('block', 100);
    dpf.arrive({ id: 'saver', demand: { block: 40 } });
    dpf.arrive({ id: 'spender', demand: { block: 40 } });
    dpf.unlockByTime(1);
    dpf.allocate();
    dpf.settle('saver', () => 10);
    expect(dpf.free('block')).toBe(50);
    dpf.settle('spender', () => 45);
    expect(dpf.free('block')).toBe(45);
  });

  it('is unlocked by time evenly, and never locked again', () => {
    const dpf = new Dpf();
    dpf.addBlock('block', 100);
    dpf.arrive({ id: 'claim', demand: { block: 30 } });
    dpf.unlockByTime(0.25);
    dpf.unlockByTime(0.1);
    expect(dpf.free('block')).toBe(25);
    expect(dpf.allocate()).toEqual([]);
    expect(dpf.shareNeeded({ id: 'claim', demand: { block: 30 } })).toBe(0.3);
    dpf.unlockByTime(0.3);
    expect(idsOf(dpf.allocate())).toEqual(['claim']);
  });

  it('lets one that does not fit block nobody', () => {
    const dpf = new Dpf();
    dpf.addBlock('small', 100);
    dpf.addBlock('big', 1000);
    dpf.arrive({ id: 'wide', demand: { small: 10, big: 10 } });
    dpf.arrive({ id: 'narrow', demand: { small: 90 } });
    dpf.unlockByTime(1);
    dpf.arrive({ id: 'more', demand: { small: 50, big: 1 } });
    expect(idsOf(dpf.allocate())).toEqual(['wide', 'more']);
    expect(idsOf(dpf.waiting)).toEqual(['narrow']);
  });
});
