import type { Stage } from '../../scheduler/stages.js';
import type { JobId, LaneId } from '../../scheduler/state.js';

/** The two ways to spend a lane's time: generation, and the stages that hold a lane alone. */
export type WorkKind = 'training' | 'generation';

/** Tokens that were computed and came to nothing, by what became of them. */
export interface WastedTokens {
  /** Their rollout was stopped before its end. */
  readonly aborted: number;
  /** Their rollout was older than the job's staleness bound. */
  readonly expired: number;
  /** Their rollout or group was finished and not used. */
  readonly filtered: number;
  /** Read a second time because a cache was lost. */
  readonly recomputed: number;
}

/** What one job did in one run. Times are ms since the run's beginning. */
export interface JobMeasured {
  readonly id: JobId;
  /** Null if it never came. */
  readonly arrivedMs: number | null;
  /** Null if it did not come to its own end. */
  readonly finishedMs: number | null;
  /** Sampled. */
  readonly tokensDecoded: number;
  /** Reached a gradient; of a job without a trainer: were delivered. */
  readonly tokensTrained: number;
  readonly tokensWasted: WastedTokens;
  /** From asking for a stage to its grant, ms. */
  readonly queueWaitMs: Readonly<Partial<Record<Stage, readonly number[]>>>;
  /** How long its generation took to let go of a device; null where that is known of the whole run only. */
  readonly yieldMs: readonly number[] | null;
  /** p99 of the time between two tokens of a sequence, training, held and moved included, ms; null where not known. */
  readonly tokenP99Ms: number | null;
  /** Bytes of weights that crossed the host. */
  readonly weightBytes: number;
  /** Trained tokens, or rollouts, by how many versions behind the newest they were; see `Measured.stalenessUnit`. */
  readonly staleness: readonly number[];
}

/** A stretch of a lane's time. */
export interface Span {
  readonly lane: LaneId;
  readonly job: JobId;
  readonly kind: WorkKind;
  readonly fromMs: number;
  readonly toMs: number;
  /** Share of it in which the device worked for the job, 0 to 1. */
  readonly busy: number;
}

/** Time that a lane's device spent on one kind of work of a job. */
export interface LaneBusy {
  readonly lane: LaneId;
  readonly job: JobId;
  readonly kind: WorkKind;
  readonly ms: number;
}

/** One run of a scenario under one policy, live or simulated. Times are ms since its beginning. */
export interface Measured {
  readonly endMs: number;
  /** From the first job's coming to the last one's end; null if not every job came to its end. */
  readonly makespanMs: number | null;
  readonly lanes: number;
  readonly jobs: readonly JobMeasured[];
  /** Null where no lane told how long its device worked. */
  readonly busy: readonly LaneBusy[] | null;
  /** How long generation took to let go of a device, over all jobs, ms. */
  readonly yieldMs: readonly number[];
  readonly stalenessUnit: 'tokens' | 'rollouts';
  /** Plans that broke an invariant and were thrown away; null where nobody counted. */
  readonly violations: number | null;
  readonly timeline: {
    readonly spans: readonly Span[];
    /** Stretches for which there was no room. */
    readonly dropped: number;
  };
}

export function wastedTotal({ aborted, expired, filtered, recomputed }: WastedTokens): number {
  return aborted + expired + filtered + recomputed;
}

/** From its coming to its own end, ms; null if either is missing. */
export function jobTimeMs({ arrivedMs, finishedMs }: JobMeasured): number | null {
  return arrivedMs === null || finishedMs === null ? null : finishedMs - arrivedMs;
}
