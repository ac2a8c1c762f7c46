import { z } from 'zod';
import { at } from '../../lib/assert.js';
import type { EngineState, JobState } from '../state.js';

export interface GuardOptions {
  readonly interval_ms: number;
  readonly increase: number;
  readonly decrease: number;
  readonly headroom: number;
  readonly slots_start: number;
  readonly probe_ms: number;
}

/** The control loop of one lane. Plain JSON. */
export interface Guard {
  /** Slots the background may have while the foreground is within its limit; not whole. */
  readonly level: number;
  /** When the level was last changed or kept on purpose, in ms on the snapshot's clock. */
  readonly steppedMs: number;
  /** How often it has been. */
  readonly steps: number;
  /** The foreground was over its limit at the last look. */
  readonly isOver: boolean;
  /** The fewest slots that turned out to be too many; null when none have. */
  readonly tooMany: number | null;
  /** How often in a row they have. */
  readonly failures: number;
  /** Before this, `tooMany` is not tried again. */
  readonly probeAtMs: number;
}

export const guardSchema: z.ZodType<Guard> = z.object({
  level: z.number(),
  steppedMs: z.number(),
  steps: z.number(),
  isOver: z.boolean(),
  tooMany: z.number().nullable(),
  failures: z.number(),
  probeAtMs: z.number(),
});

export interface Reading {
  /** Latency over limit of the foreground engine that is worst off. */
  readonly pressure: number;
  /** Most slots the background could use here. */
  readonly slotsMax: number;
  readonly nowMs: number;
}

/** A level that keeps failing is tried again after `probe_ms` times 2, 4, 8 and so on, at most so often doubled. */
const DOUBLINGS_MAX = 6;

export function openGuard(options: GuardOptions, nowMs: number): Guard {
  const known = { isOver: false, tooMany: null, failures: 0, probeAtMs: nowMs };
  return { level: options.slots_start, steppedMs: nowMs, steps: 0, ...known };
}

/** Latency over limit; 0 for an engine that runs nothing or has told nothing: its last word is about the past. */
export function pressureOf(engine: EngineState, limitMs: number): number {
  return engine.running === 0 ? 0 : (engine.tokenLatencyMs ?? 0) / limitMs;
}

/**
 * Additive increase, multiplicative decrease (Chiu and Jain, 1989). The cut comes at once, and once for every time the
 * limit is passed: from then on the background stands still, so whatever else is measured is not its doing. Increases
 * come at most once per interval. A level that was too much is remembered and left alone for a while that doubles with
 * every failure: a p99 allows one token in a hundred to be late, and each try costs some.
 */
export function stepGuard(guard: Guard, reading: Reading, options: GuardOptions): Guard {
  const { pressure, slotsMax, nowMs } = reading;
  if (pressure > 1) return guard.isOver ? guard : cut(guard, nowMs, options);
  const calm = guard.isOver ? { ...guard, isOver: false } : guard;
  if (nowMs < guard.steppedMs + options.interval_ms) return calm;
  const stepped = { ...calm, steppedMs: nowMs, steps: guard.steps + 1 };
  if (pressure > options.headroom) return stepped;
  const isProbing = guard.tooMany === null || nowMs >= guard.probeAtMs;
  const most = isProbing || guard.tooMany === null ? Math.max(slotsMax, 1) : guard.tooMany - 1;
  const level = Math.max(guard.level, Math.min(guard.level + options.increase, most));
  const hasPassed = guard.tooMany !== null && Math.floor(guard.level) >= guard.tooMany;
  return hasPassed ? { ...stepped, level, tooMany: null, failures: 0 } : { ...stepped, level };
}

function cut(guard: Guard, nowMs: number, options: GuardOptions): Guard {
  const slots = Math.floor(guard.level);
  // Without any background it is the foreground itself, or a stage.
  if (slots === 0) return { ...guard, isOver: true };
  const failures = slots === guard.tooMany ? guard.failures + 1 : 1;
  const waitMs = options.probe_ms * 2 ** Math.min(failures - 1, DOUBLINGS_MAX);
  return {
    level: Math.min(guard.level * options.decrease, slots - 1),
    steppedMs: nowMs,
    steps: guard.steps + 1,
    isOver: true,
    tooMany: slots,
    failures,
    probeAtMs: nowMs + waitMs,
  };
}

/** What a quotient may be off by and still be that whole number. */
const EPSILON = 1e-9;

/** Whole slots for the background now: none while the foreground is over its limit. */
export function slotsAllowed(guard: Guard): number {
  return guard.isOver ? 0 : Math.floor(guard.level);
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
  if (slots < jobs.length) {
    const inTurn = Array.from({ length: slots }, (_, place) => at(jobs, (turn + place) % jobs.length));
    return new Map(inTurn.map((job) => [job, 1]));
  }
  return highestAverages(jobs, slots);
}

/**
 * One slot at a time to whoever then has least for its weight, the first of those alike (D'Hondt). Nobody's share is
 * ever below what it is worth rounded down, so it begins there.
 */
function highestAverages(jobs: readonly JobState[], slots: number): Map<JobState, number> {
  const weight = jobs.reduce((sum, job) => sum + job.weight, 0);
  const worth = (job: JobState): number => Math.floor((slots * job.weight) / weight - EPSILON);
  const shares = jobs.map((job) => Math.min(Math.max(worth(job), 0), job.slotsMax));
  for (let left = slots - shares.reduce((sum, share) => sum + share, 0); left > 0; left--) {
    let next = -1;
    let least = Infinity;
    jobs.forEach((job, index) => {
      const share = at(shares, index);
      const claim = (share + 1) / job.weight;
      if (share >= job.slotsMax || claim >= least) return;
      next = index;
      least = claim;
    });
    shares[next] = at(shares, next) + 1;
  }
  return new Map(jobs.map((job, index) => [job, at(shares, index)]));
}
