import { z } from 'zod';
import type { EngineState, JobState } from '../state.js';

export interface GuardOptions {
  readonly interval_ms: number;
  readonly increase: number;
  readonly decrease: number;
  readonly headroom: number;
  readonly slots_start: number;
}

/** The control loop of one lane. Plain JSON. */
export interface Guard {
  /** Slots the background may have while the foreground is within its limit; not whole. */
  readonly level: number;
  /** When the level was last looked at, in ms on the snapshot's clock. */
  readonly steppedMs: number;
  /** How often it has been. */
  readonly steps: number;
}

export const guardSchema: z.ZodType<Guard> = z.object({
  level: z.number(),
  steppedMs: z.number(),
  steps: z.number(),
});

export interface Reading {
  /** Latency over limit of the foreground engine that is worst off. */
  readonly pressure: number;
  /** Most slots the background could use here. */
  readonly slotsMax: number;
  readonly nowMs: number;
}

export function openGuard(options: GuardOptions, nowMs: number): Guard {
  return { level: options.slots_start, steppedMs: nowMs, steps: 0 };
}

/** Latency over limit; 0 for an engine that runs nothing or has told nothing: its last word is about the past. */
export function pressureOf(engine: EngineState, limitMs: number): number {
  return engine.running === 0 ? 0 : (engine.tokenLatencyMs ?? 0) / limitMs;
}

/** Additive increase, multiplicative decrease (Chiu and Jain, 1989), at most once per interval. */
export function stepGuard(
  guard: Guard,
  { pressure, slotsMax, nowMs }: Reading,
  options: GuardOptions,
): Guard {
  if (nowMs < guard.steppedMs + options.interval_ms) return guard;
  const stepped = { steppedMs: nowMs, steps: guard.steps + 1 };
  if (pressure > 1) return { ...stepped, level: guard.level * options.decrease };
  if (pressure > options.headroom) return { ...stepped, level: guard.level };
  return { ...stepped, level: Math.min(guard.level + options.increase, Math.max(slotsMax, 1)) };
}

/** Whole slots for the background now: none while the foreground is over its limit. */
export function slotsAllowed(guard: Guard, pressure: number): number {
  return pressure > 1 ? 0 : Math.floor(guard.level);
}

/**
 * Divides slots among jobs in proportion to their weights, none getting more than it can use. Where there are fewer
 * slots than jobs, `turn` says with whom to begin, so that all get some in time.
 */
export function dividedByWeight(
  jobs: readonly JobState[],
  slots: number,
  turn: number,
): Map<JobState, number> {
  const slotsMax = jobs.reduce((sum, job) => sum + job.slotsMax, 0);
  if (slots >= slotsMax) return new Map(jobs.map((job) => [job, job.slotsMax]));
  const shares = new Map<JobState, number>();
  const start = slots < jobs.length ? turn % jobs.length : 0;
  const inTurn = [...jobs.slice(start), ...jobs.slice(0, start)];
  const isScarce = slots < jobs.length;
  for (let left = slots; left > 0; left--) {
    const claim = (job: JobState): number => ((shares.get(job) ?? 0) + 1) / job.weight;
    const open = inTurn.filter((job) => (shares.get(job) ?? 0) < (isScarce ? 1 : job.slotsMax));
    const [first] = open;
    if (first === undefined) break;
    const next = isScarce ? first : open.reduce((best, job) => (claim(job) < claim(best) ? job : best));
    shares.set(next, (shares.get(next) ?? 0) + 1);
  }
  return shares;
}
