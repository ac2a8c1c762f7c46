import type { EngineUpdate } from '../engine/engine.js';
import { nowMs } from '../lib/clock.js';
import { LatencyHistogram } from '../sim/latency.js';

/**
 * Times between two tokens of a sequence over a whole run, as whoever waits for them sees them: a step, a preemption, a
 * wait for a slot, a move to another lane. Only an environment's own time is not counted.
 */
export class TokenLatency {
  readonly #gaps = new LatencyHistogram();
  /** By sequence: when its latest token was heard of. */
  readonly #heardMs = new Map<number, number>();

  hear({ ids, finished, paused = [] }: EngineUpdate, atMs = nowMs()): void {
    for (const id of ids) {
      const before = this.#heardMs.get(id);
      this.#heardMs.set(id, atMs);
      if (before !== undefined) this.#gaps.add(atMs - before, 1);
    }
    for (const { id } of [...finished, ...paused]) this.#heardMs.delete(id);
  }

  /** By nearest rank, in ms; at most 5 % too large. Null when there was no gap. */
  get quantiles(): { readonly p50: number | null; readonly p99: number | null } {
    return { p50: this.#gaps.quantile(0.5), p99: this.#gaps.quantile(0.99) };
  }
}
