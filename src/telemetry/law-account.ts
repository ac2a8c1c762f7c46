import { boundMs, type KvCounts, lawfulYieldMs, obeysLaw, type PreemptionRecord } from './records.js';

const WORST_MAX = 20;

/** How preemptions kept the law (see `boundMs`), summed over all of them. The worst breaches are kept whole. */
export class LawAccount {
  count = 0;
  violations = 0;
  tokensRecomputed = 0;
  readonly #kv = { held: 0, spilled: 0, dropped: 0 };
  /** Furthest over its own bound first. */
  #worst: PreemptionRecord[] = [];

  add(preemption: PreemptionRecord): void {
    this.count++;
    this.tokensRecomputed += preemption.tokensRecomputed;
    this.#kv.held += preemption.kv.held;
    this.#kv.spilled += preemption.kv.spilled;
    this.#kv.dropped += preemption.kv.dropped;
    if (obeysLaw(preemption)) return;
    this.violations++;
    this.#worst = [...this.#worst, preemption].sort((a, b) => overMs(b) - overMs(a)).slice(0, WORST_MAX);
  }

  /** At most 20 of the violations, furthest over its own bound first. */
  get worst(): readonly PreemptionRecord[] {
    return this.#worst;
  }

  /** Null when there was no preemption. */
  get obeyedShare(): number | null {
    return this.count === 0 ? null : 1 - this.violations / this.count;
  }

  /** Sequences by what became of their caches; one that was preempted twice counts twice. */
  get kv(): KvCounts {
    return { ...this.#kv };
  }
}

/** By how much it took longer than it might; negative when the law held. */
function overMs(preemption: PreemptionRecord): number {
  return lawfulYieldMs(preemption) - boundMs(preemption);
}
