import { nowMs } from '../../lib/clock.js';
import type { Random } from '../../lib/prng.js';
import type { CellPlan } from './grid.js';

/** Preemptions of a cell in one round: short enough that a machine does not change its mood meanwhile. */
const PREEMPTIONS_PER_ROUND = 100;
const ROUNDS_MAX = 100;
/** Rounds under a time limit: each cell is measured early and late. */
const TIMED_ROUNDS = 2;

/** One thing to measure. Ratios compare what was measured in the same round. */
export type Turn =
  | { readonly kind: 'unchunked' }
  | { readonly kind: 'solo' }
  | { readonly kind: 'cell'; readonly plan: CellPlan };

/** What a turn takes beside a cell's: rates need less time than tails. */
const WEIGHT = { unchunked: 0.5, solo: 1, cell: 1 } as const;

export function roundsFor(preemptionsMax: number, isTimed: boolean): number {
  const rounds = Math.min(ROUNDS_MAX, Math.ceil(preemptionsMax / PREEMPTIONS_PER_ROUND));
  return isTimed ? Math.min(TIMED_ROUNDS, rounds) : rounds;
}

/**
 * A round: both baselines, then the cells in random order, with low priority alone once more between them. Without
 * `random` in the order of the table: when time is short, those further down are left out.
 */
export function roundOf(plans: readonly CellPlan[], random: Random | null): Turn[] {
  const ordered = random === null ? plans : shuffled(plans, random);
  const cells = ordered.map((plan) => ({ kind: 'cell', plan }) as const);
  const half = Math.ceil(cells.length / 2);
  const unchunked = { kind: 'unchunked' } as const;
  return [unchunked, { kind: 'solo' }, ...cells.slice(0, half), unchunked, ...cells.slice(half)];
}

/** Fisher and Yates, as Durstenfeld has it. */
function shuffled<T>(items: readonly T[], random: Random): T[] {
  const left = [...items];
  const taken: T[] = [];
  while (left.length > 0) taken.push(...left.splice(random.int(0, left.length - 1), 1));
  return taken;
}

/** Shares the time left among the turns left; without a limit every turn has all the time it wants. */
export class TimeBudget {
  #weightLeft: number;

  constructor(
    private readonly endMs: number,
    turns: readonly Turn[],
  ) {
    this.#weightLeft = turns.reduce((sum, { kind }) => sum + WEIGHT[kind], 0);
  }

  /** When the turn that begins now must end. */
  untilMs(turn: Turn, now = nowMs()): number {
    const weight = WEIGHT[turn.kind];
    const untilMs = now + (Math.max(0, this.endMs - now) * weight) / this.#weightLeft;
    this.#weightLeft = Math.max(weight, this.#weightLeft - weight);
    return untilMs;
  }
}
