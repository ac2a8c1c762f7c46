import { assert, at } from '../lib/assert.js';
import type { Admission } from '../engine/admission.js';
import type { Lengths } from './lengths.js';
import type { RoundRule, StepShape } from './rounds.js';
import type { ExclusiveStage } from './stages.js';

/** Index of a lane in `Snapshot.lanes`. */
export type LaneId = number;
export type JobId = string;

/** How the engines on a lane alternate: a slice of each in turn, none longer than this. In predicted µs of the device. */
export interface Segment {
  readonly sliceUs: number;
  /** Submitted and unfinished at most. */
  readonly inFlightUs: number;
}

export interface LaneState {
  readonly id: LaneId;
  /** A lane that has not come up yet counts as lost. */
  readonly health: 'ready' | 'lost';
  /** Kept out of use by its operator: nothing wakes or is granted there until the reservation ends. */
  readonly reserved: boolean;
  /** Device memory that may be filled, in bytes; Infinity when nobody knows. */
  readonly bytesCapacity: number;
  /** How often it came up: tells the late answers of a lane that died from those of its replacement. */
  readonly epoch: number;
  /** As the last plan to name it says; null: its engines share it by weight, in slices as its own budgets allow. */
  readonly segment: Segment | null;
}

/** A job's engine on a lane while it is not asleep. An engine asleep holds no bytes and has no entry. */
export interface EngineState {
  readonly lane: LaneId;
  readonly status: 'waking' | 'awake' | 'fallingAsleep';
  /** Sequences it may run at once; 0 holds them all where they are. */
  readonly slots: number;
  /** Sequences it has now, by its own report. */
  readonly running: number;
  /** Weights version it holds; the one it was told to load while it wakes. */
  readonly version: number;
  /** p99 of the time between two tokens of a sequence that runs here, lately, in ms; null before it has told. */
  readonly tokenLatencyMs: number | null;
  /** What one decode step of it takes the device, the time it waits for others left out, in ms; null before it has told. */
  readonly stepMs: number | null;
  /** How it admits sequences; left out or null: each takes all the cache it may need. */
  readonly admission?: Admission | null;
  /** Device memory it occupies, in bytes, until it has fallen asleep. */
  readonly bytes: number;
}

/** What a job still wants from generation, counted by the one who owns its queue. */
export interface Demand {
  /** Rollouts asked for and not finished, those waiting for their environment included. */
  readonly rollouts: number;
  /** Of these, how many would run now if each had a slot; those that have one are included. */
  readonly runnable: number;
  /** Tokens still expected over all of them. */
  readonly tokensRemaining: number;
  /** Prompts that wait for a long round, none of their rollouts counted above; left out: none. */
  readonly deferredPrompts?: number;
}

/** The cache of one engine of a job. */
export interface KvSpec {
  /** Tokens it holds, of all sequences together. */
  readonly tokens: number;
  /** Tokens of the longest sequence there can be, its prompt included; at most `tokens`. */
  readonly sequenceTokensMax: number;
}

/** What is fixed about a job from the moment it is added. */
export interface JobSpec {
  readonly id: JobId;
  /** Where its trainer lives; null for a job that only generates. */
  readonly trainerLane: LaneId | null;
  /** Lanes its engine may be awake on, ascending. */
  readonly engineLanes: readonly LaneId[];
  /** Most sequences its engine can run at once on one lane. */
  readonly slotsMax: number;
  /** Device memory of one engine awake (weights and KV blocks), in bytes. */
  readonly engineBytes: number;
  /** Device memory its trainer occupies on its lane for the job's whole life, in bytes. */
  readonly trainerBytes: number;
  /** Version of the weights it starts from. */
  readonly version: number;
  /** What it should get beside the others, in the same unit as theirs; above 0. */
  readonly weight: number;
  /** Rollouts that one of its training steps consumes; 0 for a job that only generates. */
  readonly stepRollouts: number;
  /** Somebody waits for its tokens: p99 between two tokens of a sequence should stay below this, in ms. Null: nobody. */
  readonly tokenLatencyMs: number | null;
  /** Left out: nobody knows, and no engine of it is told how to admit. */
  readonly kv?: KvSpec;
  /** What a training step takes; left out: its rounds of rollouts are always plain. */
  readonly step?: StepShape;
}

