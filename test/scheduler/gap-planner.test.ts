import { describe, expect, it } from 'vitest';
import { divide, type Claimant } from '#src/scheduler/policies/gap-planner.js';

const LANES = (count: number): number[] => Array.from({ length: count }, (_, lane) => lane);

/** A job on lanes 0 to `laneCount` - 1 with more rollouts than it can have slots, and no wish for leftovers. */
function claims(
  id: string,
  work: number,
  laneCount: number,
  parts: Record<number, number> = {},
  part: Partial<Claimant> = {},
): Claimant {
  const held = new Map(Object.entries(parts).map(([lane, count]) => [Number(lane), count]));
  const limits = { partsMax: 1000, partsPerLaneMax: 1000, runnable: 0, bytes: 0 };
  const lanes = { lanes: LANES(laneCount), liked: [...held.keys()] };
  return { id, work, ...lanes, parts: held, ...limits, slots: (count) => count, running: () => 0, ...part };
}

/** By claimant: its parts in all, or on which lanes they are. */
function divided(
  partsPerLane: number,
  laneCount: number,
  claimants: readonly Claimant[],
): { totals: number[]; lanes: number[][] } {
  const shares = divide({ partsPerLane, bytes: new Float64Array(laneCount).fill(100), claimants });
  return {
    totals: shares.map((parts) => [...parts.values()].reduce((sum, count) => sum + count, 0)),
    lanes: shares.map((parts) => [...parts.keys()].sort((a, b) => a - b)),
  };
}

describe("RLix's gap-ratio planner, by hand", () => {
  it('gives shares that come out even: 50, 30 and 20 of 10', () => {
    const claimants = [claims('a', 50, 10), claims('b', 30, 10), claims('c', 20, 10)];
    expect(divided(1, 10, claimants).totals).toEqual([5, 3, 2]);
  });

  it('rounds a target half up: 8.5 of 17 is 9, for the first in the gap order, and the other has the rest', () => {
    // Each part goes to whoever lacks more of its share, a before b on a tie: a, b, a, b, …, and the 17th to a.
    expect(divided(17, 1, [claims('a', 40, 1), claims('b', 40, 1)]).totals).toEqual([9, 8]);
    // 8.4 each for a and b is 8; 0.2 for c is the floor of one.
    expect(divided(17, 1, [claims('b', 42, 1), claims('a', 42, 1), claims('c', 1, 1)]).totals).toEqual([
      8, 8, 1,
    ]);
  });

  it('gives at least one part, before the others have theirs', () => {
    // Targets 3.96 → 4 and 0.04 → 1. The gaps over the targets are 1 and 1: a's gap is larger. Then 0.75 and 1: b.
    expect(divided(1, 4, [claims('a', 99, 4), claims('b', 1, 4)]).lanes).toEqual([[0, 2, 3], [1]]);
  });

  it('takes from whoever is above the target, as much as is above it', () => {
    // Targets 0.4 → 1 and 3.6 → 4; a has 4 and may give 3.
    const claimants = [claims('a', 10, 4, { 0: 1, 1: 1, 2: 1, 3: 1 }), claims('b', 90, 4)];
    expect(divided(1, 4, claimants).totals).toEqual([1, 3]);
  });

  it('takes nothing from one at its target, though another lacks a share', () => {
    // 8.5 each: a has its 9, so b stays at 8 with a gap of half a part.
    expect(divided(17, 1, [claims('a', 40, 1, { 0: 9 }), claims('b', 40, 1, { 0: 8 })]).totals).toEqual([
      9, 8,
    ]);
  });

  it('takes from the donor with most work left, which protects those who are nearly done', () => {
    // Targets 2.4 → 2, 0.8 → 1 and 0.8 → 1 of 4: a is at its own, b has one too many.
    const holding = [claims('a', 60, 4, { 0: 1, 1: 1 }), claims('b', 20, 4, { 2: 1, 3: 1 })];
    expect(divided(1, 4, [...holding, claims('c', 20, 4)]).lanes).toEqual([[0, 1], [3], [2]]);
    const both = [claims('a', 30, 6, { 0: 1, 1: 1, 2: 1 }), claims('b', 20, 6, { 3: 1, 4: 1, 5: 1 })];
    // Targets 1.8 → 2, 1.2 → 1 and 3 of 6: a gives one, then b two, in the order of their work.
    expect(divided(1, 6, [...both, claims('c', 50, 6)]).lanes).toEqual([[1, 2], [5], [0, 3, 4]]);
  });

  it('P3: takes of one donor the engine that runs least', () => {
    const running = (lane: number): number => [5, 4, 0, 7][lane] ?? 0;
    const donor = claims('a', 50, 4, { 0: 1, 1: 1, 2: 1, 3: 1 }, { running });
    expect(divided(1, 4, [donor, claims('b', 50, 4)]).lanes).toEqual([
      [0, 3],
      [1, 2],
    ]);
  });

  it('takes free parts first', () => {
    const claimants = [claims('a', 50, 4, { 0: 1, 1: 1, 2: 1 }), claims('b', 50, 4)];
    expect(divided(1, 4, claimants).lanes).toEqual([
      [1, 2],
      [0, 3],
    ]);
  });

  it('gives no more than can be filled, and what rounding leaves to those who can use it', () => {
    const few = claims('a', 90, 4, {}, { partsMax: 1 });
    expect(divided(1, 4, [few, claims('b', 10, 4)]).totals).toEqual([1, 1]);
    const many = claims('b', 10, 4, {}, { runnable: 100 });
    expect(divided(1, 4, [few, many]).totals).toEqual([1, 3]);
    // A third of 4 is 1.33 → 1 each, and one is left over.
    const thirds = ['a', 'b', 'c'].map((id) => claims(id, 10, 4, {}, { runnable: 100 }));
    expect(divided(1, 4, thirds).totals).toEqual([2, 1, 1]);
  });

  it('stays on lanes that are allowed and have the bytes', () => {
    const big = claims('a', 90, 2, {}, { bytes: 60, lanes: [0, 1] });
    const alike = claims('b', 10, 2, { 0: 1 }, { bytes: 60 });
    // Two parts a lane: b's one lies on lane 0, beside which 60 bytes more do not fit.
    expect(divided(2, 2, [big, alike]).lanes).toEqual([[1], [0]]);
    expect(divided(1, 3, [claims('a', 90, 3, {}, { lanes: [2] }), claims('b', 10, 3)]).lanes).toEqual([
      [2],
      [0],
    ]);
  });
});
