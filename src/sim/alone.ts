import type { Policy } from '../scheduler/plan.js';
import type { SimOutcome } from './outcome.js';
import type { SimScenario } from './scenario.js';
import { simulate, type SimOptions } from './simulate.js';

/** With more jobs than this, simulating each by itself would take longer than it tells anything. */
const JOBS_MAX = 16;

/**
 * How long each job that ended takes alone: on the same lanes, with the same draws and faults, from time 0 on.
 *
 * @returns ms by job; nothing for jobs that did not end, or when there are too many.
 */
export async function aloneMs(
  scenario: SimScenario,
  policy: Policy,
  options: SimOptions,
  { jobs }: SimOutcome,
): Promise<ReadonlyMap<string, number>> {
  const alone = new Map<string, number>();
  if (jobs.length > JOBS_MAX) return alone;
  for (const { id, startedMs, finishedMs, isGivenUp } of jobs) {
    const spec = scenario.jobs.find((job) => job.id === id);
    if (spec === undefined || startedMs === null || finishedMs === null || isGivenUp) continue;
    if (scenario.jobs.length === 1) {
      alone.set(id, finishedMs - startedMs);
      continue;
    }
    const { leavesMs: _, ...job } = spec;
    const only = { ...scenario, jobs: [{ ...job, arrivesMs: 0 }] };
    const limits = { spansMax: 0, recordsMax: 0, planEventsMax: 0 };
    const { makespanMs } = await simulate(only, policy, { ...options, ...limits });
    if (makespanMs !== null && makespanMs > 0) alone.set(id, makespanMs);
  }
  return alone;
}
