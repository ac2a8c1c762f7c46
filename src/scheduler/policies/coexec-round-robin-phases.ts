import { z } from 'zod';
import type { JobId } from '../state.js';

/** What a job has been seen to do in its cycles of generation and training. Plain JSON. */
export interface Phases {
  /** What it does since the plan before. */
  readonly doing: 'generation' | 'training' | 'nothing';
  /** Its share of the lanes it generates on beside others, above 0 and at most 1. */
  readonly share: number;
  /** Of the present cycle so far, in ms as if it were alone. */
  readonly rolloutMsNow: number;
  readonly trainMsNow: number;
  /** Of a whole cycle, in ms as if it were alone: a running mean; null before the first has ended. */
  readonly cycle: { readonly rolloutMs: number; readonly trainMs: number } | null;
}

export const phasesSchema: z.ZodType<Phases> = z.object({
  doing: z.enum(['generation', 'training', 'nothing']),
  share: z.number(),
  rolloutMsNow: z.number(),
  trainMsNow: z.number(),
  cycle: z.object({ rolloutMs: z.number(), trainMs: z.number() }).nullable(),
});

export const NO_PHASES: Phases = {
  doing: 'nothing',
  share: 1,
  rolloutMsNow: 0,
  trainMsNow: 0,
  cycle: null,
};

/** Weight of the latest cycle in the running mean. */
const CYCLE_BLEND = 0.3;

/**
 * Adds the time since the plan before to what the job was doing. Engines on a lane share its time by weight, so a
 * share of the time is what generation would have taken alone.
 */
export function observe(phases: Phases, elapsedMs: number): Phases {
  const { doing, share, rolloutMsNow, trainMsNow } = phases;
  if (doing === 'generation') return { ...phases, rolloutMsNow: rolloutMsNow + elapsedMs * share };
  if (doing === 'training') return { ...phases, trainMsNow: trainMsNow + elapsedMs };
  return phases;
}

/** A training turn has ended, and with it a cycle. */
export function closeCycle(phases: Phases): Phases {
  const { rolloutMsNow, trainMsNow, cycle } = phases;
  const blend = (mean: number | undefined, latest: number): number =>
    mean === undefined ? latest : mean + CYCLE_BLEND * (latest - mean);
  const rolloutMs = blend(cycle?.rolloutMs, rolloutMsNow);
  const trainMs = blend(cycle?.trainMs, trainMsNow);
  return { ...phases, rolloutMsNow: 0, trainMsNow: 0, cycle: { rolloutMs, trainMs } };
}

/**
 * True when these jobs can share one cycle: all their rollouts, and all their training, each fit into `slack` times
 * the longest cycle one of them has alone. One whose cycle nobody has seen yet shares with nobody.
 */
export function fitTogether(members: readonly Phases[], slack: number): boolean {
  let rolloutMs = 0;
  let trainMs = 0;
  let longestMs = 0;
  for (const { cycle } of members) {
    if (cycle === null) return members.length === 1;
    rolloutMs += cycle.rolloutMs;
    trainMs += cycle.trainMs;
    longestMs = Math.max(longestMs, cycle.rolloutMs + cycle.trainMs);
  }
  return members.length === 1 || Math.max(rolloutMs, trainMs) <= slack * longestMs;
}

/** Co-execution groups of the jobs given: each joins the first group it fits into, or opens one. */
export function groupsOf(jobs: readonly JobId[], phasesOf: (job: JobId) => Phases, slack: number): JobId[][] {
  const groups: JobId[][] = [];
  for (const job of jobs) {
    const group = groups.find((members) => fitTogether([...members, job].map(phasesOf), slack));
    if (group === undefined) groups.push([job]);
    else group.push(job);
  }
  return groups;
}
