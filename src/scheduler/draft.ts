import { at } from '../lib/assert.js';
import type {
  GrantOrder,
  Plan,
  Reservation,
  ResizeOrder,
  SegmentOrder,
  SleepOrder,
  WakeOrder,
} from './plan.js';
import {
  bytesFree,
  isUsable,
  type EngineState,
  type JobId,
  type JobState,
  type LaneId,
  type Segment,
  type Snapshot,
  type StageRequest,
} from './state.js';

/** A job's engine on a lane. */
export interface Resident {
  readonly job: JobState;
  readonly engine: EngineState;
}

/**
 * Where some bytes on a lane could come from: they are free; they will be once these engines, maybe none more, have
 * fallen asleep; an engine still waking must wake before it can leave; or no choice of sleepers is enough.
 */
export type Room = 'free' | readonly Resident[] | 'later' | 'never';

/** A plan in the making, and what the lanes will look like once the orders so far are carried out. */
export class Draft {
  readonly #wake: WakeOrder[] = [];
  readonly #sleep: SleepOrder[] = [];
  readonly #resize = new Map<EngineState, ResizeOrder>();
  readonly #grant: GrantOrder[] = [];
  readonly #reservations: Reservation[] = [];
  readonly #segments: SegmentOrder[] = [];
  readonly #leaving = new Set<EngineState>();
  /** By job: slots of its engines awake or waking. */
  readonly #slots = new Map<JobId, number>();
  /** By lane: bytes neither used nor promised; negative where more is promised than has been freed yet. */
  readonly #bytesFree: Float64Array<ArrayBuffer>;
  /** By lane: bytes of engines on their way to sleep. */
  readonly #bytesComing: Float64Array<ArrayBuffer>;
  /** By lane: engines awake or waking, and the stage that holds it. */
  readonly #load: Uint32Array<ArrayBuffer>;
  /** By lane: the stage that holds it or waits for it, in words. */
  readonly #taken: (string | undefined)[];
  /** By lane: its engines, in order of their jobs' arrival. Made when first asked for: only full lanes need it. */
  #residents: readonly (readonly Resident[])[] | null = null;