export interface JobState extends JobSpec {
  /** Newest published version. */
  readonly version: number;
  readonly demand: Demand;
  /** Tokens its engines have sampled since it was added. */
  readonly tokensDone: number;
  /** Of its rollouts that have ended. */
  readonly lengths: Lengths;
  /** How its next rounds begin; left out or null: they start what a step takes. */
  readonly rounds?: RoundRule | null;
  /** Engines not asleep, ascending by lane. */
  readonly engines: readonly EngineState[];
  /** Done or given up. It stays in the snapshot only until its last engine is asleep. */
  readonly finished: boolean;
}

/** A job's wish for a stage on some lanes, all of them or none. */
export interface StageRequest {
  /** Counts up in order of arrival over the whole run. */
  readonly id: number;
  readonly job: JobId;
  readonly stage: ExclusiveStage;
  readonly lanes: readonly LaneId[];
  /** Device memory it needs on each of its lanes beyond what the job already occupies, in bytes. */
  readonly bytes: number;
  readonly askedMs: number;
  /** How many plans granted a later request on one of its lanes while it waited. */
  readonly overtaken: number;
}

/** A request that was granted; it holds its lanes until its holder gives them back. */
export interface StageGrant {
  /** Id of the request it answers. */
  readonly request: number;
  readonly job: JobId;
  readonly stage: ExclusiveStage;
  readonly lanes: readonly LaneId[];
  readonly bytes: number;
  readonly askedMs: number;
  readonly sinceMs: number;
}

/** All a policy may know. Never changed in place: every event and every plan makes a new one. */
export interface Snapshot {
  /** Time of the newest event, in ms on the clock of whoever dispatches. */
  readonly timeMs: number;
  readonly lanes: readonly LaneState[];
  /** In order of arrival. */
  readonly jobs: ReadonlyMap<JobId, JobState>;
  /** Waiting, in order of arrival. */
  readonly requests: readonly StageRequest[];
  readonly grants: readonly StageGrant[];
  /** Id of the newest request there has been. */
  readonly lastRequest: number;
  /** What the policy left in its last plan, plain JSON: a policy has no other memory. */
  readonly memory: unknown;
}

/** Every lane still to come up, no jobs. */
export function createSnapshot(laneCount: number, timeMs: number): Snapshot {
  assert(Number.isInteger(laneCount) && laneCount > 0, `lane count ${laneCount}`);
  const lanes = Array.from({ length: laneCount }, (_, id): LaneState => {
    return { id, health: 'lost', reserved: false, bytesCapacity: Infinity, epoch: 0, segment: null };
  });
  return { timeMs, lanes, jobs: new Map(), requests: [], grants: [], lastRequest: 0, memory: null };
}

export function isUsable(lane: LaneState): boolean {
  return lane.health === 'ready' && !lane.reserved;
}

/** The job's engine on a lane, or undefined when it is asleep there. */
export function engineOn(job: JobState, lane: LaneId): EngineState | undefined {
  const engine = job.engines[search(job.engines, lane, (candidate) => candidate.lane)];
  return engine?.lane === lane ? engine : undefined;
}

/** True when the job may have an engine on the lane at all. */
export function mayLiveOn(job: JobSpec, lane: LaneId): boolean {
  // They ascend: where all lanes up to it are there, it stands in its own place.
  if (job.engineLanes[lane] === lane) return true;
  return job.engineLanes[search(job.engineLanes, lane, (candidate) => candidate)] === lane;
}

/** Index of the first item whose lane is not below `lane`; items ascend by lane. */
function search<T>(items: readonly T[], lane: LaneId, laneOf: (item: T) => LaneId): number {
  let low = 0;
  let high = items.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (laneOf(at(items, middle)) < lane) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** Device memory that nothing occupies, by lane, in bytes. An engine falling asleep occupies its own until it has. */
export function bytesFree(snapshot: Snapshot): Float64Array<ArrayBuffer> {
  // Not `from`, which would go through an iterator: every plan comes here, several times.
  const free = new Float64Array(snapshot.lanes.length);
  for (const lane of snapshot.lanes) free[lane.id] = lane.bytesCapacity;
  const take = (lane: LaneId, bytes: number): void => {
    free[lane] = at(free, lane) - bytes;
  };
  for (const job of snapshot.jobs.values()) {
    if (job.trainerLane !== null) take(job.trainerLane, job.trainerBytes);
    for (const engine of job.engines) take(engine.lane, engine.bytes);
  }
  for (const grant of snapshot.grants) for (const lane of grant.lanes) take(lane, grant.bytes);
  return free;
}
