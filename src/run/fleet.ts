import type { EngineUpdate } from '../engine/engine.js';
import type { AdapterSummary } from '../gpu/device.js';
import type { LaneFault } from '../lanes/faults.js';
import type { LaneAnswers, LaneRequest } from '../lanes/messages.js';
import { type LaneEvents, LaneLost, RemoteLane } from '../lanes/remote-lane.js';
import type { ExecutorBudgets, LaneSettings } from '../lanes/settings.js';
import { assert, at } from '../lib/assert.js';
import { toError } from '../lib/errors.js';
import type { LaneRecords } from '../telemetry/records.js';
import { checkDeviceLimits, type DeviceNeeds } from './device-limits.js';
import { Seat, type SeatParts } from './seat.js';

const FLUSH_TIMEOUT_MS = 10_000;
/** A stage that has not come so long after it said it would is not waited for any more. */
const HINT_MS_MAX = 50;

export interface FleetOptions {
  readonly lanes: number;
  readonly adapter: string | null;
  readonly settings: LaneSettings;
  /** Of each job, by lane: what its residents will bind there. */
  readonly needs: (lane: number) => readonly DeviceNeeds[];
  /** How many lanes may be replaced in the whole run. */
  readonly rebuildsMax: number;
  /** Whether trainers can go on in a lane that replaces theirs. */
  readonly recover: boolean;
  /** What is to go wrong in the lane of that number and epoch: for tests. */
  readonly faults: (lane: number, epoch: number) => readonly LaneFault[];
}

/** What everybody is told of a run's lanes. */
export interface FleetEvents {
  readonly onRecords: (records: LaneRecords) => void;
  /** The lane and all that was on it is gone; another one is on its way. */
  readonly onLost: (lane: number, error: Error) => void;
  /** The lane is there again, every engine asleep. */
  readonly onRebuilt: (lane: number, seconds: number) => void;
  /** The lane is gone for good. */
  readonly onBroken: (lane: number, error: Error) => void;
}

/** One job, as its lanes know it. */
export interface FleetMember {
  readonly job: string;
  /** Its trainer lives on the lane. */
  readonly trainsOn: (lane: number) => boolean;
  /** The lane is about to be opened as of that epoch: what was published from it before is not heard any more. */
  readonly opening: (lane: number, epoch: number) => void;
  /** `stepMs` as in `FromLane`. */
  readonly onTokens: (lane: number, update: EngineUpdate, stepMs: number | null) => void;
  readonly laneLost: (lane: number) => void;
  /** Gives a new lane what the job's trainer had on the one before. */
  readonly furnish: (lane: number, replacement: RemoteLane) => Promise<void>;
}

/** The lanes of a run, which its jobs share. A lane that breaks is replaced. */
export class Fleet {
  readonly #seats: Seat[] = [];
  readonly #members = new Map<string, FleetMember>();
  #largestDispatchUs = 0;
  #rebuilt = 0;
  #rebuildsTried = 0;
  readonly #adapters = new Map<number, AdapterSummary>();

  private constructor(
    private readonly options: FleetOptions,
    private readonly events: FleetEvents,
  ) {}

