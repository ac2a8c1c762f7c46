import { describe, expect, it } from 'vitest';
import {
  CELL_KINDS,
  cellPlans,
  claimsLaw,
  FULL_GRID,
  planText,
  QUICK_GRID,
  settingsOf,
} from '#src/bench/preempt/grid.js';

const texts = (grid: Parameters<typeof cellPlans>[0]) => cellPlans(grid).map(planText);

describe('the grid', () => {
  it('in full crosses all budgets, and has every baseline', () => {
    expect(texts(FULL_GRID)).toEqual([
      'held 500/1,000 µs',
      'held 500/2,000 µs',
      'held 500/8,000 µs',
      'held 1,000/1,000 µs',
      'held 1,000/2,000 µs',
      'held 1,000/8,000 µs',
      'held 4,000/1,000 µs',
      'held 4,000/2,000 µs',
      'held 4,000/8,000 µs',
      'held 500/1,000 µs, hint',
      'held 1,000/2,000 µs, hint',
      'held 4,000/8,000 µs, hint',
      'spilled 1,000/2,000 µs',
      'dropped 1,000/2,000 µs',
      'second-device ∞/∞ µs',
      'one-slice 1,000/0 µs',
      'drain ∞/0 µs',
      'abort-retry ∞/0 µs',
      'unlimited ∞/∞ µs',
      'no-preemption ∞/∞ µs',
    ]);
  });

  it('in a hurry is a few cells that never change', () => {
    expect(texts(QUICK_GRID)).toEqual([
      'held 1,000/2,000 µs',
      'held 4,000/8,000 µs',
      'held 4,000/8,000 µs, hint',
      'spilled 4,000/8,000 µs',
      'dropped 4,000/8,000 µs',
      'one-slice 4,000/0 µs',
      'drain ∞/0 µs',
      'abort-retry ∞/0 µs',
      'unlimited ∞/∞ µs',
      'no-preemption ∞/∞ µs',
    ]);
  });

  it('takes the smallest slice where none suits what may be in flight', () => {
    const grid = {
      ...QUICK_GRID,
      sliceBudgetsUs: [800, 900],
      inFlightBudgetsUs: [1000],
      kinds: ['held'] as const,
    };
    expect(texts(grid)).toEqual(['held 800/1,000 µs']);
  });

  it('has at least a cell of each kind, none twice', () => {
    for (const kind of CELL_KINDS)
      expect(cellPlans({ ...QUICK_GRID, kinds: [kind] }).length, kind).toBe(kind === 'held' ? 2 : 1);
    expect(new Set(texts(FULL_GRID)).size).toBe(texts(FULL_GRID).length);
  });
});

it('promises a law only where the lane bounds what is in flight and caches stay the lane’s', () => {
  const lawful = new Set(
    cellPlans(FULL_GRID)
      .filter(claimsLaw)
      .map(({ mode }) => mode),
  );
  expect(lawful).toEqual(new Set(['held', 'spilled', 'dropped']));
  for (const plan of cellPlans(FULL_GRID).filter(claimsLaw))
    expect(Number.isFinite(plan.inFlightUs)).toBe(true);
});

it('sets a lane as the cell says', () => {
  const settings = cellPlans(FULL_GRID).map((plan) => ({ plan, ...settingsOf(plan) }));
  for (const { plan, budgets, kvOnPreempt } of settings) {
    expect(budgets).toEqual({ sliceUs: plan.sliceUs, inFlightUs: plan.inFlightUs });
    const kept = plan.mode === 'spilled' || plan.mode === 'dropped' ? plan.mode : 'held';
    expect(kvOnPreempt).toEqual({ kind: kept });
  }
});
