import { quantiles, type Quantiles } from './quantiles.js';
import { boundMs, type KvCounts, lawfulYieldMs, type PreemptionRecord } from './records.js';
import type { RunRecords } from './run-records.js';

/** How generation let go of the device in one run, in numbers. */
export interface PreemptionSummary {
  readonly count: number;
  /** By the host's clock. */
  readonly time_to_yield_ms: Quantiles;
  /** By the device's clock: only the preemptions for which it was read. */
  readonly time_to_yield_device_ms: Quantiles;
  /** Median of what the law allows: detection + in-flight budget + largest dispatch + 200 µs; null without preemptions. */
  readonly bound_ms: number | null;
  /** Preemptions that took longer than the law allows. */
  readonly law_violations: number;
  /** Null without preemptions. */
  readonly law_obeyed_share: number | null;
  /** The violation furthest over its bound; null when there is none. */
  readonly law_worst: LawBreach | null;
  readonly resume_ms: Quantiles;
  readonly tokens_recomputed: number;
  /** What became of the caches of preempted sequences; one that was preempted twice counts twice. */
  readonly kv: KvCounts;
  /** Device time that stood unused because a hint kept generation shallow. */
  readonly hint_idle_ms: number;
  /** Longest a slice may be predicted to take. */
  readonly slice_budget_us: number;
  /** Most predicted work that may be submitted and unfinished. */
  readonly in_flight_budget_us: number;
  /** Longest single dispatch of a resident that yields. */
  readonly largest_dispatch_us: number;
}

/** A preemption that took longer than the law allows, and the slice it waited for. */
export interface LawBreach {
  readonly yield_ms: number;
  readonly bound_ms: number;
  /** The slice's longest dispatch; null when no slice is to blame. */
  readonly kernel: string | null;
  readonly predicted_us: number | null;
  readonly real_us: number | null;
}

export type Budgets = Pick<
  PreemptionSummary,
  'slice_budget_us' | 'in_flight_budget_us' | 'largest_dispatch_us'
>;

/** Counts are over the whole run; quantiles over the preemptions that the records kept. */
export function preemptionSummary(records: RunRecords, budgets: Budgets): PreemptionSummary {
  const { law } = records;
  const worst = law.worst[0];
  return {
    count: law.count,
    time_to_yield_ms: quantiles(records.timesToYieldMs()),
    time_to_yield_device_ms: quantiles(records.timesToYieldDeviceMs()),
    bound_ms: quantiles(records.preemptions.items.map(boundMs)).p50,
    law_violations: law.violations,
    law_obeyed_share: law.obeyedShare,
    law_worst: worst === undefined ? null : lawBreach(worst),
    resume_ms: quantiles(records.resumesMs()),
    tokens_recomputed: law.tokensRecomputed,
    kv: law.kv,
    hint_idle_ms: records.hintIdleMs,
    ...budgets,
  };
}

export function lawBreach(preemption: PreemptionRecord): LawBreach {
  const { blame } = preemption;
  return {
    yield_ms: lawfulYieldMs(preemption),
    bound_ms: boundMs(preemption),
    kernel: blame?.kernel ?? null,
    predicted_us: blame?.predictedUs ?? null,
    real_us: blame?.realUs ?? null,
  };
}
