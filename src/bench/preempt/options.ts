import { z } from 'zod';
import { assert } from '../../lib/assert.js';
import { UserError } from '../../lib/errors.js';
import { keyText, valueText } from '../../run/config-errors.js';
import { numberFromTo, oneOf, seed, text, trueOrFalse, wholeNumber } from '../../run/config-fields.js';
import { CELL_KINDS, FULL_GRID, QUICK_GRID, type CellKind, type Grid } from './grid.js';

const PREEMPTIONS_MAX = 1_000_000;
const PREEMPTIONS = 1_000;
const PREEMPTIONS_FULL = 10_000;
/** Of the minute that `--quick` promises: what is under way by then, and the way out, take a while on a busy machine. */
const QUICK_WALL_MS = 48_000;
const BUDGET_US_MIN = 50;
const BUDGET_US_MAX = 10_000_000;
const BUDGETS_MAX = 16;

const budgets = () =>
  z
    .array(numberFromTo(BUDGET_US_MIN, BUDGET_US_MAX), 'a list of microseconds')
    .min(1, 'a list of at least one budget')
    .max(BUDGETS_MAX, `a list of at most ${BUDGETS_MAX} budgets`);

const schema = z.strictObject({
  /** A Hugging Face checkpoint folder. */
  model: text().min(1, 'the path of a checkpoint folder'),
  /** Only adapters whose name contains this text; "" takes the fastest. */
  adapter: text().default(''),
  seed: seed.default(1),
  /** As many preemptions as fit into a minute. */
  quick: trueOrFalse().default(false),
  /** Ten times as many preemptions. */
  full: trueOrFalse().default(false),
  /** Preemptions a cell. */
  n: wholeNumber(1, PREEMPTIONS_MAX).optional(),
  sliceBudgets: budgets().optional(),
  inFlightBudgets: budgets().optional(),
  modes: z
    .array(oneOf(...CELL_KINDS), 'a list of modes')
    .min(1, 'a list of at least one mode')
    .optional(),
});

export type BenchInput = z.input<typeof schema>;

/** What to measure, checked. */
export interface BenchOptions {
  readonly model: string;
  /** Null takes the fastest. */
  readonly adapter: string | null;
  readonly seed: number;
  /** A cell at most. */
  readonly preemptionsMax: number;
  /** From the process's start to the result; null when only `preemptionsMax` ends a cell. */
  readonly wallMsMax: number | null;
  readonly grid: Grid;
}

/**
 * Checks every value once.
 *
 * @param nameOf How to call an option in a message; the command line names its flags.
 * @throws UserError that names the option, its value and its range.
 */
export function resolveBenchOptions(
  input: { readonly [Key in keyof BenchInput]: unknown },
  nameOf: (option: string) => string = (option) => option,
): BenchOptions {
  const parsed = schema.safeParse(input, { reportInput: true });
  if (!parsed.success) {
    const [issue] = parsed.error.issues;
    assert(issue !== undefined, 'options are refused for a reason');
    const [option = '', ...place] = issue.path;
    const name = nameOf(String(option)) + keyText(place);
    throw new UserError(`${name} is ${valueText(issue.input)}, must be ${issue.message}`);
  }
  const { model, adapter, seed: chosen, quick, full, n, sliceBudgets, inFlightBudgets, modes } = parsed.data;
  if (full && (quick || n !== undefined)) {
    const other = quick ? 'quick' : 'n';
    throw new UserError(`${nameOf('full')} and ${nameOf(other)} contradict each other: give one of them`);
  }
  const base = quick ? QUICK_GRID : FULL_GRID;
  return {
    model,
    adapter: adapter === '' ? null : adapter,
    seed: chosen,
    preemptionsMax: n ?? (full ? PREEMPTIONS_FULL : PREEMPTIONS),
    wallMsMax: quick ? QUICK_WALL_MS : null,
    grid: {
      ...base,
      sliceBudgetsUs: ascending(sliceBudgets) ?? base.sliceBudgetsUs,
      inFlightBudgetsUs: ascending(inFlightBudgets) ?? base.inFlightBudgetsUs,
      kinds: modes === undefined ? base.kinds : CELL_KINDS.filter((kind: CellKind) => modes.includes(kind)),
    },
  };
}

/** Each once, smallest first. */
function ascending(values: readonly number[] | undefined): readonly number[] | undefined {
  return values === undefined ? undefined : [...new Set(values)].sort((a, b) => a - b);
}
