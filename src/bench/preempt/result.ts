import type { AdapterSummary } from '../../gpu/device.js';

/** How the low-priority work of a cell behaves when a stage of higher priority asks for the device. */
export type PreemptMode =
  /** Offbeat's: slices of bounded predicted time, a bounded amount in flight, caches stay where they are. */
  | 'held'
  /** The same, and every cache is copied to the host before the stage begins, and back afterwards. */
  | 'spilled'
  /** The same, and every cache is dropped and computed again afterwards. */
  | 'dropped'
  /** The stage has a second device on the same adapter: nobody yields, the adapter shares as it likes. */
  | 'second-device'
  /** One slice of the budget in flight, the next is submitted when the host has seen it finish. */
  | 'one-slice'
  /** Every step is one uncut slice, and the stage waits for the end of the present one. */
  | 'drain'
  /** The stage waits for one uncut step, all sequences are aborted and begin again from their prompts (ROLL's way). */
  | 'abort-retry'
  /** Nothing is cut and nothing is bounded but the number of steps submitted ahead. */
  | 'unlimited'
  /** The stage waits until every sequence under way has come to its end. */
  | 'no-preemption';

/** Nearest-rank quantiles in milliseconds; null when there is no sample. */
export interface YieldQuantiles {
  readonly n: number;
  readonly p50: number | null;
  readonly p90: number | null;
  readonly p99: number | null;
  readonly p999: number | null;
  readonly max: number | null;
}

/** A preemption that took longer than the law allows. */
export interface Violation {
  readonly yield_ms: number;
  readonly bound_ms: number;
  /** The slice it waited for, by its longest dispatch. */
  readonly kernel: string | null;
  readonly predicted_us: number | null;
  readonly real_us: number | null;
}

/** One measured configuration. Latency never comes without the throughput of the same cell. */
export interface PreemptCell {
  readonly mode: PreemptMode;
  /** Null: unlimited. */
  readonly slice_budget_us: number | null;
  /** Null: unlimited. 0: one slice at a time. */
  readonly in_flight_budget_us: number | null;
  /** The stage said a little earlier that it would come. */
  readonly hint: boolean;
  /** Preemptions measured. */
  readonly n: number;
  /** Request → the stage's first dispatch could start, by the device's clock where it has timestamps, else the host's. */
  readonly yield_ms: YieldQuantiles;
  readonly yield_clock: 'device' | 'host';
  /** The same by the host's clock: the host has seen the last low-priority slice finish. */
  readonly yield_host_ms: YieldQuantiles;
  /** Request → the lane's thread has read it. Part of the above. */
  readonly detection_ms: YieldQuantiles;
  /** Median of what the law allows: detection + in-flight budget + largest dispatch + 200 µs. Null where no law is claimed. */
  readonly bound_ms: number | null;
  /** Preemptions above their own bound. */
  readonly law_violations: number;
  /** Those above it by more than the host's own p99 jitter, measured on an empty device. */
  readonly law_violations_beyond_jitter: number;
  /** Worst first, at most 20. */
  readonly violations: readonly Violation[];
  /** Low-priority tokens a second over the rate of uncut work, scaled to the time that high priority left it. */
  readonly lp_retained: number;
  readonly lp_tokens_per_s: number;
  /** Median time of a high-priority step, from request to result, over that of one alone on the device, minus 1. */
  readonly hp_slowdown: number;
  readonly hp_ms: YieldQuantiles;
  /** Median of release → first new token; null where nothing resumed. */
  readonly resume_ms: number | null;
  readonly resume: YieldQuantiles;
  /** Device time without use, over the whole cell. */
  readonly wasted: {
    /** Tokens computed a second time. */
    readonly recompute_ms: number;
    /** Tokens thrown away. */
    readonly discarded_ms: number;
    /** Nothing ran although low-priority work was waiting. */
    readonly idle_ms: number;
    /** Of it: low-priority work held back because a hint said that high priority would come. */
    readonly hint_idle_ms: number;
  };
  readonly tokens_recomputed: number;
  readonly tokens_discarded: number;
  /** Processor time of the lane's thread over wall time; null where the platform does not tell it. */
  readonly host_cpu: number | null;
  /** Share of the cell's wall time that high priority held the device. */
  readonly hp_duty: number;
  /** Requests of which the lane kept no record: they are in no number of this cell. */
  readonly requests_unrecorded: number;
  readonly wall_s: number;
  readonly samples: PreemptSamples;
}

/** Raw samples, one entry a preemption, in order. */
export interface PreemptSamples {
  readonly yield_ms: readonly number[];
  readonly yield_host_ms: readonly number[];
  /** Empty where no law is claimed. */
  readonly bound_ms: readonly number[];
  /** How far low-priority work was in its step, 0 to 1; null between steps. */
  readonly phase: readonly (number | null)[];
  readonly hp_ms: readonly number[];
  readonly resume_ms: readonly (number | null)[];
  /** Low-priority slices, evenly picked from all of them, at most 2,000. */
  readonly slice_predicted_us: readonly number[];
  readonly slice_real_us: readonly number[];
}

/** What `offbeat bench preempt --json` writes. */
export interface PreemptResult {
  readonly format: 'offbeat-bench-preempt/1';
  readonly adapter: AdapterSummary;
  readonly host: { readonly cpus: number; readonly cpu_model: string; readonly node: string };
  readonly seed: number;
  /** The name of its folder. */
  readonly model: string;
  /** What low priority does, in words: sequences, prompt and completion lengths. */
  readonly low_priority: string;
  /** What high priority does, in words. */
  readonly high_priority: string;
  /** True when Ctrl-C or SIGTERM ended it early: it holds what was measured until then. */
  readonly interrupted: boolean;
  /** Cells for which there was no time, in words. */
  readonly left_out: readonly string[];
  /** p99 of request → first dispatch begun on an empty device: what host and adapter take by themselves. */
  readonly host_jitter_ms: number;
  readonly host_jitter: YieldQuantiles;
  /** High priority alone on the device: the baseline of `hp_slowdown`. */
  readonly solo: { readonly hp_ms: YieldQuantiles };
  /** Low priority alone, uncut and unlimited: the baseline of `lp_retained`. */
  readonly unchunked: { readonly lp_tokens_per_s: number; readonly decode_step_ms: number };
  readonly cells: readonly PreemptCell[];
  readonly wall_s: number;
}
