import { bytesText, numberText, percentText, scoreText } from '../../telemetry/format.js';
import type { MeasureKey } from './result.js';
import type { Scores } from './scores.js';

/** One number that policies are compared by. */
export interface Measure {
  readonly key: MeasureKey;
  readonly name: string;
  readonly unit: string;
  /** Which way is better. */
  readonly better: 'higher' | 'lower' | 'neither';
  readonly of: (scores: Scores) => number | null;
  /** Without the unit, unless it is part of the number. */
  readonly text: (value: number | null) => string;
}

const shareText = (share: number | null): string => (share === null ? '–' : percentText(share));

export const MEASURES: readonly Measure[] = [
  {
    key: 'goodput',
    name: 'goodput',
    unit: 'tokens/s',
    better: 'higher',
    of: ({ goodput }) => goodput,
    text: numberText,
  },
  {
    key: 'makespan_s',
    name: 'makespan',
    unit: 's',
    better: 'lower',
    of: ({ makespanS }) => makespanS,
    text: numberText,
  },
  {
    key: 'slowdown',
    name: 'slowdown',
    unit: '× alone',
    better: 'lower',
    of: ({ slowdown }) => slowdown,
    text: numberText,
  },
  { key: 'jain', name: 'fairness', unit: 'Jain', better: 'higher', of: ({ jain }) => jain, text: scoreText },
  { key: 'busy', name: 'busy', unit: '', better: 'neither', of: ({ busy }) => busy, text: shareText },
  { key: 'wasted', name: 'wasted', unit: '', better: 'lower', of: ({ wasted }) => wasted, text: shareText },
  {
    key: 'token_p99_ms',
    name: 'token',
    unit: 'p99 ms',
    better: 'lower',
    of: ({ tokenP99Ms }) => tokenP99Ms,
    text: numberText,
  },
  {
    key: 'weight_bytes',
    name: 'weights',
    unit: 'sent',
    better: 'lower',
    of: ({ weightBytes }) => weightBytes,
    text: (bytes) => (bytes === null ? '–' : bytesText(bytes)),
  },
];

/** A record with one entry for each measure. */
export function byMeasure<T>(of: (measure: Measure) => T): Record<MeasureKey, T> {
  const entry = (key: MeasureKey): T => of(measureOf(key));
  return {
    goodput: entry('goodput'),
    makespan_s: entry('makespan_s'),
    slowdown: entry('slowdown'),
    jain: entry('jain'),
    busy: entry('busy'),
    wasted: entry('wasted'),
    token_p99_ms: entry('token_p99_ms'),
    weight_bytes: entry('weight_bytes'),
  };
}

export function measureOf(key: MeasureKey): Measure {
  const found = MEASURES.find((measure) => measure.key === key);
  if (found === undefined) throw new Error(`assertion failed: no measure ${key}`);
  return found;
}
