import type { Stage } from '../../scheduler/stages.js';
import type { Quantiles } from '../../telemetry/quantiles.js';
import type { WastedTokens } from './measured.js';
import type { Interval, Verdict } from './statistics.js';

/** The numbers that are compared, by their names in the file. */
export type MeasureKey =
  'goodput' | 'makespan_s' | 'slowdown' | 'jain' | 'busy' | 'wasted' | 'token_p99_ms' | 'weight_bytes';

/**
 * One policy, over all jobs or of one: means over repeats, quantiles over the samples of all repeats. A null was not
 * measured, or is missing from a repeat because a job did not come to its end.
 */
export interface CompareRow {
  readonly policy: string;
  /** Null: all jobs together. */
  readonly job: string | null;
  /** Tokens that reached a gradient a second: over the makespan, or from the job's coming to its end. */
  readonly goodput: number | null;
  /** From the first job's coming to the last one's end; of a job, from its coming to its end. */
  readonly makespan_s: number | null;
  /** Time over the time alone on the same lanes; of all jobs, the geometric mean. */
  readonly slowdown: number | null;
  /** Jain's index over the jobs' speed against alone; of a job, that of the runs it was in. */
  readonly jain: number | null;
  /** From asking for a stage to its grant. */
  readonly queue_wait_ms: Readonly<Partial<Record<Stage, Quantiles>>>;
  /** From the request of a stage until its first dispatch could start; null where it is known of all jobs only. */
  readonly yield_ms: Quantiles | null;
  /** Share of the lanes' time, from a run's beginning to its end, in which a device worked; of a job, for it. */
  readonly busy: number | null;
  /** Share of the tokens computed that came to nothing. */
  readonly wasted: number | null;
  /** p99 of the time between two tokens of a sequence, training and waits included; of all jobs, the worst one's. */
  readonly token_p99_ms: number | null;
  /** Bytes of weights that crossed the host. */
  readonly weight_bytes: number | null;
  /** 95 % confidence intervals of the means by Student's t; null for one repeat. */
  readonly ci95: Readonly<Record<MeasureKey, Interval | null>>;
  readonly tokens_decoded: number;
  readonly tokens_trained: number;
  readonly tokens_wasted: WastedTokens;
  /** Share trained by how many versions behind the newest, all repeats together. */
  readonly staleness: readonly number[];
}

/** One policy against another by one number, paired by repeat. */
export interface CompareDifference {
  readonly measure: MeasureKey;
  readonly policy: string;
  readonly against: string;
  /** Mean of policy − against. */
  readonly difference: number | null;
  readonly ci95: Interval | null;
  /** Over the mean of `against`. */
  readonly relative: number | null;
  readonly verdict: Verdict;
}

export interface CompareMachine {
  readonly description: string;
  /** The devices are programs on the CPU. */
  readonly software: boolean;
  readonly vendor: string;
  readonly architecture: string;
}

/** What `offbeat compare --json` writes. */
export interface CompareResult {
  readonly format: 'offbeat-compare/1';
  readonly mode: 'live' | 'simulated';
  readonly machine: CompareMachine;
  readonly scenario: string;
  readonly lanes: number;
  readonly jobs: readonly string[];
  /** The first is what the others are held against. */
  readonly policies: readonly string[];
  /** Asked for; `seeds` has one entry for each that is complete. */
  readonly repeats: number;
  readonly seeds: readonly number[];
  /** True when it was ended early: it holds the complete repeats. */
  readonly interrupted: boolean;
  /** Each job alone on the same lanes. */
  readonly solo: readonly {
    readonly job: string;
    readonly policy: string;
    readonly seconds: number | null;
    readonly ci95: Interval | null;
  }[];
  readonly rows: readonly CompareRow[];
  /** Every pair of policies; no correction is made for their number. */
  readonly differences: readonly CompareDifference[];
  readonly staleness_unit: 'tokens' | 'rollouts';
  /** What a reader should know before the numbers, in words. */
  readonly notes: readonly string[];
  readonly wall_s: number;
}
