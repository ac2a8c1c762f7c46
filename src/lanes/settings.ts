import type { KvOnPreempt } from '../engine/engine.js';

export interface ExecutorBudgets {
  /** Predicted µs of one slice at most (one longer dispatch is a slice of its own). */
  readonly sliceUs: number;
  /** Predicted µs submitted and unfinished at most. */
  readonly inFlightUs: number;
}

/** How a lane shares its device; may be changed while it runs. */
export interface LaneSettings {
  readonly budgets: ExecutorBudgets;
  /** What becomes of the caches of generation's sequences while a stage holds the device. */
  readonly kvOnPreempt: KvOnPreempt;
  /**
   * Share of the device's time, from 0 to below 1, that generation gets even while stages of higher priority never
   * rest; 0 lets it starve, and the records say so.
   */
  readonly generationFloor: number;
}

/** Caches held, no floor. */
export function laneSettings(budgets: ExecutorBudgets): LaneSettings {
  return { budgets, kvOnPreempt: { kind: 'held' }, generationFloor: 0 };
}
