import { flawOf } from '../engine/admission.js';
import { assert, at } from '../lib/assert.js';
import { roundFlaw } from './rounds.js';
import type { AdmissionOrder, Plan, RoundOrder, SegmentOrder, SleepOrder, WakeOrder } from './plan.js';
import {
  bytesFree,
  engineOn,
  isUsable,
  mayLiveOn,
  type JobId,
  type JobState,
  type LaneId,
  type LaneState,
  type Snapshot,
  type StageRequest,
} from './state.js';

/**
 * What every plan of every policy must keep. Numbers 1 to 11 are those of RLix's validation, said in our words: its
 * GPU is a lane, its worker a job's engine on a lane, its cluster of GPUs a stage's request or grant. 0 and those
 * from 12 are ours.
 */
export const INVARIANTS = {
  0: 'the policy answers with a plan, and wants to be asked again only later than now',
  1: 'an engine or a request appears at most once in each part of a plan',
  2: 'only generation is woken, resized and put to sleep: of a job that is there; of one that has finished, only the last',
  3: 'no engine gets two orders of different kinds in one plan',
  4: 'lanes in use and lanes out of use are disjoint: none that is lost or reserved gets an engine or a stage',
  5: 'only an engine asleep wakes; only one awake falls asleep or is resized',
  6: 'orders stay on lanes there are, on which the job may have an engine or which its request asks for',
  7: 'slots are whole, at most as many as the engine has, and at least 1 to wake',
  8: 'requests are conserved: a grant or a reservation names one that waits, and none gets both',
  9: 'no lane is freed twice: an engine on its way to sleep is not put to sleep again',
  10: 'no lane has two owners: one stage holds it, and none is granted a lane kept for another',
  11: 'what is to sleep or to be resized is there',
  12: 'bytes fit: on no lane that gets something is more promised than it has; sleepers count until they sleep',
  13: 'no rollout is lost: whatever runs on an engine put to sleep goes to the queue or to an engine that stays awake',
  14: 'versions only rise: an engine wakes with the newest there is',
  15: 'an engine is told to admit in a way that it can: once, awake and staying so, within its cache, room for the longest sequence',
  16: 'segments are set once for a lane in use: whole µs from 1 to a second, at least one slice in flight, at most two',
  17: "a job that trains is told of its rounds once: whole, at least what a step takes, at most 4 times that; long only when a step's prompts are deferred",
} as const;

/** Longest segment a plan may ask for, in µs. */
export const SEGMENT_US_MAX = 1_000_000;

export type Invariant = keyof typeof INVARIANTS;

export interface Violation {
  readonly invariant: Invariant;
  /** What is wrong, with the names and numbers of this very plan. */
  readonly message: string;
  /** The order at fault and the state it met. */
  readonly context: Readonly<Record<string, unknown>>;
}

/** Everything wrong with a plan for this snapshot; empty when it may be applied. Each order is reported once. */
export function check(snapshot: Snapshot, plan: Plan): Violation[] {
  const checker = new Checker(snapshot, plan);
  checker.checkReview();
  checker.checkEngines();
  checker.checkAdmission();
  checker.checkStages();
  checker.checkBytes();
  checker.checkSegments();
  checker.checkRounds();
  return checker.violations;
}

interface EngineOrder {
  readonly job: JobId;
  readonly lane: LaneId;
}

interface StageOrder {
  readonly request: number;
}

type EnginePart = 'wake' | 'sleep' | 'resize';
type StagePart = 'grant' | 'reservation';

class Checker {
  readonly violations: Violation[] = [];
  /** By job and lane: the part of the plan that names its engine. */
  readonly #engines = new Map<JobId, Map<LaneId, EnginePart>>();
  /** By request: the part of the plan that names it. */
  readonly #requests = new Map<number, StagePart>();
  /** Orders found good so far: only these are weighed together. */
  readonly #wakes: WakeOrder[] = [];
  readonly #grants: StageRequest[] = [];

