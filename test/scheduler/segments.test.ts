import { describe, expect, it } from 'vitest';
import { alignedSegmentUs, evenSegments } from '#src/scheduler/segments.js';

const BOUNDS = { minUs: 200, maxUs: 20_000 };

describe('a segment', () => {
  it.each([
    [[2.5, 25], 2500],
    [[25, 2.5, 7], 2500],
    [[0.7301], 731],
    [[0.01, 25], 200],
    [[90, 40], 20_000],
  ])('for steps of %j ms is %i µs', (stepsMs, us) => {
    expect(alignedSegmentUs(stepsMs, BOUNDS)).toBe(us);
  });

  it('needs a step', () => {
    expect(() => alignedSegmentUs([], BOUNDS)).toThrow('no step');
  });
});

describe('work in even segments', () => {
  it.each([
    [2, 2.5, 1, 2],
    [2.5, 2.5, 1, 2.5],
    [2.6, 2.5, 2, 1.3],
    [25, 2.5, 10, 2.5],
    [26, 2.5, 11, 26 / 11],
    [0, 2.5, 1, 0],
  ])('of %d ms, cut at %d ms, is %i of %d ms', (work, segment, count, length) => {
    expect(evenSegments(work, segment)).toEqual({ count, length });
  });
});