  /**
   * Opens every lane; when one cannot be opened those that were are closed again.
   *
   * @throws UserError without an adapter, or when a model does not fit its limits.
   */
  static async open(options: FleetOptions, events: FleetEvents): Promise<Fleet> {
    const fleet = new Fleet(options, events);
    const opening = Array.from({ length: options.lanes }, (_, lane) => Seat.open(fleet.#seatParts(lane)));
    const settled = await Promise.allSettled(opening);
    for (const result of settled) if (result.status === 'fulfilled') fleet.#seats.push(result.value);
    const failed = settled.find((result) => result.status === 'rejected');
    if (failed === undefined) return fleet;
    await fleet.close();
    throw toError(failed.reason);
  }

  /** The job is there: from now on it hears of what is its own. */
  join(member: FleetMember): void {
    assert(!this.#members.has(member.job), `job ${member.job} joins twice`);
    this.#members.set(member.job, member);
  }

  leave(job: string): void {
    this.#members.delete(job);
  }

  /** What the lane runs on. */
  adapterOf(lane: number): AdapterSummary {
    const adapter = this.#adapters.get(lane);
    assert(adapter !== undefined, `lane ${lane} was opened`);
    return adapter;
  }

  /** Numbers of all lanes, those included that are being replaced. */
  get numbers(): readonly number[] {
    return this.#seats.map(({ number }) => number);
  }

  /** The lane, once it is there. Rejects when it is gone for good. */
  lane(number: number): Promise<RemoteLane> {
    return at(this.#seats, number).ready();
  }

  /** The lane as it is now. @throws LaneLost while it is being replaced. */
  laneNow(number: number): RemoteLane {
    const { lane } = at(this.#seats, number);
    if (lane === null) throw new LaneLost(`lane ${number} is lost`);
    return lane;
  }

  /** True while the lane can be asked for something. */
  isReady(lane: number): boolean {
    return at(this.#seats, lane).lane !== null;
  }

  /** How often the lane was replaced, by the newest that was begun. */
  epochOf(lane: number): number {
    return at(this.#seats, lane).epoch;
  }

  /** How many lanes were replaced so far. */
  get rebuilt(): number {
    return this.#rebuilt;
  }

  /** Longest single dispatch that any lane timed, in µs; known after `flush`. */
  get largestDispatchUs(): number {
    return this.#largestDispatchUs;
  }

  async request<R extends LaneRequest>(lane: number, request: R): Promise<LaneAnswers[R['kind']]> {
    return this.laneNow(lane).request(request);
  }

  /** How the lane's engines alternate from now on; null: as its budgets and their weights say. */
  async align(lane: number, segment: ExecutorBudgets | null): Promise<void> {
    await this.request(lane, { kind: 'align', segment });
  }

  /** A stage will want the lane at about `expectedMs`. Nobody is told where there is no lane to tell. */
  hint(lane: number, expectedMs: number): void {
    const untilMs = expectedMs + HINT_MS_MAX;
    this.request(lane, { kind: 'hint', expectedMs, untilMs }).catch(() => undefined);
  }

  /**
   * Fetches what the lanes have not sent yet. A lane that is broken or does not answer in time has told what it told:
   * `onSilent` hears of it.
   */
  async flush(onSilent: (lane: number, error: Error) => void): Promise<void> {
    await Promise.all(
      this.numbers.map(async (lane) => {
        try {
          const answer = await within(this.request(lane, { kind: 'flush' }), FLUSH_TIMEOUT_MS);
          this.events.onRecords(answer satisfies LaneRecords);
          this.#largestDispatchUs = Math.max(this.#largestDispatchUs, answer.largestDispatchUs);
        } catch (error) {
          onSilent(lane, toError(error));
        }
      }),
    );
  }

  /** The run is over: a lane that breaks from now on is not replaced, and none that is being replaced is waited for. */
  retire(): void {
    for (const seat of this.#seats) seat.retire();
  }

  async close(): Promise<void> {
    await Promise.all(this.#seats.map((seat) => seat.close()));
  }

  #seatParts(lane: number): SeatParts {
    const { events } = this;
    return {
      lane,
      open: (epoch, laneEvents) => this.#open(lane, epoch, laneEvents),
      furnish: async (remote) => {
        for (const member of [...this.#members.values()]) await member.furnish(lane, remote);
      },
      mayReplace: () => this.#mayReplace(lane),
      events: {
        onTokens: (update, job, stepMs) => this.#members.get(job)?.onTokens(lane, update, stepMs),
        onRecords: events.onRecords,
        onLost: (error) => {
          for (const member of this.#members.values()) member.laneLost(lane);
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
    const { adapter, settings, faults, needs } = this.options;
    for (const member of this.#members.values()) member.opening(lane, epoch);
    const options = { lane, adapter, settings, epoch, faults: faults(lane, epoch) };
    const remote = await RemoteLane.open(options, laneEvents);
    try {
      for (const need of needs(lane)) checkDeviceLimits(need, remote.storageBindingBytesMax);
    } catch (error) {
      await remote.close();
      throw error;
    }
    this.#adapters.set(lane, remote.adapter);
    return remote;
  }

  #mayReplace(lane: number): boolean {
    const { rebuildsMax, recover } = this.options;
    const hasTrainer = [...this.#members.values()].some((member) => member.trainsOn(lane));
    if (this.#rebuildsTried >= rebuildsMax || (hasTrainer && !recover)) return false;
    this.#rebuildsTried++;
    return true;
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