  constructor(
    readonly snapshot: Snapshot,
    readonly plan: Plan,
  ) {}

  checkReview(): void {
    const { reviewAtMs } = this.plan;
    const { timeMs } = this.snapshot;
    if (reviewAtMs === undefined || reviewAtMs > timeMs) return;
    this.#fail(0, `it is past ${reviewAtMs} ms, when the policy wants to be asked again`, {
      reviewAtMs,
      timeMs,
    });
  }

  checkEngines(): void {
    const wakes = this.plan.wake.filter((order) => this.#isAddressed('wake', order));
    const sleeps = this.plan.sleep.filter((order) => this.#isAddressed('sleep', order));
    const resizes = this.plan.resize.filter((order) => this.#isAddressed('resize', order));
    for (const order of wakes) if (this.#checkWake(order)) this.#wakes.push(order);
    for (const order of sleeps) if (this.#checkAwake('sleep', order)) this.#checkMove(order);
    for (const order of resizes) if (this.#checkAwake('resize', order)) this.#checkSlots(order, 0);
  }

  /** 15: beside any other order for the same engine but one to sleep. */
  checkAdmission(): void {
    const named = new Set<string>();
    for (const order of this.plan.admission ?? []) {
      const flaw = named.has(nameOf(order)) ? 'it is told twice' : this.#flawOf(order);
      named.add(nameOf(order));
      if (flaw !== null) this.#fail(15, `admission: ${nameOf(order)}: ${flaw}`, { order });
    }
  }

  #flawOf({ job: id, lane, admission }: AdmissionOrder): string | null {
    const job = this.snapshot.jobs.get(id);
    if (job === undefined || job.finished) return 'its job is not there, or has finished';
    if (engineOn(job, lane)?.status !== 'awake') return 'it is not awake';
    if (this.#engines.get(id)?.get(lane) === 'sleep') return 'it is put to sleep';
    if (admission === null) return null;
    const { kv } = job;
    if (kv === undefined) return 'nobody knows its cache';
    const { kvTokensMax } = admission;
    if (kvTokensMax > kv.tokens) return `${kvTokensMax} tokens are more than its cache of ${kv.tokens}`;
    const { sequenceTokensMax } = kv;
    if (kvTokensMax < sequenceTokensMax)
      return `${kvTokensMax} tokens hold no sequence of ${sequenceTokensMax}`;
    return flawOf(admission);
  }

  checkStages(): void {
    const waiting = new Map(this.snapshot.requests.map((request) => [request.id, request]));
    const owners = new Map<LaneId, string>();
    for (const { job, stage, lanes } of this.snapshot.grants) {
      for (const lane of lanes) owners.set(lane, `${job}'s ${stage} holds lane ${lane}`);
    }
    for (const order of this.plan.reservations) {
      const request = this.#findRequest('reservation', order, waiting);
      if (request === undefined) continue;
      this.#own(
        order,
        request,
        order.lanes,
        owners,
        `lane ${order.lanes.join(', ')} is kept for request ${request.id}`,
      );
    }
    for (const order of this.plan.grant) {
      const request = this.#findRequest('grant', order, waiting);
      if (request === undefined || !this.#checkGrant(order, request)) continue;
      const owner = `request ${request.id} is granted lane ${request.lanes.join(', ')}`;
      if (this.#own(order, request, request.lanes, owners, owner)) this.#grants.push(request);
    }
  }

  /** 12, over what passed everything else. */
  checkBytes(): void {
    if (this.#wakes.length + this.#grants.length === 0) return;
    const free = bytesFree(this.snapshot);
    const touched = new Set<LaneId>();
    const take = (lane: LaneId, bytes: number): void => {
      free[lane] = at(free, lane) - bytes;
      touched.add(lane);
    };
    for (const order of this.#wakes) take(order.lane, this.#job(order).engineBytes);
    for (const { lanes, bytes } of this.#grants) for (const lane of lanes) take(lane, bytes);
    for (const lane of touched) {
      const missing = -at(free, lane);
      if (missing > 0)
        this.#fail(12, `lane ${lane} lacks ${missing} bytes`, { lane: this.snapshot.lanes[lane] });
    }
  }

  /** 16. */
  checkSegments(): void {
    const named = new Set<LaneId>();
    for (const order of this.plan.segments ?? []) {
      const lane = this.snapshot.lanes[order.lane];
      if (lane === undefined) this.#fail(16, `segment: there is no lane ${order.lane}`, { order });
      else if (named.has(order.lane)) this.#fail(16, `segment names lane ${order.lane} twice`, { order });
      else if (!isUsable(lane)) this.#fail(16, `segment: ${outOfUse(lane)}`, { order, lane });
      else this.#checkSegment(order);
      named.add(order.lane);
    }
  }

  /** 17. */
  checkRounds(): void {
    const named = new Set<JobId>();
    for (const order of this.plan.rounds ?? []) {
      const flaw = named.has(order.job) ? 'it is told twice' : this.#roundFlawOf(order);
      named.add(order.job);
      if (flaw !== null) this.#fail(17, `rounds: job ${order.job}: ${flaw}`, { order });
    }
  }

  #roundFlawOf({ job: id, rounds }: RoundOrder): string | null {
    const job = this.snapshot.jobs.get(id);
    if (job === undefined || job.finished) return 'it is not there, or has finished';
    const { step, demand } = job;
    if (rounds === null) return null;
    if (step === undefined) return 'nobody knows what its steps take';
    const { deferredPrompts = 0 } = demand;
    if (rounds.isLongDue && deferredPrompts < step.prompts)
      return `a long round takes ${step.prompts} prompts, ${deferredPrompts} are deferred`;
    return roundFlaw(rounds, step);
  }

  #checkSegment(order: SegmentOrder): void {
    if (order.segment === null) return;
    const { sliceUs, inFlightUs } = order.segment;
    const isSlice = Number.isInteger(sliceUs) && sliceUs >= 1 && sliceUs <= SEGMENT_US_MAX;
    const isDepth = Number.isInteger(inFlightUs) && inFlightUs >= sliceUs && inFlightUs <= 2 * sliceUs;
    if (isSlice && isDepth) return;
    const message = `slices of ${sliceUs} µs with ${inFlightUs} µs in flight are out of bounds on lane ${order.lane}`;
    this.#fail(16, message, { order });
  }

  /** 1, 2, 3 and 6: an order that fails here is not looked at further. */
  #isAddressed(part: EnginePart, order: EngineOrder): boolean {
    const job = this.snapshot.jobs.get(order.job);
    if (job === undefined) return this.#fail(2, `${part}: there is no job ${order.job}`, { order });
    if (job.finished && part !== 'sleep')
      return this.#fail(2, `${part}: job ${job.id} has finished`, { order });
    if (this.snapshot.lanes[order.lane] === undefined || !mayLiveOn(job, order.lane)) {
      return this.#fail(6, `${part}: ${job.id} has no engine on lane ${order.lane}`, { order });
    }
    const parts = this.#engines.get(job.id) ?? new Map<LaneId, EnginePart>();
    this.#engines.set(job.id, parts);
    const before = parts.get(order.lane);
    if (before === part) return this.#fail(1, `${part} names ${nameOf(order)} twice`, { order });
    if (before !== undefined)
      return this.#fail(3, `${before} and ${part} both name ${nameOf(order)}`, { order });
    parts.set(order.lane, part);
    return true;
  }

  /** 4, 5, 7 and 14. */
  #checkWake(order: WakeOrder): boolean {
    const job = this.#job(order);
    const lane = at(this.snapshot.lanes, order.lane);
    const engine = engineOn(job, order.lane);
    if (!isUsable(lane)) return this.#fail(4, `wake: ${outOfUse(lane)}`, { order, lane });
    if (engine !== undefined)
      return this.#fail(5, `wake: ${nameOf(order)} is ${engine.status}`, { order, engine });
    if (order.version !== job.version) {
      return this.#fail(14, `wake: version ${order.version} is not the newest, ${job.version}`, { order });
    }
    return this.#checkSlots(order, 1);
  }

  /** 5, 9 and 11. */
  #checkAwake(part: EnginePart, order: EngineOrder): boolean {
    const engine = engineOn(this.#job(order), order.lane);
    if (engine === undefined) return this.#fail(11, `${part}: ${nameOf(order)} is asleep already`, { order });
    if (engine.status === 'awake') return true;
    const invariant = part === 'sleep' && engine.status === 'fallingAsleep' ? 9 : 5;
    return this.#fail(invariant, `${part}: ${nameOf(order)} is ${engine.status}`, { order, engine });
  }

  /** 7. */
  #checkSlots(order: EngineOrder & { readonly slots: number }, slotsMin: number): boolean {
    const { slotsMax } = this.#job(order);
    if (Number.isInteger(order.slots) && order.slots >= slotsMin && order.slots <= slotsMax) return true;
    return this.#fail(7, `${order.slots} slots are not between ${slotsMin} and ${slotsMax}`, { order });
  }

  /** 13. The queue takes anything; another engine must be awake and stay so. */
  #checkMove(order: SleepOrder): void {
    if (order.moveTo === 'queue') return;
    const target = engineOn(this.#job(order), order.moveTo);
    const stays = target?.status === 'awake' && this.#engines.get(order.job)?.get(target.lane) !== 'sleep';
    if (stays) return;
    this.#fail(13, `sleep: what ${nameOf(order)} runs would be lost on lane ${order.moveTo}`, {
      order,
      target,
    });
  }

  /** 1 and 8. */
  #findRequest(
    part: StagePart,
    order: StageOrder,
    waiting: ReadonlyMap<number, StageRequest>,
  ): StageRequest | undefined {
    const request = waiting.get(order.request);
    const before = this.#requests.get(order.request);
    if (request !== undefined && before === undefined) {
      this.#requests.set(order.request, part);
      return request;
    }
    if (request === undefined) this.#fail(8, `${part}: no request ${order.request} waits`, { order });
    else if (before === part) this.#fail(1, `${part} names request ${order.request} twice`, { order });
    else this.#fail(8, `request ${order.request} gets a ${before} and a ${part}`, { order });
    return undefined;
  }

  /** 4. */
  #checkGrant(order: StageOrder, request: StageRequest): boolean {
    const lane = request.lanes.map((id) => at(this.snapshot.lanes, id)).find((state) => !isUsable(state));
    return lane === undefined || this.#fail(4, `grant: ${outOfUse(lane)}`, { order, lane });
  }

  /** 6 and 10: gives the lanes an owner if none has one yet. */
  #own(
    order: StageOrder,
    request: StageRequest,
    lanes: readonly LaneId[],
    owners: Map<LaneId, string>,
    owner: string,
  ): boolean {
    const asked = new Set(request.lanes);
    for (const lane of lanes) {
      const before = owners.get(lane);
      if (before !== undefined)
        return this.#fail(10, `lane ${lane} has two owners: ${before}, ${owner}`, { order });
      if (!asked.has(lane)) {
        return this.#fail(6, `request ${request.id} did not ask for lane ${lane}`, { order, request });
      }
    }
    for (const lane of lanes) owners.set(lane, owner);
    return true;
  }

  #job(order: EngineOrder): JobState {
    const job = this.snapshot.jobs.get(order.job);
    assert(job !== undefined, `no job ${order.job}`);
    return job;
  }

  #fail(invariant: Invariant, message: string, context: Readonly<Record<string, unknown>>): false {
    this.violations.push({ invariant, message, context });
    return false;
  }
}

function nameOf(order: EngineOrder): string {
  return `${order.job}'s engine on lane ${order.lane}`;
}

function outOfUse(lane: LaneState): string {
  return `lane ${lane.id} is ${lane.health === 'lost' ? 'lost' : 'reserved'}`;
}
