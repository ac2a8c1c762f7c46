import type { KvOnPreempt } from '../../engine/engine.js';
import { laneSettings, type LaneSettings } from '../../lanes/settings.js';
import { assert, at } from '../../lib/assert.js';
import type { PreemptMode } from './result.js';

/** What `--modes` names; `hint` is `held` with a hint before each request. The order is that of the table. */
export const CELL_KINDS = [
  'held',
  'hint',
  'spilled',
  'dropped',
  'second-device',
  'one-slice',
  'drain',
  'abort-retry',
  'unlimited',
  'no-preemption',
] as const;

export type CellKind = (typeof CELL_KINDS)[number];

/** One configuration to be measured. */
export interface CellPlan {
  readonly mode: PreemptMode;
  /** Infinity: never cut. */
  readonly sliceUs: number;
  /** Infinity: never held back. 0: one slice at a time. */
  readonly inFlightUs: number;
  readonly hint: boolean;
}

export interface Grid {
  readonly sliceBudgetsUs: readonly number[];
  readonly inFlightBudgetsUs: readonly number[];
  readonly kinds: readonly CellKind[];
  /** Every slice budget with every in-flight budget, rather than each in-flight budget with one that suits it. */
  readonly crossed: boolean;
}

export const FULL_GRID: Grid = {
  sliceBudgetsUs: [500, 1_000, 4_000],
  inFlightBudgetsUs: [1_000, 2_000, 8_000],
  kinds: CELL_KINDS,
  crossed: true,
};

/** What fits into a minute; a second device alone takes a good part of that to open. */
export const QUICK_GRID: Grid = {
  sliceBudgetsUs: [1_000, 4_000],
  inFlightBudgetsUs: [2_000, 8_000],
  kinds: CELL_KINDS.filter((kind) => kind !== 'second-device'),
  crossed: false,
};

/** The cells of a grid, in the order of the table. */
export function cellPlans({ sliceBudgetsUs, inFlightBudgetsUs, kinds, crossed }: Grid): CellPlan[] {
  const matched = inFlightBudgetsUs.map((inFlightUs) => ({
    // With a slice as large as all that may be in flight, the device would run dry between two of them.
    sliceUs: sliceBudgetsUs.findLast((sliceUs) => 2 * sliceUs <= inFlightUs) ?? at(sliceBudgetsUs, 0),
    inFlightUs,
  }));
  const every = sliceBudgetsUs.flatMap((sliceUs) =>
    inFlightBudgetsUs.map((inFlightUs) => ({ sliceUs, inFlightUs })),
  );
  const typical = at(matched, Math.floor(matched.length / 2));
  const uncut = { sliceUs: Infinity, inFlightUs: Infinity };
  const plansOf = (kind: CellKind): CellPlan[] => {
    switch (kind) {
      case 'held':
        return (crossed ? every : matched).map((budgets) => ({ mode: 'held', ...budgets, hint: false }));
      case 'hint':
        return (crossed ? matched : [typical]).map((budgets) => ({ mode: 'held', ...budgets, hint: true }));
      case 'spilled':
      case 'dropped':
        return [{ mode: kind, ...typical, hint: false }];
      case 'one-slice':
        return [{ mode: kind, sliceUs: typical.sliceUs, inFlightUs: 0, hint: false }];
      case 'drain':
      case 'abort-retry':
        return [{ mode: kind, sliceUs: Infinity, inFlightUs: 0, hint: false }];
      case 'second-device':
      case 'unlimited':
      case 'no-preemption':
        return [{ mode: kind, ...uncut, hint: false }];
      default:
        return kind satisfies never;
    }
  };
  const plans = kinds.flatMap(plansOf);
  assert(plans.length > 0, 'a grid without a cell');
  return plans;
}

/** True where Offbeat promises that time to yield is bounded; the others are what people do instead. */
export function claimsLaw({ mode }: CellPlan): boolean {
  return mode === 'held' || mode === 'spilled' || mode === 'dropped';
}

/** How the low-priority lane shares its device in this cell. */
export function settingsOf({ mode, sliceUs, inFlightUs }: CellPlan): LaneSettings {
  const kvOnPreempt: KvOnPreempt = { kind: mode === 'spilled' || mode === 'dropped' ? mode : 'held' };
  return { ...laneSettings({ sliceUs, inFlightUs }), kvOnPreempt };
}

/** The cell in a few words, such as `held 2,000/4,000 µs, hint`. */
export function planText({ mode, sliceUs, inFlightUs, hint }: CellPlan): string {
  const us = (value: number): string => (Number.isFinite(value) ? value.toLocaleString('en-US') : '∞');
  return `${mode} ${us(sliceUs)}/${us(inFlightUs)} µs${hint ? ', hint' : ''}`;
}
