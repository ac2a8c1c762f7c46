import { assert, at } from '../../lib/assert.js';
import { STAGES, type Stage } from '../../scheduler/stages.js';
import { mean, type Quantiles, quantiles } from '../../telemetry/quantiles.js';
import { type Contest, type Repeat, SOLO_POLICY } from './contest.js';
import type { JobMeasured, Measured, WastedTokens } from './measured.js';
import { byMeasure, MEASURES } from './measures.js';
import type { CompareDifference, CompareMachine, CompareResult, CompareRow } from './result.js';
import { jobScores, runScores, type Scores } from './scores.js';
import { estimate, pairedDifference } from './statistics.js';

export interface Circumstances {
  readonly mode: 'live' | 'simulated';
  readonly machine: CompareMachine;
  readonly interrupted: boolean;
  readonly wallS: number;
}

/**
 * All repeats of a contest as one result.
 *
 * @param repeats the complete ones, at least one
 */
export function summarize(
  { scenario, policies, repeats: asked }: Contest,
  repeats: readonly Repeat[],
  { wallS, ...circumstances }: Circumstances,
): CompareResult {
  const [first] = repeats;
  assert(first !== undefined, 'a result of no repeat');
  const jobs = scenario.jobs.map(({ id }) => id);
  const rows = policies.flatMap((policy, index) => {
    return [null, ...jobs].map((job) => rowOf(policy, job, partsOf(repeats, index, job)));
  });
  return {
    format: 'offbeat-compare/1',
    ...circumstances,
    scenario: scenario.name,
    lanes: scenario.lanes.count,
    jobs,
    policies,
    repeats: asked,
    seeds: repeats.map(({ seed }) => seed),
    solo: jobs.map((job) => {
      const times = repeats.map(({ solo }) => solo.get(job) ?? null);
      const seconds = estimate(times.map((ms) => (ms === null ? null : ms / 1000)));
      return { job, policy: SOLO_POLICY, seconds: seconds?.mean ?? null, ci95: seconds?.ci95 ?? null };
    }),
    rows,
    differences: differencesOf(policies, repeats),
    staleness_unit: at(first.runs, 0).stalenessUnit,
    notes: notesOf(policies, jobs, repeats),
    wall_s: wallS,
  };
}

/** What one repeat says of a policy, or of one of its jobs. */
interface Part {
  readonly scores: Scores;
  readonly jobs: readonly JobMeasured[];
  /** Null where it is not known of this job alone. */
  readonly yieldMs: readonly number[] | null;
}

function partsOf(repeats: readonly Repeat[], policy: number, id: string | null): Part[] {
  return repeats.map(({ runs, solo }) => {
    const run = at(runs, policy);
    if (id === null) return { scores: runScores(run, solo), jobs: run.jobs, yieldMs: run.yieldMs };
    const job = jobIn(run, id);
    return { scores: jobScores(run, job, solo), jobs: [job], yieldMs: job.yieldMs };
  });
}

function rowOf(policy: string, job: string | null, parts: readonly Part[]): CompareRow {
  const estimates = byMeasure((measure) => estimate(parts.map(({ scores }) => measure.of(scores))));
  const jobs = parts.flatMap((part) => part.jobs);
  const yields = parts.flatMap(({ yieldMs }) => (yieldMs === null ? [] : [yieldMs]));
  const perRun = (of: (each: JobMeasured) => number): number =>
    jobs.reduce((sum, each) => sum + of(each), 0) / parts.length;
  return {
    policy,
    job,
    goodput: estimates.goodput?.mean ?? null,
    makespan_s: estimates.makespan_s?.mean ?? null,
    slowdown: estimates.slowdown?.mean ?? null,
    jain: estimates.jain?.mean ?? null,
    queue_wait_ms: queueWaits(jobs),
    yield_ms: yields.length === 0 ? null : quantiles(yields.flat()),
    busy: estimates.busy?.mean ?? null,
    wasted: estimates.wasted?.mean ?? null,
    token_p99_ms: estimates.token_p99_ms?.mean ?? null,
    weight_bytes: estimates.weight_bytes?.mean ?? null,
    ci95: byMeasure(({ key }) => estimates[key]?.ci95 ?? null),
    tokens_decoded: perRun(({ tokensDecoded }) => tokensDecoded),
    tokens_trained: perRun(({ tokensTrained }) => tokensTrained),
    tokens_wasted: wastedTokens(perRun),
    staleness: shares(jobs.map(({ staleness }) => staleness)),
  };
}

