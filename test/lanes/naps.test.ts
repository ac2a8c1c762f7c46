import { describe, expect, it } from 'vitest';
import { Naps } from '#src/lanes/naps.js';

describe('Naps', () => {
  it('sleep through most of what is left, and never past the predicted end but for the shortest nap', () => {
    const naps = new Naps();
    for (const leftMs of [0.2, 1, 4, 30, 58]) {
      expect(naps.nextMs(leftMs)).toBeLessThan(leftMs);
      expect(naps.nextMs(leftMs)).toBeGreaterThan(leftMs / 2);
    }
    expect(naps.nextMs(100_000)).toBe(50);
    expect(naps.nextMs(0.01)).toBe(0.08);
  });

  it('look for a late device at once, then less and less often, and never seldom', () => {
    const naps = new Naps();
    let lateMs = 0;
    let looks = 0;
    while (lateMs < 300) {
      const nap = naps.nextMs(-lateMs);
      expect(nap).toBeLessThanOrEqual(Math.max(0.08, lateMs / 4));
      expect(nap).toBeLessThanOrEqual(4);
      lateMs += nap;
      looks++;
    }
    // A few hundredths of a millisecond each: far below 3 % of a core.
    expect(looks).toBeLessThan(120);
  });

  it('do not confirm a prediction that is too long', () => {
    // A slice takes 1 ms; what is seen is the first look after that, and the prediction follows what is seen.
    const naps = new Naps();
    let predictedMs = 40;
    let slices = 0;
    for (; predictedMs > 1.3; slices++) {
      let seenMs = 0;
      while (seenMs < 1) {
        const leftMs = predictedMs - seenMs;
        seenMs += naps.nextMs(leftMs);
        if (leftMs > 0) naps.looked(seenMs >= 1);
      }
      predictedMs += 0.15 * (seenMs - predictedMs);
      expect(slices).toBeLessThan(60);
    }
  });

  it('may go on past the end of a slice while others are queued behind it, and no further', () => {
    const naps = new Naps();
    expect(naps.nextMs(2, 0.5)).toBeCloseTo(2.5);
    expect(naps.nextMs(-0.3, 0.5)).toBeCloseTo(0.2);
    expect(naps.nextMs(-3, 0.5)).toBeCloseTo(2.5 / 4);
  });

  it('get long again when slices are as long as predicted', () => {
    const naps = new Naps();
    for (let i = 0; i < 20; i++) naps.looked(true);
    expect(naps.nextMs(10)).toBeCloseTo(3);
    for (let i = 0; i < 60; i++) naps.looked(false);
    expect(naps.nextMs(10)).toBeCloseTo(8.5);
  });
});
