import type { JobId } from '../../scheduler/state.js';
import { jobTimeMs, type JobMeasured, type Measured, type WorkKind, wastedTotal } from './measured.js';
import { geometricMean, jainIndex } from './statistics.js';

/** One run in numbers, of all its jobs or of one. A null is not known. */
export interface Scores {
  /** Trained tokens a second: over the makespan, or from the job's coming to its end. */
  readonly goodput: number | null;
  /** Of a job: from its coming to its end. */
  readonly makespanS: number | null;
  /** The job's time over its time alone; of a run, the geometric mean of its jobs. */
  readonly slowdown: number | null;
  /** Jain's index over the jobs' speed against alone (1 / slowdown); of a job, that of its run. */
  readonly jain: number | null;
  /** Share of the lanes' time, from the run's beginning to its end, in which a device worked; of a job, for it. */
  readonly busy: number | null;
  /** Share of all tokens computed that came to nothing. */
  readonly wasted: number | null;
  /** p99 of the time between two tokens of a sequence; of a run, that of its worst job. */
  readonly tokenP99Ms: number | null;
  readonly weightBytes: number;
}

/** How long each job takes alone on the same lanes, ms; null where it did not come to its end. */
export type SoloTimesMs = ReadonlyMap<JobId, number | null>;

export function runScores(measured: Measured, solo: SoloTimesMs): Scores {
  const { jobs, makespanMs } = measured;
  const slowdowns = jobs.map((job) => slowdownOf(job, solo));
  const trained = sum(jobs, ({ tokensTrained }) => tokensTrained);
  const wasted = sum(jobs, ({ tokensWasted }) => wastedTotal(tokensWasted));
  const computed = sum(jobs, computedTokens);
  return {
    goodput: perSecond(trained, makespanMs ?? sinceFirstMs(measured)),
    makespanS: makespanMs === null ? null : makespanMs / 1000,
    slowdown: geometricMean(slowdowns),
    jain: jainOf(slowdowns),
    busy: busyShare(measured),
    wasted: computed === 0 ? null : wasted / computed,
    tokenP99Ms: worst(jobs.map(({ tokenP99Ms }) => tokenP99Ms)),
    weightBytes: sum(jobs, ({ weightBytes }) => weightBytes),
  };
}

export function jobScores(measured: Measured, job: JobMeasured, solo: SoloTimesMs): Scores {
  const timeMs = jobTimeMs(job);
  const untilEndMs = job.arrivedMs === null ? null : measured.endMs - job.arrivedMs;
  const computed = computedTokens(job);
  return {
    goodput: perSecond(job.tokensTrained, timeMs ?? untilEndMs),
    makespanS: timeMs === null ? null : timeMs / 1000,
    slowdown: slowdownOf(job, solo),
    jain: jainOf(measured.jobs.map((each) => slowdownOf(each, solo))),
    busy: busyShare(measured, job.id),
    wasted: computed === 0 ? null : wastedTotal(job.tokensWasted) / computed,
    tokenP99Ms: job.tokenP99Ms,
    weightBytes: job.weightBytes,
  };
}

/** Share of the lanes' time, from the run's beginning to its end, of one job or kind of work or of all. */
export function busyShare({ busy, lanes, endMs }: Measured, job?: JobId, kind?: WorkKind): number | null {
  if (busy === null || endMs <= 0) return null;
  const own = busy.filter(
    (each) => (job === undefined || each.job === job) && (kind === undefined || each.kind === kind),
  );
  return sum(own, ({ ms }) => ms) / (lanes * endMs);
}

function slowdownOf(job: JobMeasured, solo: SoloTimesMs): number | null {
  const timeMs = jobTimeMs(job);
  const aloneMs = solo.get(job.id) ?? null;
  return timeMs === null || aloneMs === null || aloneMs <= 0 ? null : timeMs / aloneMs;
}

function jainOf(slowdowns: readonly (number | null)[]): number | null {
  const speeds = slowdowns.flatMap((slowdown) => (slowdown === null || slowdown <= 0 ? [] : [1 / slowdown]));
  return speeds.length < slowdowns.length ? null : jainIndex(speeds);
}

function computedTokens({ tokensDecoded, tokensWasted }: JobMeasured): number {
  return tokensDecoded + tokensWasted.recomputed;
}

/** Of a run that did not end: from its first job's coming until it was given up. */
function sinceFirstMs({ jobs, endMs }: Measured): number | null {
  const arrivals = jobs.flatMap(({ arrivedMs }) => arrivedMs ?? []);
  return arrivals.length === 0 ? null : endMs - Math.min(...arrivals);
}

function perSecond(tokens: number, ms: number | null): number | null {
  return ms === null || ms <= 0 ? null : (1000 * tokens) / ms;
}

function worst(values: readonly (number | null)[]): number | null {
  const known = values.flatMap((value) => value ?? []);
  return known.length === 0 ? null : Math.max(...known);
}

function sum<T>(items: readonly T[], of: (item: T) => number): number {
  return items.reduce((total, item) => total + of(item), 0);
}
