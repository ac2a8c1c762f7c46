import type { PreemptionRecord, ResidentKind } from '../records.js';
import { timeToYieldMs } from '../records.js';
import type { RunRecords } from '../run-records.js';
import { coarsen, type Span, type Stretch } from './coarsen.js';

/** What the lane timeline draws. Times are whole microseconds from the run's start; lists are bounded. */
export interface TimelineData {
  readonly endUs: number;
  readonly lanes: readonly TimelineLane[];
  /** Places worth looking at, offered as buttons. */
  readonly views: readonly { readonly label: string; readonly fromUs: number; readonly toUs: number }[];
}

export interface TimelineLane {
  readonly name: string;
  readonly rows: readonly TimelineRow[];
  /** Ascending by their request. */
  readonly yields: readonly TimelineYield[];
  readonly versions: readonly { readonly atUs: number; readonly label: string }[];
  /** Pairs of from and to in which generation had work and no device. */
  readonly starved: readonly (readonly [number, number])[];
  /** Pairs of from and to in which an engine was awake on the lane; null when that was never recorded. */
  readonly awake: readonly (readonly [number, number])[] | null;
}

export interface TimelineRow {
  readonly name: string;
  readonly resident: ResidentKind;
  /** Four numbers a span: µs since the end of the one before, µs long, slices in it, thousandths of it idle. */
  readonly spans: readonly number[];
}

export interface TimelineYield {
  readonly stage: string;
  readonly fromUs: number;
  readonly yieldUs: number;
  /** From yielding to the first new token; null if the run ended before. */
  readonly awayUs: number | null;
}

/** Over all rows. About 15 bytes each in the file. */
const SPANS_MAX = 24_000;
const YIELDS_MAX = 2_000;
const VERSIONS_MAX = 2_000;
const AWAKE_MAX = 1_000;
const STARVED_MAX = 1_000;
/** Preemptions around which every slice is kept, the slowest ones. */
const DETAILS_MAX = 6;
const DETAIL_MARGIN_US = 15_000;

/** Milliseconds on lib/clock → whole microseconds from the run's start. */
type ToUs = (ms: number) => number;

export function timelineData(records: RunRecords, endMs: number): TimelineData {
  const us: ToUs = (ms) => Math.round((ms - records.startMs) * 1000);
  const endUs = Math.max(1, us(endMs));
  const looks = worthALook(records.preemptions.items);
  const stretches = looks.details.map((preemption) => stretchOf(preemption, us));
  return {
    endUs,
    lanes: records.lanes.map(({ lane, adapter }) => ({
      name: `lane ${lane} — ${adapter}`,
      rows: rowsOf(records, lane, stretches, us),
      yields: slowest(
        records.preemptions.items.filter((preemption) => preemption.lane === lane),
        YIELDS_MAX,
      ).map((preemption) => yieldMark(preemption, us)),
      versions: evenly(records.versions.items, VERSIONS_MAX)
        .filter((version) => version.lane === lane)
        .map(({ kind, version, atMs }) => ({ atUs: us(atMs), label: `${kind} of version ${version}` })),
      starved: records.starved.items
        .filter((starved) => starved.lane === lane)
        .slice(0, STARVED_MAX)
        .map(({ fromMs, toMs }) => [us(fromMs), us(toMs)] as const),
      awake: awakeTimes(records, lane, us),
    })),
    views: looks.views.map(({ label, preemption }) => viewOf(label, preemption, us, endUs)),
  };
}

function rowsOf(records: RunRecords, lane: number, detail: readonly Stretch[], us: ToUs): TimelineRow[] {
  const nameOf = records.naming();
  return records.busy(lane).map(({ job, resident }) => {
    const spans = records.slices.items
      .filter((slice) => slice.lane === lane && slice.job === job && slice.resident === resident)
      .map(({ startedMs, finishedMs }): Span => {
        const [startUs, endUs] = [us(startedMs), us(finishedMs)];
        return { startUs, endUs, slices: 1, busyUs: endUs - startUs };
      });
    const kept = coarsen(spans, Math.floor(SPANS_MAX / records.residents), detail);
    return { name: nameOf(job, resident), resident, spans: encodeSpans(kept) };
  });
}

/** The slowest preemptions, to keep in detail, and the ones to offer as views. */
function worthALook(preemptions: readonly PreemptionRecord[]): {
  readonly details: readonly PreemptionRecord[];
  readonly views: readonly { readonly label: string; readonly preemption: PreemptionRecord }[];
} {
  const ascending = preemptions.toSorted((a, b) => timeToYieldMs(a) - timeToYieldMs(b));
  const worst = ascending.at(-1);
  const typical = ascending[Math.ceil(ascending.length / 2) - 1];
  if (!worst || !typical) return { details: [], views: [] };
  return {
    details: [typical, ...ascending.slice(-DETAILS_MAX)],
    views: [
      { label: 'A typical yield', preemption: typical },
      { label: 'The slowest yield', preemption: worst },
    ],
  };
}

function stretchOf({ requestedMs, yieldedMs }: PreemptionRecord, us: ToUs): Stretch {
  return { fromUs: us(requestedMs) - DETAIL_MARGIN_US, toUs: us(yieldedMs) + DETAIL_MARGIN_US };
}

function viewOf(
  label: string,
  { requestedMs, yieldedMs }: PreemptionRecord,
  us: ToUs,
  endUs: number,
): TimelineData['views'][number] {
  const marginUs = Math.min(DETAIL_MARGIN_US, Math.max(2_000, 2 * us(yieldedMs) - 2 * us(requestedMs)));
  return {
    label,
    fromUs: Math.max(0, us(requestedMs) - marginUs),
    toUs: Math.min(endUs, us(yieldedMs) + marginUs),
  };
}

function yieldMark(preemption: PreemptionRecord, us: ToUs): TimelineYield {
  const { stage, requestedMs, yieldedMs, resumedMs } = preemption;
  return {
    stage,
    fromUs: us(requestedMs),
    yieldUs: us(yieldedMs) - us(requestedMs),
    awayUs: resumedMs === null ? null : us(resumedMs) - us(yieldedMs),
  };
}

function awakeTimes(records: RunRecords, lane: number, us: ToUs): TimelineLane['awake'] {
  if (records.awake.items.length === 0) return null;
  const times = records.awake.items.filter((awake) => awake.lane === lane).slice(0, AWAKE_MAX);
  return times.map(({ fromMs, toMs }) => [us(fromMs), us(toMs)] as const);
}

/** The slowest `max` in order of time. */
function slowest(preemptions: readonly PreemptionRecord[], max: number): PreemptionRecord[] {
  return preemptions
    .toSorted((a, b) => timeToYieldMs(b) - timeToYieldMs(a))
    .slice(0, max)
    .sort((a, b) => a.requestedMs - b.requestedMs);
}

/** At most `max` items, spread over the whole list. */
function evenly<T>(items: readonly T[], max: number): T[] {
  const stride = Math.max(1, Math.ceil(items.length / max));
  return items.filter((_, index) => index % stride === 0);
}

function encodeSpans(spans: readonly Span[]): number[] {
  let previousEndUs = 0;
  return spans.flatMap(({ startUs, endUs, slices, busyUs }) => {
    const lengthUs = endUs - startUs;
    const idle = lengthUs === 0 ? 0 : Math.round(1000 * (1 - busyUs / lengthUs));
    const encoded = [startUs - previousEndUs, lengthUs, slices, idle];
    previousEndUs = endUs;
    return encoded;
  });
}
