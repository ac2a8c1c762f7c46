import type { SequenceRequest } from '../engine/sequence.js';
import type { EngineUpdate } from '../engine/engine.js';
import { assert, at } from '../lib/assert.js';
import { nowMs } from '../lib/clock.js';
import { toError } from '../lib/errors.js';
import type { LaneRecords } from '../telemetry/records.js';
import type { RunRecords } from '../telemetry/run-records.js';
import type { LaneSettings } from '../lanes/settings.js';
import type { LaneFault } from '../lanes/faults.js';
import type { EpisodeTurn, LaneAnswers, LaneRequest } from '../lanes/messages.js';
import { type LaneEvents, LaneLost, RemoteLane } from '../lanes/remote-lane.js';
import type { AdapterSummary } from '../gpu/device.js';
import type { ParamLayout } from '../model/layout.js';
import { WeightStore } from '../weights/store.js';
import { checkDeviceLimits, type DeviceNeeds } from './device-limits.js';
import { Seat, type SeatParts } from './seat.js';

const FLUSH_TIMEOUT_MS = 10_000;
/** A stage that has not come so long after it said it would is not waited for any more. */
const HINT_MS_MAX = 50;
/** The lane that the trainer lives on. */
export const TRAINER_LANE = 0;

export interface FleetOptions extends DeviceNeeds {
  readonly job: string;
  readonly lanes: number;
  readonly adapter: string | null;
  readonly settings: LaneSettings;
  /** How many lanes may be replaced in the whole run. */
  readonly rebuildsMax: number;
  /** Whether the trainer can go on in a lane that replaces its own. */
  readonly recover: boolean;
  /** What is to go wrong in the lane of that number and epoch: for tests. */
  readonly faults: (lane: number, epoch: number) => readonly LaneFault[];
}

export interface FleetEvents {
  readonly onTokens: (lane: number, update: EngineUpdate) => void;
  /** The lane and all that was on it is gone; another one is on its way. */
  readonly onLost: (lane: number, error: Error) => void;
  /** Gives the trainer's lane, which is a new one, what it had. */
  readonly furnish: (trainer: RemoteLane) => Promise<void>;
  /** The lane is there again, its engine asleep. */
  readonly onRebuilt: (lane: number, seconds: number) => void;
  /** The lane is gone for good. */
  readonly onBroken: (lane: number, error: Error) => void;
}

/** The version an engine holds now, and what fetching it took. */
export interface PulledVersion {
  readonly version: number;
  readonly bytes: number;
}

/**
 * The lanes of a run and the engines awake on them. Lane 0 is the trainer's; new weights reach its engine by a
 * device copy, and every other engine through the store, pulled only while it is awake. A lane that breaks is replaced.
 */
export class Fleet {
  readonly #seats: Seat[] = [];
  readonly #awakeSince = new Map<number, number>();
  #largestDispatchUs = 0;
  #rebuilt = 0;
  #rebuildsTried = 0;
  readonly #adapters = new Map<number, AdapterSummary>();

  private constructor(
    /** Null when lane 0 is the only one: then no weight ever goes to another lane. */
    readonly store: WeightStore | null,
    private readonly options: FleetOptions,
    private readonly records: RunRecords,
    private readonly events: FleetEvents,
  ) {}

