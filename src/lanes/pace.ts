import { assert } from '../lib/assert.js';
import { ALLOWANCE_MS } from '../telemetry/records.js';
import type { CostModel } from './cost-model.js';
import type { ExecutorBudgets } from './settings.js';

/** A request that comes at any moment should find the law broken no more often than this. */
const BREACH_WANTED = 0.004;
/** How fast the share of the budgets in use gives way: by so much of itself for each ms in which the law was broken. */
const GIVE_WAY_PER_MS = 0.05;
/** One long hiccup of the host counts no more than this: smaller slices would not have prevented it. */
const BREACH_MS_MAX = 2;
const SHARE_MIN = 0.4;
/** A slice takes at most so much of what may be in flight. */
const QUEUED_SHARE = 0.8;
/** While a hint holds, a slice is predicted to take at most so long, and nothing is queued behind it. */
const SHALLOW_SLICE_US = 100;
/** A hint never holds longer than this beyond the moment it names: a stage may never come. */
const HINT_MS_MAX = 1000;
/** The largest dispatch is that of the last so many slices, or twice as many. */
const LARGEST_OF_SLICES = 256;

/**
 * How much work of a resident that yields may be on the device at once: the configured budgets, less what experience
 * and hints take off.
 *
 * Predictions miss, and a miss breaks the law of preemption when a request falls into it. But every slice tells how
 * long a request right behind its submission would have waited, so the law is watched at every slice and not only at
 * preemptions. A slice that stays on the device for longer than the law allows opens a breach as long as the excess: a
 * request would have to fall into it. Breaches shrink the share of the budgets in use, time without them lets it grow,
 * in such proportion that in the long run `BREACH_WANTED` of the time is breach (stochastic approximation after Robbins
 * and Monro, 1951).
 */
export class Pace {
  #share = 1;
  #segment: ExecutorBudgets | null = null;
  #hint: { readonly fromMs: number; readonly untilMs: number } | null = null;
  #largestUs = 0;
  #largestBeforeUs = 0;
  #slices = 0;
  #breaches = 0;

  constructor(
    private budgets: ExecutorBudgets,
    private readonly cost: CostModel,
  ) {
    this.configure(budgets);
  }

  configure(budgets: ExecutorBudgets): void {
    this.budgets = budgets;
    this.#share = 1;
    this.#largestUs = 0;
    this.#largestBeforeUs = 0;
    this.cost.sliceBudgetUs = this.#sliceUs;
  }

  /** Limits on top of the budgets, which the law goes on to be held to; null ends them. */
  align(segment: ExecutorBudgets | null): void {
    this.#segment = segment;
    this.cost.sliceBudgetUs = this.#sliceUs;
  }

  /** Share of the budgets in use, 0.4 to 1. */
  get share(): number {
    return this.#share;
  }

  /** Slices that stayed on the device for longer than the law would have allowed a request. */
  get breaches(): number {
    return this.#breaches;
  }

  /** Longest single dispatch lately submitted, in predicted µs. */
  get largestUs(): number {
    return Math.max(this.#largestUs, this.#largestBeforeUs);
  }

  /** What the law allows from the moment a request is detected, in ms. */
  get lawMs(): number {
    return (this.budgets.inFlightUs + this.largestUs) / 1000 + ALLOWANCE_MS;
  }

  /** A stage will ask for the device at about `expectedMs`; it holds until it does, or until `untilMs`. */
  hint(expectedMs: number, untilMs: number): void {
    assert(untilMs >= expectedMs, 'a hint that ends before it begins');
    const drainMs = Math.min(this.budgets.inFlightUs / 1000, HINT_MS_MAX);
    this.#hint = { fromMs: expectedMs - drainMs, untilMs: Math.min(untilMs, expectedMs + HINT_MS_MAX) };
  }

  /** The stage has come: whatever was said of it is over. */
  endHint(): void {
    if (this.#hint === null) return;
    this.#hint = null;
    this.cost.sliceBudgetUs = this.#sliceUs;
  }

  /** True while a hint holds. */
  isShallow(nowMs: number): boolean {
    if (this.#hint === null || nowMs < this.#hint.fromMs) return false;
    if (nowMs < this.#hint.untilMs) return true;
    this.endHint();
    return false;
  }

  /** What may be on the device now. */
  limits(nowMs: number): ExecutorBudgets {
    const sliceUs = this.#sliceUs;
    if (!this.isShallow(nowMs)) {
      const allowedUs = Math.min(
        this.budgets.inFlightUs * this.#share,
        this.#segment?.inFlightUs ?? Infinity,
      );
      // The next one can be put behind before a slice is over; none in flight at all is one at a time.
      return {
        sliceUs: allowedUs === 0 ? sliceUs : Math.min(sliceUs, allowedUs * QUEUED_SHARE),
        inFlightUs: allowedUs,
      };
    }
    const shallowUs = Math.min(SHALLOW_SLICE_US, sliceUs);
    this.cost.sliceBudgetUs = shallowUs;
    return { sliceUs: shallowUs, inFlightUs: 0 };
  }

  /** Longest slice, by budget and segment. */
  get #sliceUs(): number {
    return Math.min(this.budgets.sliceUs, this.#segment?.sliceUs ?? Infinity);
  }

  /** A slice is submitted, with its longest dispatch. */
  submitted(longestUs: number): void {
    if (++this.#slices % LARGEST_OF_SLICES === 0) {
      this.#largestBeforeUs = this.#largestUs;
      this.#largestUs = 0;
    }
    this.#largestUs = Math.max(this.#largestUs, longestUs);
  }

  /**
   * A slice is done.
   *
   * @param stayMs from its submission to its end, with nothing more urgent before it on the device
   * @param sinceMs how much of that no slice observed earlier has covered
   */
  observe(stayMs: number, sinceMs: number): void {
    const breachMs = Math.max(0, stayMs - this.lawMs);
    if (breachMs > 0) this.#breaches++;
    const grow = BREACH_WANTED * sinceMs - Math.min(BREACH_MS_MAX, breachMs);
    this.#share = Math.min(1, Math.max(SHARE_MIN, this.#share * Math.exp(GIVE_WAY_PER_MS * grow)));
  }
}
