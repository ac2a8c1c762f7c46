import { expect, test } from 'vitest';
import {
  budgetText,
  cellName,
  DEFAULT_BUDGETS,
  defaultCell,
  obeyedShareOf,
  usText,
} from '#src/bench/preempt/report/cells.js';
import type { PreemptCell } from '#src/bench/preempt/result.js';
import { runSchema } from '#src/run/config-schema.js';
import { emptyCell, syntheticResult } from './synthetic.js';

const { cells } = syntheticResult({ seed: 1, n: 40 });

test('the default budgets are those of a run that says nothing of them', () => {
  const { lanes } = runSchema.parse({ model: { path: 'some/model' } });
  expect(DEFAULT_BUDGETS).toEqual({
    sliceUs: lanes.slice_budget_us,
    inFlightUs: lanes.in_flight_budget_us,
  });
});

test('the default cell is held, has no hint and the nearest budgets', () => {
  const nameOf = (some: readonly PreemptCell[]): string | null => {
    const cell = defaultCell(some);
    return cell === null ? null : cellName(cell);
  };
  expect(nameOf(cells)).toBe('held 4 ms / 8 ms');
  expect(nameOf(cells.toReversed())).toBe('held 4 ms / 8 ms');
  const others = cells.filter(({ slice_budget_us: us }) => us !== 4000);
  expect(nameOf(others)).toMatch(/^held (500 µs|16 ms) \/ 8 ms$/);
  expect(nameOf(cells.filter(({ mode, hint }) => mode !== 'held' || hint))).toBeNull();
  expect(nameOf(cells.map(emptyCell))).toBeNull();
});

test('every cell has a name of its own, with what tells it apart', () => {
  const names = cells.map(cellName);
  expect(new Set(names).size).toBe(cells.length);
  expect(names).toContain('held 500 µs / 1 ms, hint');
  expect(names).toContain('one slice 4 ms');
  expect(names).toContain('abort and retry');
});

test('the law is counted over the cells that claim it only', () => {
  const lawful = cells.filter(({ bound_ms }) => bound_ms !== null);
  const over = lawful.reduce((sum, cell) => sum + cell.law_violations, 0);
  expect(obeyedShareOf(cells)).toBeCloseTo(1 - over / (40 * lawful.length), 12);
  expect(obeyedShareOf(cells.filter(({ mode }) => mode === 'drain'))).toBeNull();
});

test('budgets and short times have their units', () => {
  expect([0.5, 640, 2000, 12_345].map(usText)).toEqual(['0.5 µs', '640 µs', '2 ms', '12.3 ms']);
  expect([null, NaN].map(usText)).toEqual(['–', '–']);
  expect([null, 0, 500].map((us) => budgetText(us))).toEqual(['unlimited', '0', '500 µs']);
});
