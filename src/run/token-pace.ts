import type { EngineUpdate } from '../engine/engine.js';
import { at } from '../lib/assert.js';
import { nowMs } from '../lib/clock.js';

/** Times between tokens that the quantile is taken over: the latest of them. */
const GAPS_MAX = 512;

interface LanePace {
  tokens: number;
  /** By sequence: when its latest token was heard of. */
  readonly heardMs: Map<number, number>;
  /** A ring. */
  readonly gapsMs: number[];
  next: number;
}

/**
 * How fast a job's engines sample, as the host hears of it: what the scheduler is told of them. The gap between two
 * tokens of a sequence counts whatever lies in it, a preemption as well as a step; time spent waiting for an
 * environment, or on the way to another lane, is no gap.
 */
export class TokenPace {
  readonly #lanes = new Map<number, LanePace>();

  hear(lane: number, update: EngineUpdate, atMs = nowMs()): void {
    const pace = this.#of(lane);
    pace.tokens += update.ids.length;
    for (const id of update.ids) {
      const before = pace.heardMs.get(id);
      pace.heardMs.set(id, atMs);
      if (before === undefined) continue;
      pace.gapsMs[pace.next] = atMs - before;
      pace.next = (pace.next + 1) % GAPS_MAX;
    }
    for (const { id } of [...update.finished, ...(update.paused ?? [])]) pace.heardMs.delete(id);
  }

  /** Tokens sampled there since the last call. */
  take(lane: number): number {
    const pace = this.#of(lane);
    const { tokens } = pace;
    pace.tokens = 0;
    return tokens;
  }

  /** p99 of the latest gaps in ms, by nearest rank; null before there are any. */
  latencyMs(lane: number): number | null {
    const { gapsMs } = this.#of(lane);
    if (gapsMs.length === 0) return null;
    const sorted = [...gapsMs].sort((a, b) => a - b);
    return at(sorted, Math.ceil(0.99 * sorted.length) - 1);
  }

  /** Nothing runs there any more: what runs there next starts afresh. */
  clear(lane: number): void {
    this.#of(lane).heardMs.clear();
  }

  #of(lane: number): LanePace {
    let pace = this.#lanes.get(lane);
    if (pace === undefined) {
      pace = { tokens: 0, heardMs: new Map(), gapsMs: [], next: 0 };
      this.#lanes.set(lane, pace);
    }
    return pace;
  }
}