  constructor(readonly snapshot: Snapshot) {
    const laneCount = snapshot.lanes.length;
    this.#bytesFree = bytesFree(snapshot);
    this.#bytesComing = new Float64Array(laneCount);
    this.#load = new Uint32Array(laneCount);
    this.#taken = new Array<string | undefined>(laneCount).fill(undefined);
    for (const job of snapshot.jobs.values()) {
      let slots = 0;
      for (const engine of job.engines) {
        if (engine.status === 'fallingAsleep') {
          add(this.#bytesComing, engine.lane, engine.bytes);
        } else {
          add(this.#load, engine.lane, 1);
          slots += engine.slots;
        }
      }
      this.#slots.set(job.id, slots);
    }
    for (const grant of snapshot.grants) {
      for (const lane of grant.lanes) {
        add(this.#load, lane, 1);
        this.#taken[lane] = `${grant.job}'s ${grant.stage} holds lane ${lane}`;
      }
    }
  }

  /** Engines awake or waking on a lane, plus one if a stage holds it. */
  load(lane: LaneId): number {
    return at(this.#load, lane);
  }

  /** Bytes on a lane that are free and promised to nobody; negative where promises wait for sleepers. */
  bytesFree(lane: LaneId): number {
    return at(this.#bytesFree, lane);
  }

  /** Slots of a job's engines that are, or by this draft will be, awake or waking. */
  slots(job: JobState): number {
    return this.#slots.get(job.id) ?? 0;
  }

  /** Slots of an engine, the new number if this draft resizes it. */
  slotsOf(engine: EngineState): number {
    return this.#resize.get(engine)?.slots ?? engine.slots;
  }

  /** True for an engine that is, or by this draft will be, on its way to sleep. */
  isLeaving(engine: EngineState): boolean {
    return engine.status === 'fallingAsleep' || this.#leaving.has(engine);
  }

  /** Why a request cannot be granted however long it waits as things are; null if it can. */
  outOfUse(request: StageRequest): string | null {
    const id = request.lanes.find((lane) => !isUsable(at(this.snapshot.lanes, lane)));
    if (id === undefined) return null;
    return at(this.snapshot.lanes, id).health === 'lost' ? `lane ${id} is lost` : `lane ${id} is reserved`;
  }

  /** The stage that a request has to wait for, in words; null if its lanes are all its own to take. */
  inTheWay(request: StageRequest): string | null {
    for (const lane of request.lanes) {
      const taken = this.#taken[lane];
      if (taken !== undefined) return taken;
    }
    return null;
  }

  /**
   * Finds room on a lane, choosing among the engines that `mayLeave` those whose sleep loses least: fewest sequences
   * running, then most bytes freed, and none that turns out not to be needed.
   */
  room(lane: LaneId, bytes: number, mayLeave: (resident: Resident) => boolean = () => true): Room {
    if (this.bytesFree(lane) >= bytes) return 'free';
    let shortage = bytes - this.bytesFree(lane) - at(this.#bytesComing, lane);
    if (shortage <= 0) return [];
    const awake: Resident[] = [];
    let bytesWaking = 0;
    this.#residents ??= residentsByLane(this.snapshot);
    for (const resident of at(this.#residents, lane)) {
      const { engine } = resident;
      if (this.isLeaving(engine) || !mayLeave(resident)) continue;
      if (engine.status === 'waking') bytesWaking += engine.bytes;
      else awake.push(resident);
    }
    awake.sort((a, b) => a.engine.running - b.engine.running || b.engine.bytes - a.engine.bytes);
    const chosen: Resident[] = [];
    for (const resident of awake) {
      if (shortage <= 0) break;
      chosen.push(resident);
      shortage -= resident.engine.bytes;
    }
    if (shortage > 0) return shortage <= bytesWaking ? 'later' : 'never';
    for (let index = chosen.length - 1; index >= 0; index--) {
      const { bytes: spare } = at(chosen, index).engine;
      if (shortage + spare > 0) continue;
      shortage += spare;
      chosen.splice(index, 1);
    }
    return chosen;
  }

  /** Promises bytes on a lane to someone who waits for them, so that nothing else wakes there meanwhile. */
  setAside(lane: LaneId, bytes: number): void {
    add(this.#bytesFree, lane, -bytes);
  }

  grant(request: StageRequest, reason: string): void {
    this.#grant.push({ request: request.id, reason });
    for (const lane of request.lanes) {
      this.setAside(lane, request.bytes);
      add(this.#load, lane, 1);
      this.#taken[lane] = `${request.job}'s ${request.stage} holds lane ${lane}`;
    }
  }

  /** Lets a request wait, and keeps those of `lanes` for it that nobody else has or waits for. */
  reserve(request: StageRequest, lanes: readonly LaneId[], reason: string): void {
    const kept = lanes.filter((lane) => this.#taken[lane] === undefined);
    this.#reservations.push({ request: request.id, lanes: kept, reason });
    for (const lane of kept) this.#taken[lane] = `lane ${lane} is kept for ${request.job}'s ${request.stage}`;
  }

  wake(job: JobState, lane: LaneId, reason: string, slots = job.slotsMax): void {
    this.#wake.push({ job: job.id, lane, slots, version: job.version, reason });
    this.setAside(lane, job.engineBytes);
    add(this.#load, lane, 1);
    this.#slots.set(job.id, this.slots(job) + slots);
  }

  sleep({ job, engine }: Resident, reason: string): void {
    this.#sleep.push({ job: job.id, lane: engine.lane, moveTo: 'queue', reason });
    this.#leaving.add(engine);
    add(this.#bytesComing, engine.lane, engine.bytes);
    add(this.#load, engine.lane, -1);
    this.#slots.set(job.id, this.slots(job) - this.slotsOf(engine));
    this.#resize.delete(engine);
  }

  resize({ job, engine }: Resident, slots: number, reason: string): void {
    this.#slots.set(job.id, this.slots(job) + slots - this.slotsOf(engine));
    this.#resize.set(engine, { job: job.id, lane: engine.lane, slots, reason });
  }

  /** How the engines on a lane alternate from now on; asked at most once for a lane. */
  segment(lane: LaneId, segment: Segment | null, reason: string): void {
    this.#segments.push({ lane, segment, reason });
  }

  plan(): Plan {
    return {
      wake: this.#wake,
      sleep: this.#sleep,
      resize: [...this.#resize.values()],
      grant: this.#grant,
      reservations: this.#reservations,
      ...(this.#segments.length === 0 ? {} : { segments: this.#segments }),
    };
  }
}

function residentsByLane({ lanes, jobs }: Snapshot): Resident[][] {
  const residents: Resident[][] = lanes.map(() => []);
  for (const job of jobs.values()) {
    for (const engine of job.engines) at(residents, engine.lane).push({ job, engine });
  }
  return residents;
}

function add(values: Float64Array | Uint32Array, index: number, amount: number): void {
  values[index] = at(values, index) + amount;
}
