import type { PlanRecord } from '../scheduler/scheduler.js';
import type { ExclusiveStage } from '../scheduler/stages.js';
import type { JobId } from '../scheduler/state.js';
import type { AwakeRecord, PreemptionRecord, StageRecord, VersionRecord } from '../telemetry/records.js';
import type { Busy, Span } from './records.js';

/** Where a job's sampled tokens are; `decoded` is always the sum of the others. */
export interface SimTokens {
  readonly decoded: number;
  readonly trained: number;
  /** Of rollouts that a job without a trainer has delivered. */
  readonly served: number;
  /** Of rollouts whose group taught nothing. */
  readonly filtered: number;
  /** Of rollouts that were too old when their step was trained. */
  readonly expired: number;
  /** Of rollouts that a short round had no need of, or that were unfinished or unused when the job was given up. */
  readonly aborted: number;
  readonly inFlight: number;
}

/** Rounds of a job that a policy told how to begin them. */
export interface SimRounds {
  readonly short: number;
  readonly long: number;
  /** Prompts that waited for a long round at the end. */
  readonly deferredPrompts: number;
  /** Short rounds and the long one that follows them, from the end of the one before; the first ten thousand. */
  readonly cycles: readonly {
    readonly steps: number;
    readonly ms: number;
    /** Prompts that wait for the next long round already. */
    readonly deferredPrompts: number;
  }[];
}

export interface SimJobOutcome {
  readonly id: JobId;
  /** When it came; null if the simulation ended before. */
  readonly startedMs: number | null;
  /** When its last step was done, or it was given up; null if neither. */
  readonly finishedMs: number | null;
  readonly isGivenUp: boolean;
  readonly steps: number;
  readonly rollouts: number;
  readonly tokens: SimTokens;
  /** Null where all rounds were plain ones. */
  readonly rounds: SimRounds | null;
  /** Read a second time because a cache was lost. */
  readonly tokensRecomputed: number;
  /** Caches dropped because others of the same engine grew. */
  readonly evictions: number;
  /** Most tokens in the cache of one engine; 0 where caches are not simulated. */
  readonly kvTokensPeak: number;
  /** From asking for a stage to its grant; every sample up to a bound. */
  readonly queueWaitMs: Readonly<Partial<Record<ExclusiveStage, readonly number[]>>>;
  /** Rollouts trained on, by how many versions behind the newest their first token was. */
  readonly staleness: readonly number[];
  /** Bytes of weights pulled by engines. */
  readonly weightBytes: number;
  /** What sending every version to every engine it may have would have taken. */
  readonly weightBytesBroadcast: number;
  /** Between two tokens of a sequence, in ms; binned, at most 5 % too large. */
  readonly tokenLatencyMs: { readonly p50: number | null; readonly p99: number | null };
}

/** The first of each kind, within the bounds of `SimOptions`. */
export interface SimTimeline {
  readonly spans: readonly Span[];
  /** Spans that are left out. */
  readonly dropped: number;
  readonly stages: readonly StageRecord[];
  readonly awake: readonly AwakeRecord[];
  readonly preemptions: readonly PreemptionRecord[];
  readonly versions: readonly VersionRecord[];
}

/** What a simulation came to. All times are ms since its beginning. */
export interface SimOutcome {
  readonly policy: string;
  readonly seed: number;
  /** `stuck`: nothing was left to happen and not every job was done. */
  readonly ended: 'done' | 'horizon' | 'stuck';
  readonly endedMs: number;
  /** From the first job's coming to the last one's end; null if not every job ended. */
  readonly makespanMs: number | null;
  readonly jobs: readonly SimJobOutcome[];
  readonly busy: readonly Busy[];
  readonly timeline: SimTimeline;
  /** The first plans, and how many more there were. */
  readonly plans: readonly PlanRecord[];
  readonly plansDropped: number;
  readonly violations: number;
  readonly firstViolation: string | null;
  readonly yieldMs: readonly number[];
  readonly lanesLost: number;
  readonly stagesRepeated: number;
}
