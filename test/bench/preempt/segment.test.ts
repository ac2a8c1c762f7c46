import { describe, expect, it } from 'vitest';
import { evenly, idleMs, reduceSegment } from '#src/bench/preempt/segment.js';
import { HELD, preemption, slice } from './fixtures.js';

describe('idle time', () => {
  it('is what passes before a slice of low priority with nothing on the device', () => {
    const slices = [
      slice('engine', 0, 2),
      slice('engine', 2, 4),
      slice('engine', 5, 6),
      slice('engine', 6.5, 7),
    ];
    expect(idleMs(slices)).toBeCloseTo(1.5, 12);
  });

  it('counts the way back from high priority, and not the time before and within it', () => {
    const slices = [
      slice('engine', 0, 2),
      slice('trainer', 3, 5),
      slice('trainer', 6, 8),
      slice('engine', 8.25, 9),
    ];
    expect(idleMs(slices)).toBeCloseTo(0.25, 12);
  });

  it('is none before the first slice', () => {
    expect(idleMs([slice('engine', 100, 101)])).toBe(0);
    expect(idleMs([])).toBe(0);
  });
});

describe('evenly', () => {
  it.each([0, 1, 7, 10, 11, 1000])('picks at most ten of %i, in order, the first among them', (length) => {
    const items = Array.from({ length }, (_, i) => i);
    const picked = evenly(items, 10);
    expect(picked).toHaveLength(Math.min(10, length));
    expect(picked).toEqual([...new Set(picked)].sort((a, b) => a - b));
    if (length > 0) expect(picked[0]).toBe(0);
    expect(evenly(items, 10_000)).toEqual(items);
  });
});

describe('reduceSegment', () => {
  it('keeps what is new: tokens less those thrown away, slices of low priority only', () => {
    const reduced = reduceSegment({
      plan: HELD,
      requests: [{ requestedMs: 10, answeredMs: 24, resumedMs: 26 }],
      records: { preemptions: [preemption(10)], undisturbed: [], hintIdleMs: 0.5 },
      slices: [slice('engine', 0, 4), slice('trainer', 4, 9), slice('engine', 10, 12)],
      slicesKeptMax: 10,
      wallMs: 40,
      counts: { tokens: 90, rows: 130, tokensDiscarded: 25, rowsDiscarded: 60 },
      cpuMs: 3,
    });
    expect(reduced).toMatchObject({
      tokens: 65,
      tokensDiscarded: 25,
      rows: 130,
      rowsDiscarded: 60,
      lowMs: 6,
      idleMs: 1,
      hintIdleMs: 0.5,
      unrecorded: 0,
      slices: [
        { predictedUs: 3600, realUs: 4000 },
        { predictedUs: 1800, realUs: 2000 },
      ],
    });
    expect(reduced.samples).toHaveLength(1);
  });
});
