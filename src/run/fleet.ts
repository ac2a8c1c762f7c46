import type { SequenceRequest } from '../engine/sequence.js';
import type { EngineUpdate } from '../engine/engine.js';
import { assert, at } from '../lib/assert.js';
import { nowMs } from '../lib/clock.js';
import { toError } from '../lib/errors.js';
import type { LaneRecords } from '../telemetry/records.js';
import type { RunRecords } from '../telemetry/run-records.js';
import type { ExecutorBudgets } from '../lanes/executor.js';
import { RemoteLane } from '../lanes/remote-lane.js';
import type { ParamLayout } from '../model/layout.js';
import { WeightStore } from '../weights/store.js';
import { checkDeviceLimits, type DeviceNeeds } from './device-limits.js';

const FLUSH_TIMEOUT_MS = 10_000;

export interface FleetOptions extends DeviceNeeds {
  readonly job: string;
  readonly lanes: number;
  readonly adapter: string | null;
  readonly budgets: ExecutorBudgets;
}

export interface FleetEvents {
  readonly onTokens: (lane: number, update: EngineUpdate) => void;
  readonly onBroken: (lane: number, error: Error) => void;
}

/** The version an engine holds now, and what fetching it took. */
export interface PulledVersion {
  readonly version: number;
  readonly bytes: number;
}

/**
 * The lanes of a run and the engines awake on them. Lane 0 is the trainer's; new weights reach its engine by a
 * device copy, and every other engine through the store, pulled only while it is awake.
 */
export class Fleet {
  readonly #awakeSince = new Map<number, number>();
  #largestDispatchUs = 0;

  private constructor(
    readonly lanes: readonly RemoteLane[],
    /** Null when lane 0 is the only one: then no weight ever crosses the host. */
    readonly store: WeightStore | null,
    private readonly options: FleetOptions,
    private readonly records: RunRecords,
  ) {}

  /**
   * Opens every lane; when one cannot be opened those that were are closed again.
   *
   * @throws UserError without an adapter, or when the model does not fit its limits.
   */
  static async open(options: FleetOptions, records: RunRecords, events: FleetEvents): Promise<Fleet> {
    const { job, adapter, budgets } = options;
    const opening = Array.from({ length: options.lanes }, (_, lane) =>
      RemoteLane.open(
        { lane, job, adapter, budgets },
        {
          onTokens: (update) => events.onTokens(lane, update),
          onRecords: (received) => records.add(received),
          onBroken: (error) => events.onBroken(lane, error),
        },
      ),
    );
    const settled = await Promise.allSettled(opening);
    const lanes = settled.flatMap((result) => (result.status === 'fulfilled' ? [result.value] : []));
    try {
      const failed = settled.find((result) => result.status === 'rejected');
      if (failed !== undefined) throw toError(failed.reason);
      for (const lane of lanes) checkDeviceLimits(options, lane.storageBindingBytesMax);
      const store = lanes.length > 1 ? WeightStore.create(options.layout) : null;
      for (const { lane, adapter: summary } of lanes) records.addLane(lane, summary.description);
      return new Fleet(lanes, store, options, records);
    } catch (error) {
      await Promise.all(lanes.map((lane) => lane.close()));
      throw error;
    }
  }

  get layout(): ParamLayout {
    return this.options.layout;
  }

  get trainer(): RemoteLane {
    return at(this.lanes, 0);
  }

  /** Lanes whose engine is awake, ascending. */
  get awake(): readonly number[] {
    return [...this.#awakeSince.keys()].sort((a, b) => a - b);
  }

  /** Longest single dispatch that any lane timed, in µs; known after `flush`. */
  get largestDispatchUs(): number {
    return this.#largestDispatchUs;
  }

  /**
   * Makes the lane's engine and gives it weights: on lane 0 those of the trainer, which are `version`, elsewhere the
   * store's newest, never those in between. `bytes` are those that crossed the host.
   */
  async wake(lane: number, version: number): Promise<PulledVersion> {
    assert(!this.#awakeSince.has(lane), `lane ${lane} is already awake`);
    const { config, layout, engine } = this.options;
    const store = this.store?.shared ?? null;
    await at(this.lanes, lane).request({
      kind: 'createEngine',
      config,
      layout,
      options: engine,
      store,
    });
    this.#awakeSince.set(lane, nowMs());
    if (lane !== 0) return this.pull(lane);
    await this.trainer.request({ kind: 'publish', version, store: null });
    return { version, bytes: 0 };
  }

  /** Gives sequences to an awake engine. */
  add(lane: number, sequences: readonly SequenceRequest[]): Promise<null> {
    return at(this.lanes, lane).request({ kind: 'add', sequences });
  }

  /** The store's newest version into an awake engine. */
  pull(lane: number): Promise<PulledVersion> {
    return at(this.lanes, lane).request({ kind: 'pull' });
  }

  /** Bytes of one version of the weights. */
  get weightBytes(): number {
    return this.layout.bucketElements.reduce((sum, elements) => sum + elements * 4, 0);
  }

  /** Frees the lane's engine; its sequences go back to whoever owns them. */
  async sleep(lane: number): Promise<readonly number[]> {
    const { evicted } = await at(this.lanes, lane).request({ kind: 'removeEngine' });
    this.#endAwake(lane);
    return evicted.map(({ id }) => id);
  }

  /**
   * Fetches what the lanes have not sent yet. A lane that is broken or does not answer in time has told what it told:
   * `onSilent` hears of it.
   */
  async flush(onSilent: (lane: number, error: Error) => void): Promise<void> {
    await Promise.all(
      this.lanes.map(async (lane) => {
        try {
          const answer = await within(lane.request({ kind: 'flush' }), FLUSH_TIMEOUT_MS);
          this.records.add(answer satisfies LaneRecords);
          this.#largestDispatchUs = Math.max(this.#largestDispatchUs, answer.largestDispatchUs);
        } catch (error) {
          onSilent(lane.lane, toError(error));
        }
      }),
    );
    for (const lane of this.awake) this.#endAwake(lane);
  }

  async close(): Promise<void> {
    await Promise.all(this.lanes.map((lane) => lane.close()));
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
