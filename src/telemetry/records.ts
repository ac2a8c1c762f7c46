/**
 * What lanes, the scheduler and the reward pool tell the host about their time. Plain data: every record survives a
 * structured clone, so a lane can post it as it is. All times are milliseconds on `nowMs` (lib/clock), which every
 * thread of the process shares; a record is sent once it is complete, or once the run ends.
 */

/** The kinds of resident that a job has on a lane. */
export type ResidentKind = 'trainer' | 'critic' | 'engine';

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

/**
 * What became of the caches of a preempted engine's sequences: kept on the device, copied to the host and back, or
 * dropped and computed again. Numbers of sequences.
 */
export interface KvCounts {
  readonly held: number;
  readonly spilled: number;
  readonly dropped: number;
}

/** The slice that kept a stage waiting longer than the law allows. */
export interface Blame {
  /** Its longest dispatch: by the device's clock where each was timed, by prediction otherwise. */
  readonly kernel: string;
  /** Of the slice. */
  readonly predictedUs: number;
  readonly realUs: number;
}

/**
 * One time that a stage of higher priority took the device from generation, and how it came back. Where engines of
 * several jobs yielded, slices and caches are those of all of them; phase and resuming are those of `job`.
 */
export interface PreemptionRecord {
  readonly lane: number;
  /** The job whose engine the device was at, or whose turn was next. */
  readonly job: string;
  /** The other jobs on the lane whose engines had work and yielded too; left out when there were none. */
  readonly alsoYielded?: readonly string[];
  /** The job that asked for the device. */
  readonly asker: string;
  /** The stage that it asked for, one of the scheduler's seven. */
  readonly stage: string;
  readonly requestedMs: number;
  /** The lane's thread had read the request, and submitted nothing of generation from then on. */
  readonly detectedMs: number;
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
  /**
   * Detection → the last of what the engine had to do before it could yield was submitted: the rest of its step and the
   * copying of its caches, where `kv_on_preempt` makes them leave; 0 where they are held.
   */
  readonly leavingMs: number;
  /**
   * The law's right-hand side from then on: in-flight budget, the largest dispatch by prediction, and
   * `ALLOWANCE_MS`.
   */
  readonly budgetMs: number;
  /** Predicted time of what was in flight at detection. */
  readonly inFlightUs: number;
  /** How far the engine had got in its step: 0 before its first op, towards 1; null when it was between steps. */
  readonly phase: number | null;
  /** Null when the law held. */
  readonly blame: Blame | null;
  readonly kv: KvCounts;
  /** Tokens that were computed a second time because of this preemption. */
  readonly tokensRecomputed: number;
}

/** A stage that asked for a device on which nothing of lower priority was running: what host and adapter take by themselves. */
export interface UndisturbedRecord {
  readonly lane: number;
  readonly stage: string;
  readonly requestedMs: number;
  readonly detectedMs: number;
  /** Its first dispatch began, by the device's timestamps put on the host's clock; was submitted, where it has none. */
  readonly begunMs: number;
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

/**
 * A time in which generation had work and stages of higher priority kept the device for over a second without a break.
 */
export interface StarvationRecord {
  readonly lane: number;
  /** Whose generation it was. */
  readonly job: string;
  readonly fromMs: number;
  readonly toMs: number;
}

/** Everything one lane has to tell since it last did: one message, never one per slice. */
export interface LaneRecords {
  readonly slices: readonly SliceRecord[];
  readonly preemptions: readonly PreemptionRecord[];
  readonly undisturbed: readonly UndisturbedRecord[];
  readonly starved: readonly StarvationRecord[];
  /** Time in which generation waited for a device because a hint kept its work shallow, since the last message. */
  readonly hintIdleMs: number;
  readonly versions: readonly VersionRecord[];
  /** Slices the lane could not keep in its own bounded buffer. */
  readonly slicesDropped: number;
}

/** Request → the asker's first dispatch could start, in milliseconds on the host's clock. */
export function timeToYieldMs(preemption: PreemptionRecord): number {
  return preemption.yieldedMs - preemption.requestedMs;
}

/** Submitting a command and the device taking it up: the law allows so much beside what is predicted. */
export const ALLOWANCE_MS = 0.2;

/**
 * What the law allows this preemption, in milliseconds: detection + in-flight budget + largest dispatch + 200 µs, and the
 * leaving of caches where there is any.
 */
export function boundMs({ requestedMs, detectedMs, leavingMs, budgetMs }: PreemptionRecord): number {
  return detectedMs - requestedMs + leavingMs + budgetMs;
}

/**
 * What the law is held against. The asker's first dispatch could start no later than it did by the device's clock, and
 * no later than the host saw generation's last slice finish: the earlier of the two, in milliseconds.
 */
export function lawfulYieldMs({ requestedMs, yieldedMs, yieldedDeviceMs }: PreemptionRecord): number {
  return Math.min(yieldedDeviceMs ?? Infinity, yieldedMs) - requestedMs;
}

export function obeysLaw(preemption: PreemptionRecord): boolean {
  return lawfulYieldMs(preemption) <= boundMs(preemption);
}

/** Release → the engine's first new token, in milliseconds; null if the run ended before it. */
export function resumeMs(preemption: PreemptionRecord): number | null {
  const { releasedMs, resumedMs } = preemption;
  return releasedMs === null || resumedMs === null ? null : resumedMs - releasedMs;
}