function wastedTokens(perRun: (of: (job: JobMeasured) => number) => number): WastedTokens {
  return {
    aborted: perRun(({ tokensWasted }) => tokensWasted.aborted),
    expired: perRun(({ tokensWasted }) => tokensWasted.expired),
    filtered: perRun(({ tokensWasted }) => tokensWasted.filtered),
    recomputed: perRun(({ tokensWasted }) => tokensWasted.recomputed),
  };
}

function queueWaits(jobs: readonly JobMeasured[]): Partial<Record<Stage, Quantiles>> {
  const waits: Partial<Record<Stage, Quantiles>> = {};
  for (const stage of STAGES) {
    const samples = jobs.flatMap(({ queueWaitMs }) => queueWaitMs[stage] ?? []);
    if (samples.length > 0) waits[stage] = quantiles(samples);
  }
  return waits;
}

/** Counts added up place by place, over their sum. */
function shares(histograms: readonly (readonly number[])[]): number[] {
  const length = Math.max(0, ...histograms.map((counts) => counts.length));
  const sums = Array.from({ length }, (_, versions) => {
    return histograms.reduce((sum, counts) => sum + (counts[versions] ?? 0), 0);
  });
  const total = sums.reduce((sum, count) => sum + count, 0);
  return total === 0 ? [] : sums.map((count) => count / total);
}

function differencesOf(policies: readonly string[], repeats: readonly Repeat[]): CompareDifference[] {
  const scores = policies.map((_, policy) =>
    repeats.map(({ runs, solo }) => runScores(at(runs, policy), solo)),
  );
  return policies.flatMap((policy, ours) =>
    policies.slice(0, ours).flatMap((against, theirs) =>
      MEASURES.map(({ key: measure, of }) => {
        const { difference, relative, verdict } = pairedDifference(
          at(scores, ours).map(of),
          at(scores, theirs).map(of),
        );
        const { mean: centre = null, ci95 = null } = difference ?? {};
        return { measure, policy, against, difference: centre, ci95, relative, verdict };
      }),
    ),
  );
}

function notesOf(policies: readonly string[], jobs: readonly string[], repeats: readonly Repeat[]): string[] {
  const ofPolicies = policies.flatMap((policy, index) => {
    const runs = repeats.map((repeat) => at(repeat.runs, index));
    return [...unfinished(policy, runs), ...brokenPlans(policy, runs)];
  });
  const alone = jobs.flatMap((job) => {
    const missing = repeats.filter(({ solo }) => (solo.get(job) ?? null) === null).length;
    return missing === 0 ? [] : [`${job} alone did not come to its end in ${missing} of ${repeats.length}`];
  });
  return [...ofPolicies, ...alone];
}

function unfinished(policy: string, runs: readonly Measured[]): string[] {
  const ids = at(runs, 0).jobs.map(({ id }) => id);
  return ids.flatMap((id) => {
    const missing = runs.filter((run) => jobIn(run, id).finishedMs === null).length;
    return missing === 0
      ? []
      : [`${policy}: ${id} did not come to its end in ${missing} of ${runs.length} repeats`];
  });
}

function brokenPlans(policy: string, runs: readonly Measured[]): string[] {
  const broken = mean(runs.flatMap(({ violations }) => violations ?? [])) ?? 0;
  return broken === 0
    ? []
    : [`${policy}: plans that broke an invariant were thrown away, ${broken.toFixed(1)} a run`];
}

function jobIn(run: Measured, id: string): JobMeasured {
  const job = run.jobs.find((each) => each.id === id);
  assert(job !== undefined, `a run without its job ${id}`);
  return job;
}
