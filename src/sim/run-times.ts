import { median } from './fit.js';
import { type RunFiles, type RunJob, traceName } from './run-files.js';
import type { TraceSpan } from './run-trace-file.js';

/**
 * A pause of the host between two slices of engines is shorter than so many slices; in a longer one there was nothing to
 * do. Counted in slices, because a machine that others keep busy is slow at both.
 */
const GAP_SLICES_MAX = 6;
const GAP_MS_MIN = 8;
const RESIDENTS = ['trainer', 'critic', 'engine'];

/** The grants of a job's stage, in their order, without the time that generation took to yield to them. */
export function stageTimes(files: RunFiles, job: RunJob, stage: string): { fromMs: number; ms: number }[] {
  const thread = traceName(files, job, stage);
  const yields = files.spans.filter(({ name }) => name === 'time to yield');
  return files.spans
    .filter((span) => span.process === 'scheduler' && span.name === 'granted' && span.thread === thread)
    .sort((a, b) => a.fromMs - b.fromMs)
    .map(({ fromMs, ms }) => {
      const within = yields.filter((own) => own.fromMs >= fromMs && own.fromMs < fromMs + ms);
      const yieldMs = within.reduce((most, own) => Math.max(most, own.ms), 0);
      return { fromMs, ms: Math.max(0, ms - yieldMs) };
    });
}

/**
 * Time of each job's engines on all lanes, the short gaps after their slices included: what the host adds to a step is
 * part of it. What they still run while a stage waits for them to yield is not: that is the yield's.
 */
export function engineTimes(files: RunFiles): ReadonlyMap<string, number> {
  const jobs = new Map(files.jobs.map((job) => [traceName(files, job, 'engine'), job.id]));
  const times = new Map(files.jobs.map(({ id }) => [id, 0]));
  const engines = files.spans.filter(({ process, name }) => process.startsWith('lane ') && name === 'engine');
  const sliceMs = engines.reduce((sum, { ms }) => sum + ms, 0) / Math.max(1, engines.length);
  const gapMsMax = Math.max(GAP_MS_MIN, GAP_SLICES_MAX * sliceMs);
  for (const [process, slices] of slicesByLane(files)) {
    const yields = files.spans.filter((span) => span.process === process && span.name === 'time to yield');
    slices.forEach((slice, i) => {
      const job = jobs.get(slice.thread);
      if (slice.name !== 'engine' || job === undefined) return;
      const next = slices[i + 1];
      const gapMs = next?.name === 'engine' ? next.fromMs - slice.fromMs - slice.ms : 0;
      const ms = slice.ms + (gapMs > 0 && gapMs < gapMsMax ? gapMs : 0);
      times.set(job, (times.get(job) ?? 0) + ms - overlapMs(slice.fromMs, ms, yields));
    });
  }
  return times;
}

/** From the end of a stage until the first slice of an engine that had yielded to it: the median; null without any. */
export function resumeMs(files: RunFiles): number | null {
  const gaps: number[] = [];
  for (const [process, slices] of slicesByLane(files)) {
    const engines = slices.filter(({ name }) => name === 'engine');
    const resumes = files.spans.filter((span) => span.process === process && span.name === 'resume');
    for (const { fromMs, ms } of resumes) {
      const next = engines.find((slice) => slice.fromMs >= fromMs);
      if (next !== undefined) gaps.push(Math.min(ms, next.fromMs - fromMs));
    }
  }
  return median(gaps);
}

function slicesByLane({ spans }: RunFiles): ReadonlyMap<string, TraceSpan[]> {
  const byLane = new Map<string, TraceSpan[]>();
  for (const span of spans) {
    if (!span.process.startsWith('lane ') || !RESIDENTS.includes(span.name)) continue;
    const slices = byLane.get(span.process) ?? [];
    slices.push(span);
    byLane.set(span.process, slices);
  }
  for (const slices of byLane.values()) slices.sort((a, b) => a.fromMs - b.fromMs);
  return byLane;
}

function overlapMs(fromMs: number, ms: number, others: readonly TraceSpan[]): number {
  return others.reduce((sum, other) => {
    const overlap = Math.min(fromMs + ms, other.fromMs + other.ms) - Math.max(fromMs, other.fromMs);
    return sum + Math.max(0, overlap);
  }, 0);
}

/**
 * From the plan that wakes a job's engine, or from the end of its `init` where that comes later, until it is awake: the
 * median over its wakes; null where the run woke nothing by plan.
 */
export function wakeMs(files: RunFiles, job: RunJob): number | null {
  const initEndMs = stageTimes(files, job, 'init').reduce((last, { fromMs, ms }) => {
    return Math.max(last, fromMs + ms);
  }, 0);
  const awake = files.spans.filter(
    ({ name, thread }) => name === 'awake' && thread === traceName(files, job, 'engine awake'),
  );
  const times = awake.flatMap(({ process, fromMs }) => {
    const lane = /^lane (\d+)/.exec(process)?.[1] ?? '';
    const words = `wake ${job.id} engine on lane ${lane},`;
    const asked = files.plans.findLast(({ atMs, changes }) => atMs <= fromMs && changes.includes(words));
    return asked === undefined ? [] : [Math.max(0, fromMs - Math.max(asked.atMs, initEndMs))];
  });
  return median(times);
}

/** Medians of the pulls: per byte where bytes crossed the host, else what each took; null without any. */
export function pullCost({ spans }: RunFiles): { ms: number; msPerUnit: number } | null {
  const pulls = spans.filter(({ thread, name }) => thread === 'weights' && /(^| )pull v\d+$/.test(name));
  const perByte = median(pulls.filter(({ bytes }) => bytes > 0).map(({ ms, bytes }) => ms / bytes));
  if (perByte !== null) return { ms: 0, msPerUnit: perByte };
  const ms = median(pulls.map((pull) => pull.ms));
  return ms === null ? null : { ms, msPerUnit: 0 };
}

/** Of one version of a job's weights: by its summary, else by what was pulled or published; 0 where nothing says. */
export function weightBytes({ spans }: RunFiles, job: RunJob): number {
  if (job.weightBytes > 0) return job.weightBytes;
  return spans.reduce((most, { thread, bytes }) => (thread === 'weights' ? Math.max(most, bytes) : most), 0);
}
