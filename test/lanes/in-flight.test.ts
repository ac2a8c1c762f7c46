import { describe, expect, it } from 'vitest';
import type { DispatchOp, Op } from '#src/gpu/ops.js';
import { CostModel } from '#src/lanes/cost-model.js';
import { InFlight, learnFrom, type Slice } from '#src/lanes/in-flight.js';
import type { Resident } from '#src/lanes/resident.js';
import { at } from '#src/lib/assert.js';

const engine: Resident = {
  job: 'job',
  kind: 'engine',
  priority: 6,
  weight: 1,
  hasWork: false,
  next: () => null,
};
const trainer: Resident = { ...engine, kind: 'trainer', priority: 1 };
const op = { kind: 'dispatch', kernel: 'k', work: 1000 } as DispatchOp;

function slice(submittedMs: number, predictedUs: number, more: Partial<Slice> = {}): Slice {
  return {
    resident: engine,
    predictedUs,
    submittedMs,
    dispatches: [op, op],
    timed: false,
    longest: null,
    ...more,
  };
}

describe('InFlight', () => {
  it('takes out a slice with all before it, since the device may tell of a later one first', () => {
    const inFlight = new InFlight();
    const slices = [slice(1, 10), slice(2, 20), slice(3, 30)];
    for (const each of slices) inFlight.add(each);
    expect(inFlight.predictedUs).toBe(60);
    expect(inFlight.finish(at(slices, 1), 9).map(({ slice: each }) => each)).toEqual(slices.slice(0, 2));
    expect(inFlight.finish(at(slices, 0), 9.1)).toEqual([]);
    expect(inFlight.count).toBe(1);
    expect(inFlight.predictedUs).toBe(30);
    expect(inFlight.finish(at(slices, 2), 10)).toEqual([{ slice: slices[2], startedMs: 9 }]);
  });

  it('lets a slice begin when it is submitted and the one before it has ended', () => {
    const inFlight = new InFlight();
    const slices = [slice(1, 2000), slice(2, 2000), slice(20, 2000)];
    for (const each of slices) inFlight.add(each);
    expect(inFlight.nextDoneMs(1.5)).toBeCloseTo(1.5);
    const starts = [4, 6, 25].flatMap((ms, i) => inFlight.finish(at(slices, i), ms));
    expect(starts.map(({ startedMs }) => startedMs)).toEqual([1, 4, 20]);
    expect(inFlight.nextDoneMs(30)).toBe(0);
  });

  it('tells how long the device still needs, and takes one that is late to stay late as long again', () => {
    const inFlight = new InFlight();
    expect(inFlight.remainingUs(7)).toBe(0);
    for (const each of [slice(0, 1000), slice(0, 500)]) inFlight.add(each);
    expect(inFlight.remainingUs(0)).toBe(1500);
    expect(inFlight.remainingUs(0.4)).toBeCloseTo(1100);
    expect(inFlight.remainingUs(1)).toBeCloseTo(500);
    expect(inFlight.remainingUs(5)).toBeCloseTo(4500);
  });

  it('knows the last slice of each resident', () => {
    const inFlight = new InFlight();
    const [first, second, other] = [slice(1, 1), slice(2, 1), slice(3, 1, { resident: trainer })];
    for (const each of [first, second, other]) inFlight.add(each);
    expect(inFlight.lastOf(engine)).toBe(second);
    expect(inFlight.lastOf(trainer)).toBe(other);
    inFlight.finish(second, 5);
    expect(inFlight.lastOf(engine)).toBeNull();
  });
});

describe('what the cost model learns', () => {
  const scaleAfter = (teach: (cost: CostModel) => void): number => {
    const cost = new CostModel(2000);
    for (let i = 0; i < 3; i++) cost.observe(op, 100);
    teach(cost);
    return cost.predictUs(op, 'engine of job') / 100;
  };

  it('comes from all slices found done at once together, not from each', () => {
    const both = [
      { slice: slice(0, 1000), startedMs: 0 },
      { slice: slice(0, 1000), startedMs: 2 },
    ];
    expect(scaleAfter((cost) => learnFrom(both, 2, cost, false))).toBeCloseTo(1, 10);
    expect(scaleAfter((cost) => learnFrom(both, 4, cost, false))).toBeGreaterThan(1.05);
    // The device's clock knows better.
    expect(scaleAfter((cost) => learnFrom(both, 4, cost, true))).toBe(1);
  });

  it('does not come from slices timed dispatch by dispatch', () => {
    const timed = [{ slice: slice(0, 1000, { timed: true }), startedMs: 0 }];
    expect(scaleAfter((cost) => learnFrom(timed, 4, cost, false))).toBe(1);
  });

  it('keeps copies apart: their time says nothing about dispatches, nor the other way round', () => {
    const cost = new CostModel(2000);
    for (let i = 0; i < 3; i++) cost.observe(op, 100);
    const copy = { kind: 'copy', bytes: 2_000_000 } as Op;
    const before = cost.predictUs(copy);
    const copies = { slice: slice(0, before, { dispatches: [] }), startedMs: 0 };
    for (let i = 0; i < 60; i++) {
      const predictedUs = cost.predictUs(copy);
      learnFrom(
        [{ slice: slice(0, predictedUs, { dispatches: [] }), startedMs: 0 }],
        (5 * before) / 1000,
        cost,
        true,
      );
    }
    // What the host may have seen late is not believed.
    expect(cost.predictUs(copy) / before).toBeGreaterThan(4.6);
    expect(cost.predictUs(copy) / before).toBeLessThanOrEqual(5);
    expect(cost.predictUs(op)).toBe(100);
    learnFrom([copies, { slice: slice(0, 1000), startedMs: 1 }], 90, cost, true);
    expect(cost.predictUs(op)).toBe(100);
  });

  it("comes from the host's clock, a new kernel at a time, where the device has no timestamps", () => {
    const cost = new CostModel(2000);
    const alone = [{ slice: slice(0, 10, { dispatches: [op] }), startedMs: 0 }];
    for (let i = 0; i < 2; i++) learnFrom(alone, 0.7, cost, false);
    expect(cost.isNew(op)).toBe(false);
    expect(cost.predictUs(op)).toBe(700);
  });
});
