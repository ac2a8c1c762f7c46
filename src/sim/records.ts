import type { AwakeRecord, PreemptionRecord, StageRecord, VersionRecord } from '../telemetry/records.js';
import { Bounded } from '../telemetry/run-records.js';
import type { PlanRecord } from '../scheduler/scheduler.js';
import type { Stage } from '../scheduler/stages.js';
import type { JobId, LaneId } from '../scheduler/state.js';

/** Device time of one kind of work of a job on a lane. */
export interface Busy {
  readonly lane: LaneId;
  readonly job: JobId;
  readonly kind: Stage;
  ms: number;
}

/** A stretch of the timeline: a stage that held the lane, or an engine at work. */
export interface Span {
  readonly lane: LaneId;
  readonly job: JobId;
  readonly kind: Stage;
  readonly fromMs: number;
  readonly toMs: number;
}

export interface RecordLimits {
  /** Stretches of the timeline that are kept. */
  readonly spansMax: number;
  /** Of each other kind of record. */
  readonly recordsMax: number;
  /** Records of lanes from this number on are neither kept nor counted. */
  readonly lanesMax: number;
  /** Events of the plans that are kept: the first ones, whole plans only. */
  readonly eventsMax: number;
  /** Times to yield that are kept. */
  readonly samplesMax: number;
}

/** What a simulation leaves behind beside its jobs' own accounts; of each kind the first are kept, the rest counted. */
export class SimRecords {
  readonly spans: Bounded<Span>;
  /** As a live run tells them. */
  readonly stages: Bounded<StageRecord>;
  readonly awake: Bounded<AwakeRecord>;
  readonly preemptions: Bounded<PreemptionRecord>;
  readonly versions: Bounded<VersionRecord>;
  readonly plans: PlanRecord[] = [];
  plansDropped = 0;
  violations = 0;
  firstViolation: string | null = null;
  lanesLost = 0;
  stagesRepeated = 0;
  readonly yieldMs: Bounded<number>;
  readonly #busy = new Map<string, Busy>();
  #events = 0;

  constructor(private readonly limits: RecordLimits) {
    this.spans = new Bounded(limits.spansMax);
    this.stages = new Bounded(limits.recordsMax);
    this.awake = new Bounded(limits.recordsMax);
    this.preemptions = new Bounded(limits.recordsMax);
    this.versions = new Bounded(limits.recordsMax);
    this.yieldMs = new Bounded(limits.samplesMax);
  }

  get busy(): readonly Busy[] {
    return [...this.#busy.values()];
  }

  busyOf(lane: LaneId, job: JobId, kind: Stage): Busy {
    const key = `${lane} ${kind} ${job}`;
    const known = this.#busy.get(key);
    if (known !== undefined) return known;
    const busy = { lane, job, kind, ms: 0 };
    this.#busy.set(key, busy);
    return busy;
  }

  span(lane: LaneId, job: JobId, kind: Stage, fromMs: number, toMs: number): void {
    if (toMs > fromMs && this.shows(lane)) this.spans.push({ lane, job, kind, fromMs, toMs });
  }

  awoke(record: AwakeRecord): void {
    if (this.shows(record.lane)) this.awake.push(record);
  }

  preempted(record: PreemptionRecord): void {
    if (this.shows(record.lane)) this.preemptions.push(record);
  }

  moved(record: VersionRecord): void {
    if (this.shows(record.lane)) this.versions.push(record);
  }

  shows(lane: LaneId): boolean {
    return lane < this.limits.lanesMax;
  }

  plan(record: PlanRecord): void {
    this.#events += record.events.length + 1;
    if (this.plansDropped === 0 && this.#events <= this.limits.eventsMax) this.plans.push(record);
    else this.plansDropped++;
  }
}
