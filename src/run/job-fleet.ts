import type { Admission } from '../engine/admission.js';
import type { EngineUpdate } from '../engine/engine.js';
import type { SequenceRequest } from '../engine/sequence.js';
import type { EngineOptions } from '../engine/webgpu-engine.js';
import type { EpisodeTurn } from '../lanes/messages.js';
import type { RemoteLane } from '../lanes/remote-lane.js';
import { assert } from '../lib/assert.js';
import { nowMs } from '../lib/clock.js';
import type { ModelConfig } from '../model/config.js';
import { layoutBytes, type ParamLayout } from '../model/layout.js';
import type { RunRecords } from '../telemetry/run-records.js';
import { WeightStore } from '../weights/store.js';
import type { Fleet, FleetMember } from './fleet.js';

/** What a job brings to its lanes. */
export interface JobFleetOptions {
  readonly job: string;
  /** Its share of a device beside other jobs, in the same unit as theirs. */
  readonly weight: number;
  readonly trainerLane: number;
  /** Lanes its engine may be awake on, ascending; the trainer's is one of them. */
  readonly engineLanes: readonly number[];
  readonly config: ModelConfig;
  readonly layout: ParamLayout;
  readonly engine: EngineOptions;
}

/** Who takes what the job's residents say. */
export interface JobFleetListener {
  readonly onTokens: FleetMember['onTokens'];
  /** Gives the trainer's lane, which is a new one, what it had. */
  readonly furnish: (lane: RemoteLane) => Promise<void>;
}

const NOBODY: JobFleetListener = { onTokens: () => undefined, furnish: () => Promise.resolve() };

/** The version an engine holds now, and what fetching it took. */
export interface PulledVersion {
  readonly version: number;
  readonly bytes: number;
}

/**
 * A run's lanes as one job sees them: its trainer on one of them, its engines awake on some. New weights reach the
 * engine beside the trainer by a device copy, and every other one through the store, pulled only while it is awake.
 */
export class JobFleet implements FleetMember {
  listener = NOBODY;
  /** Null when the engine lives beside the trainer only: then no weight ever goes to another lane. */
  readonly store: WeightStore | null;
  readonly #awakeSince = new Map<number, number>();
  #hasTrainer = true;

  constructor(
    private readonly fleet: Fleet,
    private readonly options: JobFleetOptions,
    private readonly records: RunRecords,
  ) {
    const { engineLanes, trainerLane, layout } = options;
    this.store = engineLanes.some((lane) => lane !== trainerLane) ? WeightStore.create(layout) : null;
    this.store?.claim(fleet.epochOf(trainerLane));
    fleet.join(this);
  }

  get job(): string {
    return this.options.job;
  }

  get weight(): number {
    return this.options.weight;
  }

  get layout(): ParamLayout {
    return this.options.layout;
  }

  get trainerLane(): number {
    return this.options.trainerLane;
  }

  get engineLanes(): readonly number[] {
    return this.options.engineLanes;
  }

  /** Bytes of one version of the weights. */
  get weightBytes(): number {
    return layoutBytes(this.layout);
  }

  /** Lanes whose engine is awake, ascending. */
  get awake(): readonly number[] {
    return [...this.#awakeSince.keys()].sort((a, b) => a - b);
  }

  trainsOn(lane: number): boolean {
    return this.#hasTrainer && lane === this.trainerLane;
  }

  /** Its trainer is gone for good: the loss of that lane takes nothing from the job any more. */
  trainerLeft(): void {
    this.#hasTrainer = false;
  }

  opening(lane: number, epoch: number): void {
    // Whoever published before may be dead or not: it is not heard any more.
    if (this.trainsOn(lane)) this.store?.claim(epoch);
  }

  onTokens(lane: number, update: EngineUpdate, stepMs: number | null): void {
    this.listener.onTokens(lane, update, stepMs);
  }

  laneLost(lane: number): void {
    this.#endAwake(lane);
  }

  async furnish(lane: number, replacement: RemoteLane): Promise<void> {
    if (this.trainsOn(lane)) await this.listener.furnish(replacement);
  }

  /** The trainer's lane, once it is there. Rejects when it is gone for good. */
  trainer(): Promise<RemoteLane> {
    return this.fleet.lane(this.trainerLane);
  }

  /** Makes the lane's engine, which runs once it has weights; returns the lane that has it. */
  async createEngine(lane: number): Promise<RemoteLane> {
    assert(!this.#awakeSince.has(lane), `${this.job} is already awake on lane ${lane}`);
    const { job, weight, config, layout, engine } = this.options;
    const store = this.store?.shared ?? null;
    const remote = this.fleet.laneNow(lane);
    await remote.request({ kind: 'createEngine', job, weight, config, layout, options: engine, store });
    this.#awakeSince.set(lane, nowMs());
    return remote;
  }

  /** Gives sequences to an awake engine. */
  add(lane: number, sequences: readonly SequenceRequest[]): Promise<null> {
    return this.fleet.request(lane, { kind: 'add', job: this.job, sequences });
  }

  /** Episodes parked in an awake engine go on with their next turns. */
  extend(lane: number, turns: readonly EpisodeTurn[]): Promise<null> {
    return this.fleet.request(lane, { kind: 'extend', job: this.job, turns });
  }

  /** Episodes parked on the lane are over there: their caches are freed. */
  finish(lane: number, ids: readonly number[]): Promise<null> {
    return this.fleet.request(lane, { kind: 'finish', job: this.job, ids });
  }

  /** Sequences of an engine end early; what they have sampled is told no more. */
  abort(lane: number, ids: readonly number[]): Promise<null> {
    return this.fleet.request(lane, { kind: 'abort', job: this.job, ids });
  }

  /** The lane's engine runs at most so many sequences at once from now on; the others are held where they are. */
  async limitSlots(lane: number, slots: number): Promise<void> {
    await this.fleet.request(lane, { kind: 'slots', job: this.job, slots });
  }

  /** How the lane's engine admits sequences from now on; null: each takes all the cache it may need. */
  async admit(lane: number, admission: Admission | null): Promise<void> {
    await this.fleet.request(lane, { kind: 'admission', job: this.job, admission });
  }

  /** Training will want its lane at about `expectedMs`. */
  hint(expectedMs: number): void {
    this.fleet.hint(this.trainerLane, expectedMs);
  }

  /** The store's newest version into an awake engine, never those in between. `bytes` are those that cross the host. */
  pull(lane: number): Promise<PulledVersion> {
    return this.fleet.request(lane, { kind: 'pull', job: this.job });
  }

  /** Frees the lane's engine; its sequences go back to whoever owns them. */
  async sleep(lane: number): Promise<readonly number[]> {
    const { evicted } = await this.fleet.request(lane, { kind: 'removeEngine', job: this.job });
    this.#endAwake(lane);
    return evicted.map(({ id }) => id);
  }

  /** The run ends: what is awake has been so until now. */
  endAwake(): void {
    for (const lane of this.awake) this.#endAwake(lane);
  }

  #endAwake(lane: number): void {
    const fromMs = this.#awakeSince.get(lane);
    if (fromMs === undefined) return;
    this.#awakeSince.delete(lane);
    this.records.awake.push({ lane, job: this.job, fromMs, toMs: nowMs() });
  }
}
