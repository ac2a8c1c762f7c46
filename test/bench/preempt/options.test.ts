import { describe, expect, it } from 'vitest';
import { resolveBenchOptions, type BenchInput } from '#src/bench/preempt/options.js';
import { FULL_GRID, QUICK_GRID } from '#src/bench/preempt/grid.js';
import { UserError } from '#src/lib/errors.js';

const resolve = (input: Partial<BenchInput> = {}) => resolveBenchOptions({ model: 'm', ...input });

describe('options', () => {
  it('are the whole grid with a thousand preemptions a cell by default', () => {
    expect(resolve()).toEqual({
      model: 'm',
      adapter: null,
      seed: 1,
      preemptionsMax: 1000,
      wallMsMax: null,
      grid: FULL_GRID,
    });
    expect(resolve({ full: true }).preemptionsMax).toBe(10_000);
    expect(resolve({ n: 7, adapter: 'NVIDIA' })).toMatchObject({ preemptionsMax: 7, adapter: 'NVIDIA' });
  });

  it('in a hurry leave a good part of the minute for the way out', () => {
    const { wallMsMax, grid, preemptionsMax } = resolve({ quick: true });
    expect(grid).toEqual(QUICK_GRID);
    expect(preemptionsMax).toBe(1000);
    expect(wallMsMax).toBeGreaterThan(30_000);
    expect(wallMsMax).toBeLessThanOrEqual(50_000);
  });

  it('sort budgets and modes, and take each once', () => {
    const { grid } = resolve({
      sliceBudgets: [900, 300, 900],
      inFlightBudgets: [50],
      modes: ['drain', 'held', 'drain'],
    });
    expect(grid).toMatchObject({
      sliceBudgetsUs: [300, 900],
      inFlightBudgetsUs: [50],
      kinds: ['held', 'drain'],
    });
  });

  it.each<[Partial<Record<keyof BenchInput, unknown>>, string]>([
    [{ n: 0 }, 'n is 0, must be a whole number from 1 to 1000000'],
    [{ n: 'many' }, 'n is "many", must be a whole number'],
    [{ seed: -1 }, 'seed is -1, must be a whole number from 0'],
    [{ sliceBudgets: [] }, 'sliceBudgets is [], must be a list of at least one budget'],
    [{ sliceBudgets: [500, 10] }, 'sliceBudgets[2] is 10, must be a number from 50'],
    [{ inFlightBudgets: ['fast'] }, 'inFlightBudgets[1] is "fast", must be a number from 50'],
    [{ modes: ['held', 'holding'] }, 'modes[2] is "holding", must be "held" or "hint" or'],
    [{ model: '' }, 'model is "", must be the path of a checkpoint folder'],
    [{ full: true, quick: true }, 'full and quick contradict each other'],
    [{ full: true, n: 3 }, 'full and n contradict each other'],
  ])('%j is refused', (input, message) => {
    const refused = () => resolveBenchOptions({ model: 'm', ...input });
    expect(refused).toThrow(UserError);
    expect(refused).toThrow(message);
  });
});
