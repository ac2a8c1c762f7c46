import { assert, at } from '../../lib/assert.js';
import { mean } from '../../telemetry/quantiles.js';
import { tCritical } from './student-t.js';

const CONFIDENCE = 0.95;
/** Of the numbers themselves: sums of doubles in another order differ by less, and nothing measured by so little. */
const DUST = 1e-9;

/** A mean over repeats with its 95 % confidence interval by Student's t; no interval for one repeat. */
export interface Estimate {
  readonly mean: number;
  readonly ci95: Interval | null;
}

export type Interval = readonly [low: number, high: number];

/** Null when there is no sample or one of them is missing: a mean over what happened to finish would flatter. */
export function estimate(samples: readonly (number | null)[]): Estimate | null {
  const known = samples.filter((sample) => sample !== null);
  const centre = mean(known);
  if (centre === null || known.length < samples.length) return null;
  if (known.length === 1) return { mean: centre, ci95: null };
  const [first = centre] = known;
  // Adding up and dividing need not give the very same number back.
  if (known.every((sample) => sample === first)) return { mean: first, ci95: [first, first] };
  const variance = known.reduce((sum, sample) => sum + (sample - centre) ** 2, 0) / (known.length - 1);
  const reach = tCritical(CONFIDENCE, known.length - 1) * Math.sqrt(variance / known.length);
  const width = reach <= DUST * Math.abs(centre) ? 0 : reach;
  return { mean: centre, ci95: [centre - width, centre + width] };
}

/**
 * What a difference comes to. `noise`: the interval of the paired difference holds 0. `same`: every repeat gave the
 * very same number. `unsure`: one repeat, so nothing is known of the noise. `unknown`: a repeat has no number.
 */
export type Verdict = 'higher' | 'lower' | 'noise' | 'same' | 'unsure' | 'unknown';

export interface Difference {
  /** Of `ours − theirs`, paired by repeat; null when a repeat has no number. */
  readonly difference: Estimate | null;
  /** Over the mean of theirs; null when there is none, or it is 0. */
  readonly relative: number | null;
  readonly verdict: Verdict;
}

/**
 * Two policies by one number. Repeats pair them, since both ran it with the same seed: what makes one repeat harder
 * than another is in both, and drops out.
 */
export function pairedDifference(
  ours: readonly (number | null)[],
  theirs: readonly (number | null)[],
): Difference {
  assert(ours.length === theirs.length, `${ours.length} repeats against ${theirs.length}`);
  const differences = ours.map((our, repeat) => {
    const their = at(theirs, repeat);
    return our === null || their === null ? null : apart(our, their);
  });
  const difference = estimate(differences);
  const base = estimate(theirs);
  const relative =
    difference === null || base === null || base.mean === 0 ? null : difference.mean / Math.abs(base.mean);
  return { difference, relative, verdict: verdictOf(difference, differences) };
}

/** `our − their`; 0 for two doubles that only their rounding keeps apart. */
function apart(our: number, their: number): number {
  const difference = our - their;
  return Math.abs(difference) <= DUST * Math.max(Math.abs(our), Math.abs(their)) ? 0 : difference;
}

function verdictOf(difference: Estimate | null, samples: readonly (number | null)[]): Verdict {
  if (difference === null) return 'unknown';
  if (samples.every((sample) => sample === 0)) return 'same';
  if (difference.ci95 === null) return 'unsure';
  const [low, high] = difference.ci95;
  if (low <= 0 && high >= 0) return 'noise';
  return difference.mean > 0 ? 'higher' : 'lower';
}

/**
 * Jain's index of fairness, (Σx)² / (n·Σx²) (Jain, Chiu and Hawe, 1984): 1 when all get the same, 1/n when one gets
 * all. Null without shares.
 */
export function jainIndex(shares: readonly number[]): number | null {
  const squares = shares.reduce((sum, share) => sum + share * share, 0);
  if (squares === 0) return null;
  return shares.reduce((sum, share) => sum + share, 0) ** 2 / (shares.length * squares);
}

/** For ratios: half as long and twice as long come to 1. Null when there is none, or one is missing. */
export function geometricMean(ratios: readonly (number | null)[]): number | null {
  const known = ratios.filter((ratio) => ratio !== null);
  if (known.length === 0 || known.length < ratios.length) return null;
  return Math.exp(known.reduce((sum, ratio) => sum + Math.log(ratio), 0) / known.length);
}