  /**
   * Opens every lane; when one cannot be opened those that were are closed again.
   *
   * @throws UserError without an adapter, or when the model does not fit its limits.
   */
  static async open(options: FleetOptions, records: RunRecords, events: FleetEvents): Promise<Fleet> {
    const store = options.lanes > 1 ? WeightStore.create(options.layout) : null;
    const fleet = new Fleet(store, options, records, events);
    const opening = Array.from({ length: options.lanes }, (_, lane) => Seat.open(fleet.#seatParts(lane)));
    const settled = await Promise.allSettled(opening);
    for (const result of settled) if (result.status === 'fulfilled') fleet.#seats.push(result.value);
    const failed = settled.find((result) => result.status === 'rejected');
    if (failed === undefined) {
      for (const lane of fleet.numbers) records.addLane(lane, fleet.#adapterOf(lane).description);
      return fleet;
    }
    await fleet.close();
    throw toError(failed.reason);
  }

  /** Whose engines and trainer these are. */
  get job(): string {
    return this.options.job;
  }

  get layout(): ParamLayout {
    return this.options.layout;
  }

  /** What the trainer's lane runs on. */
  get adapter(): AdapterSummary {
    return this.#adapterOf(TRAINER_LANE);
  }

  /** Numbers of all lanes, those included that are being replaced. */
  get numbers(): readonly number[] {
    return this.#seats.map(({ number }) => number);
  }

  /** The trainer's lane, once it is there. Rejects when it is gone for good. */
  trainer(): Promise<RemoteLane> {
    return at(this.#seats, TRAINER_LANE).ready();
  }

  /** Lanes whose engine is awake, ascending. */
  get awake(): readonly number[] {
    return [...this.#awakeSince.keys()].sort((a, b) => a - b);
  }

  /** True while the lane can be asked for something. */
  isReady(lane: number): boolean {
    return at(this.#seats, lane).lane !== null;
  }

  /** How many lanes were replaced so far. */
  get rebuilt(): number {
    return this.#rebuilt;
  }

  /** Longest single dispatch that any lane timed, in µs; known after `flush`. */
  get largestDispatchUs(): number {
    return this.#largestDispatchUs;
  }

  /** Makes the lane's engine, which runs once it has weights; returns the lane that has it. */
  async createEngine(lane: number): Promise<RemoteLane> {
    assert(!this.#awakeSince.has(lane), `lane ${lane} is already awake`);
    const { job, config, layout, engine } = this.options;
    const store = this.store?.shared ?? null;
    const remote = this.#laneNow(lane);
    await remote.request({ kind: 'createEngine', job, weight: 1, config, layout, options: engine, store });
    this.#awakeSince.set(lane, nowMs());
    return remote;
  }

  /** Gives sequences to an awake engine. */
  add(lane: number, sequences: readonly SequenceRequest[]): Promise<null> {
    return this.#request(lane, { kind: 'add', job: this.options.job, sequences });
  }

  /** Episodes parked in an awake engine go on with their next turns. */
  extend(lane: number, turns: readonly EpisodeTurn[]): Promise<null> {
    return this.#request(lane, { kind: 'extend', job: this.options.job, turns });
  }

  /** Episodes parked on the lane are over there: their caches are freed. */
  finish(lane: number, ids: readonly number[]): Promise<null> {
    return this.#request(lane, { kind: 'finish', job: this.options.job, ids });
  }

  /** The lane's engine runs at most so many sequences at once from now on; the others are held where they are. */
  async limitSlots(lane: number, slots: number): Promise<void> {
    await this.#request(lane, { kind: 'slots', job: this.options.job, slots });
  }

  /** Training will want its lane at about `expectedMs`. Nobody is told where there is no lane to tell. */
  hint(expectedMs: number): void {
    const untilMs = expectedMs + HINT_MS_MAX;
    this.#request(TRAINER_LANE, { kind: 'hint', expectedMs, untilMs }).catch(() => undefined);
  }

  /** The store's newest version into an awake engine, never those in between. `bytes` are those that cross the host. */
  pull(lane: number): Promise<PulledVersion> {
    return this.#request(lane, { kind: 'pull', job: this.options.job });
  }

  /** Bytes of one version of the weights. */
  get weightBytes(): number {
    return this.layout.bucketElements.reduce((sum, elements) => sum + elements * 4, 0);
  }

  /** Frees the lane's engine; its sequences go back to whoever owns them. */
  async sleep(lane: number): Promise<readonly number[]> {
    const { evicted } = await this.#request(lane, { kind: 'removeEngine', job: this.options.job });
    this.#endAwake(lane);
    return evicted.map(({ id }) => id);
  }

  /**
   * Fetches what the lanes have not sent yet. A lane that is broken or does not answer in time has told what it told:
   * `onSilent` hears of it.
   */
  async flush(onSilent: (lane: number, error: Error) => void): Promise<void> {
    await Promise.all(
      this.numbers.map(async (lane) => {
        try {
          const answer = await within(this.#request(lane, { kind: 'flush' }), FLUSH_TIMEOUT_MS);
          this.records.add(answer satisfies LaneRecords);
          this.#largestDispatchUs = Math.max(this.#largestDispatchUs, answer.largestDispatchUs);
        } catch (error) {
          onSilent(lane, toError(error));
        }
      }),
    );
    for (const lane of this.awake) this.#endAwake(lane);
  }

  /** The run is over: a lane that breaks from now on is not replaced, and none that is being replaced is waited for. */
  retire(): void {
    for (const seat of this.#seats) seat.retire();
  }

  async close(): Promise<void> {
    await Promise.all(this.#seats.map((seat) => seat.close()));
  }

  async #request<R extends LaneRequest>(lane: number, request: R): Promise<LaneAnswers[R['kind']]> {
    return this.#laneNow(lane).request(request);
  }

  #laneNow(lane: number): RemoteLane {
    const { lane: remote } = at(this.#seats, lane);
    if (remote === null) throw new LaneLost(`lane ${lane} is lost`);
    return remote;
  }

  #seatParts(lane: number): SeatParts {
    const { events, records } = this;
    return {
      lane,
      open: (epoch, laneEvents) => this.#open(lane, epoch, laneEvents),
      furnish: (remote) => (lane === TRAINER_LANE ? events.furnish(remote) : Promise.resolve()),
      mayReplace: () => this.#mayReplace(lane),
      events: {
        onTokens: (update) => events.onTokens(lane, update),
        onRecords: (received) => records.add(received),
        onLost: (error) => {
          this.#endAwake(lane);
          events.onLost(lane, error);
        },
        onRebuilt: (seconds) => {
          this.#rebuilt++;
          events.onRebuilt(lane, seconds);
        },
        onGivenUp: (error) => events.onBroken(lane, error),
      },
    };
  }

  async #open(lane: number, epoch: number, laneEvents: LaneEvents): Promise<RemoteLane> {
    const { adapter, settings, faults } = this.options;
    // Whoever published before may be dead or not: it is not heard any more.
    if (lane === TRAINER_LANE) this.store?.claim(epoch);
    const options = { lane, adapter, settings, epoch, faults: faults(lane, epoch) };
    const remote = await RemoteLane.open(options, laneEvents);
    try {
      checkDeviceLimits(this.options, remote.storageBindingBytesMax);
    } catch (error) {
      await remote.close();
      throw error;
    }
    this.#adapters.set(lane, remote.adapter);
    return remote;
  }

  #adapterOf(lane: number): AdapterSummary {
    const adapter = this.#adapters.get(lane);
    assert(adapter !== undefined, `lane ${lane} was opened`);
    return adapter;
  }

  #mayReplace(lane: number): boolean {
    const { rebuildsMax, recover } = this.options;
    if (this.#rebuildsTried >= rebuildsMax || (lane === TRAINER_LANE && !recover)) return false;
    this.#rebuildsTried++;
    return true;
  }

  #endAwake(lane: number): void {
    const fromMs = this.#awakeSince.get(lane);
    if (fromMs === undefined) return;
    this.#awakeSince.delete(lane);
    this.records.awake.push({ lane, job: this.options.job, fromMs, toMs: nowMs() });
  }
}

async function within<T>(work: Promise<T>, timeoutMs: number): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`no answer within ${timeoutMs / 1000} s`)), timeoutMs);
  });
  try {
    return await Promise.race([work, late]);
  } finally {
    clearTimeout(timer);
  }
}
