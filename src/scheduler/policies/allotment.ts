import { assert, at } from '../../lib/assert.js';
import type { Draft, Resident } from '../draft.js';
import { engineOn, isUsable, type EngineState, type JobId, type JobState, type LaneId } from '../state.js';
import { canWake, whyGone } from './upkeep.js';

/**
 * Who shall generate where, with how many slots, once everything is carried out. Made after the stages have been
 * placed, it counts the bytes that they leave. An engine that is allotted nothing may always be moved for one that is.
 */
export class Allotment {
  readonly #parts = new Map<JobId, Part>();
  /** By lane: bytes that engines may fill and nothing is allotted yet; -1 where nothing may be. */
  readonly #bytes: Float64Array<ArrayBuffer>;

  constructor(readonly draft: Draft) {
    this.#bytes = engineRoom(draft);
  }

  /** True if the job's engine has room on the lane beside those that are allotted something there. */
  fits(job: JobState, lane: LaneId): boolean {
    return job.engineBytes <= (this.#bytes[lane] ?? -1);
  }

  /** Bytes on a lane that nothing is allotted yet; negative where none can be. */
  bytesLeft(lane: LaneId): number {
    return this.#bytes[lane] ?? -1;
  }

  /** Allots slots, at least one; asked once for a job and lane on which it fits. */
  give(job: JobState, lane: LaneId, slots: number): void {
    const part = this.#partOf(job);
    const isAllowed = Number.isInteger(slots) && slots >= 1 && slots <= job.slotsMax;
    const isSound = isAllowed && this.fits(job, lane) && part.slots[lane] === 0;
    // Its words are put together only if they are needed: some policies give ten thousand times a plan.
    if (!isSound) assert(false, `${job.id} is allotted ${slots} of ${job.slotsMax} slots on lane ${lane}`);
    part.slots[lane] = slots;
    part.lanes.push(lane);
    part.total += slots;
    this.#bytes[lane] = at(this.#bytes, lane) - job.engineBytes;
  }

  /** Slots of the job on a lane. */
  slots(job: JobState, lane: LaneId): number {
    return this.#parts.get(job.id)?.slots[lane] ?? 0;
  }

  /** Slots of the job on all lanes. */
  total(job: JobState): number {
    return this.#parts.get(job.id)?.total ?? 0;
  }

  laneCount(job: JobState): number {
    return this.#parts.get(job.id)?.lanes.length ?? 0;
  }

  /** Lanes on which the job has slots, in the order they were given. */
  lanes(job: JobState): Iterable<LaneId> {
    return this.#parts.get(job.id)?.lanes ?? [];
  }

  #partOf({ id }: JobState): Part {
    const known = this.#parts.get(id);
    if (known !== undefined) return known;
    const part = { slots: new Uint32Array(this.#bytes.length), lanes: [], total: 0 };
    this.#parts.set(id, part);
    return part;
  }
}

/** What a job is allotted. */
interface Part {
  /** By lane. */
  readonly slots: Uint32Array<ArrayBuffer>;
  /** Those on which it has some, in the order they were given. */
  readonly lanes: LaneId[];
  total: number;
}

/** By lane: bytes that trainers, stages and promises leave to engines; -1 where the lane is out of use. */
function engineRoom(draft: Draft): Float64Array<ArrayBuffer> {
  const { lanes, jobs } = draft.snapshot;
  const room = new Float64Array(lanes.length);
  for (const { id } of lanes) room[id] = draft.bytesFree(id);
  for (const job of jobs.values()) {
    for (const { lane, bytes } of job.engines) room[lane] = at(room, lane) + bytes;
  }
  for (const lane of lanes) if (!isUsable(lane)) room[lane.id] = -1;
  return room;
}

/** Jobs that still want something generated, in order of arrival. */
export function contenders(draft: Draft): JobState[] {
  return [...draft.snapshot.jobs.values()].filter((job) => !job.finished && job.demand.rollouts > 0);
}

export interface ReachRules {
  /** Why the job may have no engine on the lane, whatever the room; null if it may. */
  readonly whyOut?: (job: JobState, lane: LaneId) => string | null;
  /** Engines that run nothing and are allotted nothing stay awake as long as nobody needs their room. */
  readonly keepsIdle?: boolean;
}

/**
 * Orders what leads to the allotment. Engines that are allotted nothing hold their sequences, and sleep when there
 * are slots for those elsewhere or when their memory is needed. A job without rollouts keeps an engine on its
 * trainer's lane as long as nobody needs the room: that is where its next weights appear.
 */
export function reach(
  allotment: Allotment,
  { whyOut = () => null, keepsIdle = false }: ReachRules = {},
): void {
  const { draft } = allotment;
  const jobs = [...draft.snapshot.jobs.values()];
  const short: JobState[] = [];
  for (const job of jobs) {
    let lanesMissing = allotment.laneCount(job);
    for (const engine of job.engines) {
      if (draft.isLeaving(engine)) continue;
      const slots = allotment.slots(job, engine.lane);
      if (slots > 0) lanesMissing--;
      if (engine.status !== 'awake') continue;
      const reason = whyOut(job, engine.lane);
      if (reason !== null) draft.sleep({ job, engine }, reason);
      else adjust(allotment, { job, engine }, slots, keepsIdle);
    }
    if (lanesMissing > 0) short.push(job);
  }
  for (const job of short) for (const lane of allotment.lanes(job)) wakeFor(allotment, job, lane);
  for (const job of jobs) {
    const home = job.trainerLane;
    if (home !== null && whyOut(job, home) === null) resideAtHome(allotment, job, home);
  }
}

function adjust(allotment: Allotment, resident: Resident, slots: number, keepsIdle: boolean): void {
  const { draft } = allotment;
  const { job, engine } = resident;
  const isKept = slots > 0 || (keepsIdle && engine.running === 0);
  const gone = whyGone(draft, job, engine) ?? (isKept ? null : whySpare(allotment, job, engine));
  if (gone !== null) return draft.sleep(resident, gone);
  const isAtRest = job.demand.rollouts === 0;
  if (slots === engine.slots || (slots === 0 && isAtRest)) return;
  draft.resize(resident, slots, slots === 0 ? 'others have its slots now' : 'its share has changed');
}

/** Why an engine without slots need not hold what it has; null if it should. */
function whySpare(allotment: Allotment, job: JobState, engine: EngineState): string | null {
  const { rollouts, runnable } = job.demand;
  if (rollouts === 0) return engine.lane === job.trainerLane ? null : 'nothing is left to generate';
  // What waits for its environment comes back: an idle engine should not nap between two turns.
  const wanted = engine.running > 0 ? runnable : rollouts;
  return wanted <= allotment.total(job) ? 'its sequences have slots elsewhere' : null;
}

function wakeFor(allotment: Allotment, job: JobState, lane: LaneId): void {
  const { draft } = allotment;
  const engine = engineOn(job, lane);
  if (engine !== undefined && !draft.isLeaving(engine)) return;
  if (engine === undefined && draft.bytesFree(lane) >= job.engineBytes) {
    const slots = allotment.slots(job, lane);
    return draft.wake(job, lane, `its share here is ${slots} of its ${job.slotsMax} slots`, slots);
  }
  const room = draft.room(lane, job.engineBytes, (other) => allotment.slots(other.job, lane) === 0);
  if (room === 'never') return;
  if (typeof room !== 'string') {
    for (const resident of room) draft.sleep(resident, `makes room for ${job.id}, whose share this is`);
  }
  draft.setAside(lane, job.engineBytes);
}

function resideAtHome(allotment: Allotment, job: JobState, home: LaneId): void {
  const { draft } = allotment;
  if (job.demand.rollouts > 0 || job.engines.length > 0) return;
  // Some policy allots lanes to those who want nothing, too.
  if (allotment.total(job) > 0) return;
  if (!canWake(draft, job, home) || draft.bytesFree(home) < job.engineBytes) return;
  draft.wake(job, home, "its trainer's lane");
}
