import { percentText } from '../../telemetry/format.js';
import { type Measure, measureOf } from './measures.js';
import type { CompareDifference, CompareResult, CompareRow } from './result.js';
import type { Interval } from './statistics.js';

/** Half the width of an interval in two digits, as "±3"; empty without one, or where it is too small to show. */
export function reachText(ci95: Interval | null, { text }: Measure): string {
  if (ci95 === null) return '';
  const reach = text(Number(((ci95[1] - ci95[0]) / 2).toPrecision(2)));
  return reach === text(0) || reach.startsWith('<') || reach.includes('e-') ? '' : `±${reach}`;
}

/** A row's number with its interval: "431 ±12". */
export function valueText(row: CompareRow, measure: Measure): string {
  const reach = reachText(row.ci95[measure.key], measure);
  return [measure.text(row[measure.key]), reach].filter((part) => part !== '').join(' ');
}

/** What a difference comes to, in words: its size or why there is none to tell, and its interval where it has one. */
export interface DifferenceWords {
  readonly size: string;
  /** Empty where there is none, or it is too small to show. */
  readonly range: string;
}

export function differenceWords(each: CompareDifference): DifferenceWords {
  const size = sizeText(each);
  const range = rangeText(each);
  switch (each.verdict) {
    case 'unknown':
      return { size: 'not known: a repeat has no number', range: '' };
    case 'same':
      return { size: 'the same in every repeat', range: '' };
    case 'unsure':
      return { size: `${size} in the only repeat`, range: '' };
    case 'noise':
      return { size: 'inside the noise', range };
    case 'higher':
    case 'lower':
      return { size, range };
  }
}

/** "goodput 12 % higher (+8 to +16 %)". */
export function differenceText(each: CompareDifference): string {
  const { size, range } = differenceWords(each);
  return `${measureOf(each.measure).name} ${size}${range === '' ? '' : ` (${range})`}`;
}

/**
 * Which policy is ahead by goodput, and who might as well be: "roundRobin; cannot be told apart from it: gapRatio". Null
 * when a policy has no goodput.
 */
export function aheadText({ rows, differences }: CompareResult): string | null {
  const whole = rows.flatMap(({ policy, job, goodput }) =>
    job === null && goodput !== null ? [{ policy, goodput }] : [],
  );
  const [ahead, ...others] = whole.toSorted((a, b) => b.goodput - a.goodput);
  if (ahead === undefined) return null;
  const level = others.filter(({ policy }) => {
    const pair = differences.find(
      (each) =>
        each.measure === 'goodput' &&
        [each.policy, each.against].includes(policy) &&
        [each.policy, each.against].includes(ahead.policy),
    );
    return pair !== undefined && ['noise', 'same', 'unsure'].includes(pair.verdict);
  });
  const names = level.map(({ policy }) => policy).join(', ');
  return level.length === 0 ? ahead.policy : `${ahead.policy}; cannot be told apart from it: ${names}`;
}

/** "12 % higher", or by its own unit where theirs is 0. */
function sizeText({ measure, difference, relative }: CompareDifference): string {
  if (difference === null) return '–';
  const word = difference > 0 ? 'higher' : 'lower';
  if (relative !== null) return `${percentText(Math.abs(relative))} ${word}`;
  const { text, unit } = measureOf(measure);
  return `${[text(Math.abs(difference)), unit].join(' ').trim()} ${word}`;
}

/** The interval as shares of theirs: "−4 to +9 %". */
function rangeText({ difference, relative, ci95 }: CompareDifference): string {
  if (ci95 === null || relative === null || difference === null || difference === 0) return '';
  const scale = relative / difference;
  const [low, high] = [signedPercent(ci95[0] * scale), signedPercent(ci95[1] * scale)];
  return low === high ? '' : `${low.replace(' %', '')} to ${high}`;
}

function signedPercent(share: number): string {
  return share < 0 ? `−${percentText(-share)}` : `+${percentText(share)}`;
}
