/**
 * What lanes, the scheduler and the reward pool tell the host about their time. Plain data: every record survives a
 * structured clone, so a lane can post it as it is. All times are milliseconds on `nowMs` (lib/clock), which every
 * thread of the process shares; a record is sent once it is complete, or once the run ends.
 */

/** The two kinds of resident a job has on a lane. */
export type ResidentKind = 'trainer' | 'engine';

/** One slice: a single queue submission of one resident. Slices of one lane run in the order they were submitted. */
export interface SliceRecord {
  readonly lane: number;
  readonly job: string;
  readonly resident: ResidentKind;
  readonly submittedMs: number;
  /** When the device could begin it: its submission, or the end of the slice before it, whichever came later. */
  readonly startedMs: number;
  /** When the host learned that it had finished. */
  readonly finishedMs: number;
  /** What the cost model expected, in device microseconds. */
  readonly predictedUs: number;
  readonly dispatches: number;
}

/** What became of a preempted engine's KV cache: kept on the device, copied to the host and back, or recomputed. */
export type KvState = 'held' | 'spilled' | 'dropped';

/** One time that a stage of higher priority took the device from an engine, and how the engine came back. */
export interface PreemptionRecord {
  readonly lane: number;
  /** The job whose engine yielded. */
  readonly job: string;
  /** The stage that asked for the device, one of the scheduler's seven. */
  readonly stage: string;
  readonly requestedMs: number;
  /** The engine's last slice had finished by the host's clock: the asker's first dispatch could start. */
  readonly yieldedMs: number;
  /**
   * When the asker's first dispatch began, by the device's timestamps put on the host's clock; null where the device
   * has none, or the record was sent before it was known.
   */
  readonly yieldedDeviceMs: number | null;
  /** The asker gave the device back; null if the run ended first. */
  readonly releasedMs: number | null;
  /** The engine's first new token after that; null if none came before the run ended. */
  readonly resumedMs: number | null;
  readonly kv: KvState;
  /** Tokens that were computed a second time because of this preemption. */
  readonly tokensRecomputed: number;
}

/**
 * A version of a job's weights on the move: written to the store (`publish`), copied on the device and pointed at
 * between slices (`flip`), or fetched from the store by a lane that is awake (`pull`).
 */
export interface VersionRecord {
  readonly lane: number;
  readonly job: string;
  readonly version: number;
  readonly kind: 'publish' | 'flip' | 'pull';
  /** When it was complete. */
  readonly atMs: number;
  /** How long it took. */
  readonly durationMs: number;
  /** Bytes that crossed the host; a flip has none. */
  readonly bytes: number;
}

/** One stage of one job, from asking the scheduler to giving its devices back. */
export interface StageRecord {
  readonly job: string;
  readonly stage: string;
  readonly requestedMs: number;
  /** Null if it was still waiting when the run ended. */
  readonly grantedMs: number | null;
  /** Null if it still held its devices when the run ended. */
  readonly releasedMs: number | null;
}

/** A time in which a job's engine was awake on a lane. */
export interface AwakeRecord {
  readonly lane: number;
  readonly job: string;
  readonly fromMs: number;
  readonly toMs: number;
}

/** One applied plan of the scheduler, with its changes in words ("wake main engine on lane 1, 32 slots"). */
export interface PlanRecord {
  readonly cycle: number;
  readonly atMs: number;
  readonly changes: readonly string[];
}

/** One rollout's reward, computed off the lanes. */
export interface RewardRecord {
  readonly job: string;
  readonly rollout: string;
  readonly startedMs: number;
  readonly finishedMs: number;
  /** Why the rollout is marked failed; null when it has a reward. */
  readonly failure: string | null;
}

/** Everything one lane has to tell since it last did: one message, never one per slice. */
export interface LaneRecords {
  readonly slices: readonly SliceRecord[];
  readonly preemptions: readonly PreemptionRecord[];
  readonly versions: readonly VersionRecord[];
  /** Slices the lane could not keep in its own bounded buffer. */
  readonly slicesDropped: number;
}

/** Request → the asker's first dispatch could start, in milliseconds on the host's clock. */
export function timeToYieldMs(preemption: PreemptionRecord): number {
  return preemption.yieldedMs - preemption.requestedMs;
}

/** Release → the engine's first new token, in milliseconds; null if the run ended before it. */
export function resumeMs(preemption: PreemptionRecord): number | null {
  const { releasedMs, resumedMs } = preemption;
  return releasedMs === null || resumedMs === null ? null : resumedMs - releasedMs;
}
