import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { Random } from '#src/lib/prng.js';
import { SimClock, Timer } from '#src/sim/clock.js';
import { type Distribution, draw, largest, loaded } from '#src/sim/distribution.js';
import { evenly } from '#src/sim/engines.js';
import { LatencyHistogram } from '#src/sim/latency.js';
import { simJobSchema } from '#src/sim/tables.js';

describe('distributions', () => {
  it('have the median, the bounds and the values they say', () => {
    const random = new Random(5);
    const draws = (distribution: Distribution) =>
      Array.from({ length: 4001 }, () => draw(distribution, random)).sort((a, b) => a - b);
    const lognormal = draws({ kind: 'lognormal', median: 100, sigma: 1, max: 900 });
    // The median of 4,001 draws is within 5 % of the true one but for one seed in a thousand.
    expect(Math.abs((lognormal[2000] ?? 0) / 100 - 1)).toBeLessThan(0.06);
    expect(lognormal.at(-1)).toBe(900);
    const uniform = draws({ kind: 'uniform', low: 2, high: 4 });
    expect(uniform[0]).toBeGreaterThanOrEqual(2);
    expect(uniform.at(-1)).toBeLessThan(4);
    expect(new Set(draws([1, 5, 9]))).toEqual(new Set([1, 5, 9]));
    expect(draw(7, random)).toBe(7);
    expect([7, [1, 9, 5], { kind: 'uniform', low: 2, high: 4 } as const].map(largest)).toEqual([7, 9, 4]);
  });

  it('are read from a trace, with the line that is wrong', () => {
    const folder = mkdtempSync(join(tmpdir(), 'offbeat-sim-'));
    try {
      writeFileSync(join(folder, 'waits.jsonl'), '{"ms": 5}\n{"ms": 12.5}\n\n');
      expect(loaded({ kind: 'trace', file: 'waits.jsonl', field: 'ms' }, folder)).toEqual([5, 12.5]);
      expect(() => loaded({ kind: 'trace', file: 'waits.jsonl', field: 's' }, folder)).toThrow(
        'waits.jsonl:1: s is missing, must be a number from 0',
      );
      expect(() => loaded({ kind: 'trace', file: 'none.jsonl', field: 's' }, folder)).toThrow('none.jsonl');
    } finally {
      rmSync(folder, { recursive: true });
    }
  });

  it('are what a job in a scenario may write', () => {
    const written = simJobSchema.parse({
      completion_tokens: { kind: 'lognormal', median: 300, sigma: 0.8, max: 4000 },
      turns: [1, 2, 8],
    });
    expect(written).toMatchObject({ turns: [1, 2, 8] });
    expect(simJobSchema.safeParse({ turns: -1 }).success).toBe(false);
    expect(simJobSchema.safeParse({ completion_tokens: { kind: 'lognormal', median: 3 } }).success).toBe(
      false,
    );
  });
});

describe('SimClock', () => {
  it('calls by time, the world before the scheduler, then as set; a timer moves and can be taken back', () => {
    const clock = new SimClock();
    const calls: string[] = [];
    const timer = (name: string, rank: 'world' | 'scheduler' = 'world') =>
      new Timer(rank, () => calls.push(name));
    const moved = timer('moved');
    const gone = timer('gone');
    clock.set(timer('scheduler', 'scheduler'), 5);
    clock.set(moved, 1);
    clock.set(timer('first'), 5);
    clock.set(timer('second'), 5);
    clock.set(gone, 4);
    clock.set(moved, 7);
    clock.set(gone, Infinity);
    while (clock.step(6));
    expect(calls).toEqual(['first', 'second', 'scheduler']);
    expect(clock.nowMs).toBe(6);
    expect(clock.step(100)).toBe(true);
    expect(calls.at(-1)).toBe('moved');
    expect(() => clock.set(gone, 3)).toThrow('a timer was set for 3 ms at 7 ms');
  });

  it('is in order after any settings', () => {
    for (let seed = 1; seed <= 20; seed++) {
      const random = new Random(seed);
      const clock = new SimClock();
      const fired: number[] = [];
      const timers = Array.from({ length: 200 }, () => new Timer('world', () => fired.push(clock.nowMs)));
      for (let i = 0; i < 1000; i++) {
        const isGone = random.int(0, 4) === 0;
        clock.set(random.pick(timers), isGone ? Infinity : random.int(0, 50));
      }
      const due = timers.filter((timer) => timer.isSet).map(({ key }) => key);
      while (clock.step(Infinity));
      expect(fired, `seed ${seed}`).toEqual(due.sort((a, b) => a - b));
    }
  });
});

describe('evenly', () => {
  it('comes to what giving one by one to the roomiest comes to', () => {
    for (let seed = 1; seed <= 200; seed++) {
      const random = new Random(seed);
      const rooms = Array.from({ length: random.int(1, 6) }, () => random.int(0, 9));
      const count = random.int(0, 40);
      const left = [...rooms];
      for (let i = 0; i < count && Math.max(...left) > 0; i++) {
        const best = left.indexOf(Math.max(...left));
        left[best] = (left[best] ?? 0) - 1;
      }
      const shares = evenly(rooms, count);
      expect(shares, `seed ${seed}`).toEqual(rooms.map((room, i) => room - (left[i] ?? 0)));
    }
  });
});

describe('LatencyHistogram', () => {
  it('gives quantiles at most a bin too large', () => {
    const histogram = new LatencyHistogram();
    expect(histogram.quantile(0.5)).toBeNull();
    histogram.add(10, 99);
    histogram.add(500, 1);
    for (const [q, ms] of [
      [0.5, 10],
      [0.99, 10],
      [1, 500],
    ] as const) {
      const told = histogram.quantile(q) ?? 0;
      expect(told).toBeGreaterThanOrEqual(ms * (1 - 1e-9));
      expect(told).toBeLessThan(ms * 1.05);
    }
  });
});
