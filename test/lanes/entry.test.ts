import { describe, expect, it } from 'vitest';
import type { Op, Program } from '#src/gpu/ops.js';
import { Entry } from '#src/lanes/entry.js';
import type { Resident } from '#src/lanes/resident.js';

const op = { kind: 'dispatch' } as Op;

/** A resident whose programs have so many ops, one after the other. */
function entryOf(...programs: number[]): Entry {
  const next = (): Program | null => {
    const ops = programs.shift();
    return ops === undefined ? null : (Array.from({ length: ops }, () => op).values() as unknown as Program);
  };
  const resident: Resident = { job: 'job', kind: 'engine', priority: 6, weight: 1, hasWork: true, next };
  return new Entry(resident);
}

/** Takes the whole program, each op predicted to take `us`; gives the length of each slice in ops. */
function slices(entry: Entry, us: number, sliceUs: number): number[] {
  const lengths: number[] = [];
  expect(entry.begin()).toBe(true);
  while (entry.peek() !== null) {
    const wantedUs = entry.evenUs(sliceUs);
    let ops = 0;
    do {
      entry.take(us);
      ops++;
    } while (entry.peek() !== null && (ops + 1) * us <= wantedUs + 1e-6);
    lengths.push(ops);
  }
  return lengths;
}

describe('a program cut into slices', () => {
  it('is cut at the budget the first time, and evenly once its length is known', () => {
    const entry = entryOf(30, 30, 30);
    expect(slices(entry, 100, 1400)).toEqual([14, 14, 2]);
    expect(slices(entry, 100, 1400)).toEqual([10, 10, 10]);
    expect(slices(entry, 100, 5000)).toEqual([30]);
  });

  it('goes back to the budget where it is longer than the one before', () => {
    const entry = entryOf(10, 25);
    expect(slices(entry, 100, Infinity)).toEqual([10]);
    expect(slices(entry, 100, 700)).toEqual([5, 5, 7, 7, 1]);
  });
});
