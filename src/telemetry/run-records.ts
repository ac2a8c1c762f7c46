import { LawAccount } from './law-account.js';
import type {
  AwakeRecord,
  LaneRecords,
  PlanRecord,
  PreemptionRecord,
  ResidentKind,
  RewardRecord,
  SliceRecord,
  StageRecord,
  StarvationRecord,
  UndisturbedRecord,
  VersionRecord,
} from './records.js';
import { resumeMs, timeToYieldMs } from './records.js';

/** The first `max` items; later ones are only counted. */
export class Bounded<T> {
  dropped = 0;
  readonly items: T[] = [];

  constructor(readonly max: number) {}

  push(item: T): void {
    if (this.items.length < this.max) this.items.push(item);
    else this.dropped++;
  }
}

/** The device time of one resident, summed over all its slices, kept or dropped. */
export interface Busy {
  readonly lane: number;
  readonly job: string;
  readonly resident: ResidentKind;
  slices: number;
  dispatches: number;
  busyMs: number;
}

export interface LaneInfo {
  readonly lane: number;
  /** The adapter's description, for people. */
  readonly adapter: string;
}

export interface RunRecordsOptions {
  readonly startMs: number;
  readonly slicesMax?: number;
  /** For each other kind of record. */
  readonly recordsMax?: number;
}

/**
 * All records of a run, gathered on the host for the trace and the report. Bounded: of each kind the first ones are
 * kept and the rest counted, so a long run shows its beginning in full. Sums are always over the whole run.
 */
export class RunRecords {
  readonly startMs: number;
  readonly lanes: LaneInfo[] = [];
  readonly slices: Bounded<SliceRecord>;
  readonly preemptions: Bounded<PreemptionRecord>;
  readonly undisturbed: Bounded<UndisturbedRecord>;
  readonly starved: Bounded<StarvationRecord>;
  readonly versions: Bounded<VersionRecord>;
  readonly stages: Bounded<StageRecord>;
  readonly awake: Bounded<AwakeRecord>;
  readonly plans: Bounded<PlanRecord>;
  readonly rewards: Bounded<RewardRecord>;
  /** Over all preemptions, kept or dropped. */
  readonly law = new LawAccount();
  readonly #busy = new Map<string, Busy>();
  #starvedMs = 0;
  #hintIdleMs = 0;

  constructor({ startMs, slicesMax = 250_000, recordsMax = 50_000 }: RunRecordsOptions) {
    this.startMs = startMs;
    this.slices = new Bounded(slicesMax);
    this.preemptions = new Bounded(recordsMax);
    this.undisturbed = new Bounded(recordsMax);
    this.starved = new Bounded(recordsMax);
    this.versions = new Bounded(recordsMax);
    this.stages = new Bounded(recordsMax);
    this.awake = new Bounded(recordsMax);
    this.plans = new Bounded(recordsMax);
    this.rewards = new Bounded(recordsMax);
  }

  /** Names a lane. One that is replaced keeps its number, and its first name. */
  addLane(lane: number, adapter: string): void {
    if (!this.lanes.some((known) => known.lane === lane)) this.lanes.push({ lane, adapter });
  }

  /** Takes in one lane's message. */
  add(records: LaneRecords): void {
    for (const slice of records.slices) {
      this.slices.push(slice);
      const busy = this.#busyOf(slice);
      busy.slices++;
      busy.dispatches += slice.dispatches;
      busy.busyMs += slice.finishedMs - slice.startedMs;
    }
    this.slices.dropped += records.slicesDropped;
    for (const preemption of records.preemptions) {
      this.preemptions.push(preemption);
      this.law.add(preemption);
    }
    for (const undisturbed of records.undisturbed) this.undisturbed.push(undisturbed);
    for (const starved of records.starved) {
      this.starved.push(starved);
      this.#starvedMs += starved.toMs - starved.fromMs;
    }
    this.#hintIdleMs += records.hintIdleMs;
    for (const version of records.versions) this.versions.push(version);
  }

  /** One entry for each resident that ever ran on the lane; trainers first, as in the order of priority. */
  busy(lane: number): readonly Busy[] {
    const ofLane = [...this.#busy.values()].filter((busy) => busy.lane === lane);
    return ofLane.sort((a, b) => Number(a.resident === 'engine') - Number(b.resident === 'engine'));
  }

  /** Time in which generation was starved, summed over jobs and lanes. */
  get starvedMs(): number {
    return this.#starvedMs;
  }

  /** Device time that stood unused because a hint kept generation shallow, summed over lanes. */
  get hintIdleMs(): number {
    return this.#hintIdleMs;
  }

  /** How many residents ever ran, over all lanes. */
  get residents(): number {
    return this.#busy.size;
  }

  /** How to name a resident, a stage or the like of a job: with the job only where there is more than one. */
  naming(): (job: string, what: string) => string {
    const severalJobs = this.jobs().length > 1;
    return (job, what) => (severalJobs ? `${job} ${what}` : what);
  }

  /** Every job that is named in a record of a lane or of the scheduler, in order of appearance. */
  jobs(): readonly string[] {
    const named = [...this.#busy.values(), ...this.stages.items, ...this.awake.items];
    return [...new Set(named.map((record) => record.job))];
  }

  /** Samples for the quantiles of the summary and the report, in milliseconds. */
  timesToYieldMs(): readonly number[] {
    return this.preemptions.items.map(timeToYieldMs);
  }

  /** As `timesToYieldMs`, by the device's clock; a preemption for which it was not read has no sample. */
  timesToYieldDeviceMs(): readonly number[] {
    return this.preemptions.items.flatMap(({ requestedMs, yieldedDeviceMs }) =>
      yieldedDeviceMs === null ? [] : [yieldedDeviceMs - requestedMs],
    );
  }

  /** As `timesToYieldMs`; a preemption that never resumed has no sample. */
  resumesMs(): readonly number[] {
    return this.preemptions.items.map(resumeMs).filter((ms) => ms !== null);
  }

  #busyOf({ lane, job, resident }: SliceRecord): Busy {
    const key = JSON.stringify([lane, job, resident]);
    let busy = this.#busy.get(key);
    if (!busy) {
      busy = { lane, job, resident, slices: 0, dispatches: 0, busyMs: 0 };
      this.#busy.set(key, busy);
    }
    return busy;
  }
}
