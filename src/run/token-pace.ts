import type { EngineUpdate } from '../engine/engine.js';
import { nowMs } from '../lib/clock.js';
import { nearestRank } from '../telemetry/quantiles.js';

/** Times between tokens that the quantile is taken over: the latest of those since the last report. */
const GAPS_MAX = 512;
/** Between two reports of a latency: one of fewer tokens would say less of the engine than of the moment. */
export const LATENCY_REPORT_MS = 100;

/** What an engine has sampled since the last report, and how fast. */
export interface PaceReport {
  readonly tokens: number;
  /** p99 of the gaps, in ms, by nearest rank; left out while the last one told still stands. */
  readonly tokenLatencyMs?: number;
  /** One decode step of it alone on the device, in ms; left out before it is known. */
  readonly stepMs?: number;
}

interface LanePace {
  tokens: number;
  /** By sequence: when its latest token was heard of. */
  readonly heardMs: Map<number, number>;
  /** Since the last latency told; a ring. */
  gapsMs: number[];
  next: number;
  latencyToldMs: number;
  stepMs: number | null;
}

/**
 * How fast a job's engines sample, as the host hears of it: what the scheduler is told of them. The gap between two
 * tokens of a sequence counts whatever lies in it, a preemption as well as a step; time spent waiting for an
 * environment, or on the way to another lane, is no gap. Each gap counts for one report only, as in the simulator.
 */
export class TokenPace {
  readonly #lanes = new Map<number, LanePace>();

  /** @param stepMs what the lane says of the engine's decode steps; null before it knows */
  hear(lane: number, update: EngineUpdate, stepMs: number | null, atMs = nowMs()): void {
    const pace = this.#of(lane);
    pace.tokens += update.ids.length;
    pace.stepMs = stepMs ?? pace.stepMs;
    for (const id of update.ids) {
      const before = pace.heardMs.get(id);
      pace.heardMs.set(id, atMs);
      if (before === undefined) continue;
      pace.gapsMs[pace.next] = atMs - before;
      pace.next = (pace.next + 1) % GAPS_MAX;
    }
    for (const { id } of [...update.finished, ...(update.paused ?? [])]) pace.heardMs.delete(id);
  }

  /** The engine's decode step, in ms; null before it is known. */
  stepMs(lane: number): number | null {
    return this.#of(lane).stepMs;
  }

  /** What there is to report of the lane's engine now; a report takes it. */
  take(lane: number, atMs = nowMs()): PaceReport {
    const pace = this.#of(lane);
    const { tokens, gapsMs, stepMs } = pace;
    pace.tokens = 0;
    const report = { tokens, ...(stepMs === null ? {} : { stepMs }) };
    if (gapsMs.length === 0 || atMs < pace.latencyToldMs + LATENCY_REPORT_MS) return report;
    pace.gapsMs = [];
    pace.next = 0;
    pace.latencyToldMs = atMs;
    const tokenLatencyMs = nearestRank(Float64Array.from(gapsMs).sort(), 0.99);
    return tokenLatencyMs === null ? report : { ...report, tokenLatencyMs };
  }

  /** Nothing runs there any more: what runs there next starts afresh. Tokens that were not told of are still to tell. */
  clear(lane: number): void {
    const { tokens } = this.#of(lane);
    this.#lanes.delete(lane);
    this.#of(lane).tokens = tokens;
  }

  #of(lane: number): LanePace {
    let pace = this.#lanes.get(lane);
    if (pace === undefined) {
      const nothing = { gapsMs: [], next: 0, latencyToldMs: -Infinity, stepMs: null };
      pace = { tokens: 0, heardMs: new Map(), ...nothing };
      this.#lanes.set(lane, pace);
    }
    return pace;
  }
}
