import { numberText } from '../../../telemetry/format.js';
import type { PreemptCell, PreemptMode, PreemptResult } from '../result.js';

/** The budgets of `offbeat run` where its configuration does not say otherwise. */
export const DEFAULT_BUDGETS = { sliceUs: 4000, inFlightUs: 8000 };

interface ModeWords {
  readonly name: string;
  readonly meaning: string;
}

export const MODES: Readonly<Record<PreemptMode, ModeWords>> = {
  held: {
    name: 'held',
    meaning:
      'Offbeat’s own way: bounded slices, a bounded amount in flight, every cache stays on the device.',
  },
  spilled: {
    name: 'spilled',
    meaning: 'The same, with every cache copied to the host before the stage begins and back afterwards.',
  },
  dropped: {
    name: 'dropped',
    meaning: 'The same, with every cache thrown away and computed again afterwards.',
  },
  'second-device': {
    name: 'second device',
    meaning:
      'The stage has a device of its own on the same adapter: nobody yields, and the adapter shares as it likes.',
  },
  'one-slice': {
    name: 'one slice',
    meaning: 'One slice in flight; the next is submitted when the host has seen it finish.',
  },
  drain: {
    name: 'drain',
    meaning: 'Steps are not cut: the stage waits for the end of the present one.',
  },
  'abort-retry': {
    name: 'abort and retry',
    meaning:
      'The stage waits for one uncut step, then all sequences are aborted and begin again from their prompts, as ROLL does.',
  },
  unlimited: {
    name: 'unlimited',
    meaning: 'Nothing is cut, and nothing is bounded but the number of steps submitted ahead.',
  },
  'no-preemption': {
    name: 'no preemption',
    meaning: 'The stage waits until every sequence under way has come to its end.',
  },
};

/** Colours of the style sheet, in the order of rising slice budgets. */
const BUDGET_COLOURS = ['version', 'engine', 'good', 'trainer', 'yield', 'starved'];
/** The one for whatever has no budget of its own. */
export const NO_BUDGET_COLOUR = 'soft';

/** A time that is given in microseconds, in the unit that suits it. */
export function usText(us: number | null): string {
  if (us === null || !Number.isFinite(us)) return '–';
  return Math.abs(us) < 999.5 ? `${numberText(us)} µs` : `${numberText(us / 1000)} ms`;
}

/** Null is unlimited; 0 in flight is one slice at a time. */
export function budgetText(us: number | null, zero = '0'): string {
  if (us === null) return 'unlimited';
  return us === 0 ? zero : usText(us);
}

/** "held 2 ms / 4 ms, hint": the mode, its slice budget and what may be in flight, where it has them. */
export function cellName({ mode, slice_budget_us, in_flight_budget_us, hint }: PreemptCell): string {
  const budgets =
    slice_budget_us === null
      ? ''
      : in_flight_budget_us === null || in_flight_budget_us === 0
        ? ` ${usText(slice_budget_us)}`
        : ` ${usText(slice_budget_us)} / ${usText(in_flight_budget_us)}`;
  return `${MODES[mode].name}${budgets}${hint ? ', hint' : ''}`;
}

/** It promises to keep the law, and can be held to it. */
export function claimsLaw({ bound_ms }: PreemptCell): boolean {
  return bound_ms !== null;
}

/** Share of a cell's preemptions that obeyed the law; null where there was none. */
export function obeyedShare({ n, law_violations }: PreemptCell): number | null {
  return n === 0 ? null : 1 - law_violations / n;
}

/** The same over several cells, as long as they claim the law. */
export function obeyedShareOf(cells: readonly PreemptCell[]): number | null {
  const lawful = cells.filter(claimsLaw);
  const n = lawful.reduce((sum, cell) => sum + cell.n, 0);
  const over = lawful.reduce((sum, cell) => sum + cell.law_violations, 0);
  return n === 0 ? null : 1 - over / n;
}

/** Low-priority throughput lost to sharing, as a share; negative when more was measured than uncut work gave. */
export function overhead({ lp_retained }: PreemptCell): number {
  return 1 - lp_retained;
}

/** The held cell without hints whose budgets are nearest to those of `offbeat run`; null where there is none. */
export function defaultCell(cells: readonly PreemptCell[]): PreemptCell | null {
  const distance = (us: number | null, wanted: number): number =>
    us === null || us === 0 ? 10 : Math.abs(Math.log(us / wanted));
  const far = (cell: PreemptCell): number =>
    distance(cell.slice_budget_us, DEFAULT_BUDGETS.sliceUs) +
    distance(cell.in_flight_budget_us, DEFAULT_BUDGETS.inFlightUs);
  const held = cells.filter(({ mode, hint, n }) => mode === 'held' && !hint && n > 0);
  return held.toSorted((a, b) => far(a) - far(b))[0] ?? null;
}

/** A colour for each slice budget that Offbeat's own cells were measured with, in rising order. */
export function budgetColours({ cells }: PreemptResult): ReadonlyMap<number, string> {
  const budgets = cells.filter(claimsLaw).flatMap(({ slice_budget_us: us }) => (us === null ? [] : [us]));
  const rising = [...new Set(budgets)].sort((a, b) => a - b);
  return new Map(rising.map((us, index) => [us, BUDGET_COLOURS[index % BUDGET_COLOURS.length] ?? 'ink']));
}

export function budgetColour(colours: ReadonlyMap<number, string>, cell: PreemptCell): string {
  const { slice_budget_us: us } = cell;
  return (us === null || !claimsLaw(cell) ? undefined : colours.get(us)) ?? NO_BUDGET_COLOUR;
}
