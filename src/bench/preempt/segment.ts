import { at } from '../../lib/assert.js';
import type { LaneRecords, SliceRecord } from '../../telemetry/records.js';
import type { CellPlan } from './grid.js';
import type { LoadCounts } from './load.js';
import { joinSamples, type Request, type Sample } from './samples.js';

/** A stretch of one configuration, as recorded. */
export interface Recorded {
  readonly plan: CellPlan | null;
  readonly requests: readonly Request[];
  /** Of all lanes. */
  readonly records: Pick<LaneRecords, 'preemptions' | 'undisturbed' | 'hintIdleMs'>;
  /** Of the lane that low priority is on. */
  readonly slices: readonly SliceRecord[];
  readonly wallMs: number;
  readonly counts: LoadCounts;
  /** So many of them are kept, evenly picked. */
  readonly slicesKeptMax: number;
  /** Processor time of that lane's thread; null where the platform does not tell. */
  readonly cpuMs: number | null;
}

/** The same, reduced to what the statistics need. */
export interface Segment {
  readonly samples: readonly Sample[];
  readonly unrecorded: number;
  readonly wallMs: number;
  /** Sampled and kept. */
  readonly tokens: number;
  readonly tokensDiscarded: number;
  readonly rows: number;
  readonly rowsDiscarded: number;
  /** Device time of low priority's slices. */
  readonly lowMs: number;
  readonly idleMs: number;
  readonly hintIdleMs: number;
  readonly cpuMs: number | null;
  readonly slices: readonly SliceTime[];
}

export interface SliceTime {
  readonly predictedUs: number;
  readonly realUs: number;
}

export function reduceSegment(recorded: Recorded): Segment {
  const { plan, requests, records, wallMs, counts, cpuMs } = recorded;
  const low = recorded.slices.filter(({ resident }) => resident === 'engine');
  return {
    ...joinSamples(plan, requests, records),
    wallMs,
    tokens: counts.tokens - counts.tokensDiscarded,
    tokensDiscarded: counts.tokensDiscarded,
    rows: counts.rows,
    rowsDiscarded: counts.rowsDiscarded,
    lowMs: low.reduce((sum, { startedMs, finishedMs }) => sum + finishedMs - startedMs, 0),
    idleMs: idleMs(recorded.slices),
    hintIdleMs: records.hintIdleMs,
    cpuMs,
    slices: evenly(low, recorded.slicesKeptMax).map(({ predictedUs, startedMs, finishedMs }) => ({
      predictedUs,
      realUs: (finishedMs - startedMs) * 1000,
    })),
  };
}

/** Time before slices of low priority in which the device had nothing: a slice begins when it is submitted, or later. */
export function idleMs(slices: readonly SliceRecord[]): number {
  let idle = 0;
  for (const [index, { resident, startedMs }] of slices.entries()) {
    if (index > 0 && resident === 'engine') idle += Math.max(0, startedMs - at(slices, index - 1).finishedMs);
  }
  return idle;
}

/** At most `count` items, evenly picked. */
export function evenly<T>(items: readonly T[], count: number): T[] {
  if (items.length <= count) return [...items];
  return Array.from({ length: count }, (_, i) => at(items, Math.floor((i * items.length) / count)));
}
