import type { SequenceRequest } from '../engine/sequence.js';
import type { EngineUpdate } from '../engine/engine.js';
import type { EngineOptions } from '../engine/webgpu-engine.js';
import { assert, at } from '../lib/assert.js';
import { nowMs } from '../lib/clock.js';
import type { LaneRecords } from '../telemetry/records.js';
import type { RunRecords } from '../telemetry/run-records.js';
import type { ExecutorBudgets } from '../lanes/executor.js';
import { RemoteLane } from '../lanes/remote-lane.js';
import { type ParamLayout, paramLayout } from '../model/layout.js';
import type { ModelConfig } from '../model/config.js';
import { WeightStore } from '../weights/store.js';

/** Buckets no larger than this even where the adapter would bind more: a publish moves bucket by bucket. */
const BUCKET_BYTES_MAX = 128 * 2 ** 20;

export interface FleetOptions {
  readonly job: string;
  readonly lanes: number;
  readonly adapter: string | null;
  readonly budgets: ExecutorBudgets;
  readonly config: ModelConfig;
  readonly engine: EngineOptions;
}

export interface FleetEvents {
  readonly onTokens: (lane: number, update: EngineUpdate) => void;
  readonly onBroken: (lane: number, error: Error) => void;
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
    readonly layout: ParamLayout,
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
    const { job, adapter, budgets, config } = options;
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
      const bindingBytes = Math.min(BUCKET_BYTES_MAX, ...lanes.map((lane) => lane.storageBindingBytesMax));
      const layout = paramLayout(config, bindingBytes);
      const store = lanes.length > 1 ? WeightStore.create(layout) : null;
      for (const { lane, adapter: summary } of lanes) records.addLane(lane, summary.description);
      return new Fleet(lanes, layout, store, options, records);
    } catch (error) {
      await Promise.all(lanes.map((lane) => lane.close()));
      throw error;
    }
  }

  get model(): ModelConfig {
    return this.options.config;
  }

  /** Longest sequence the engines were made for. */
  get contextTokensMax(): number {
    return this.options.engine.contextTokensMax;
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

  /** Makes the lane's engine and gives it the newest weights, never those in between. */
  async wake(lane: number, version: number): Promise<number> {
    assert(!this.#awakeSince.has(lane), `lane ${lane} is already awake`);
    const { config, engine } = this.options;
    const store = this.store?.shared ?? null;
    await at(this.lanes, lane).request({
      kind: 'createEngine',
      config,
      layout: this.layout,
      options: engine,
      store,
    });
    this.#awakeSince.set(lane, nowMs());
    if (lane !== 0) return (await at(this.lanes, lane).request({ kind: 'pull' })).version;
    await this.trainer.request({ kind: 'publish', version, store: null });
    return version;
  }

  /** Gives sequences to an awake engine. */
  add(lane: number, sequences: readonly SequenceRequest[]): Promise<null> {
    return at(this.lanes, lane).request({ kind: 'add', sequences });
  }

  /** The store's newest version into an awake engine. */
  pull(lane: number): Promise<{ readonly version: number; readonly bytes: number }> {
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

  /** Fetches what the lanes have not sent yet. */
  async flush(): Promise<void> {
    await Promise.all(
      this.lanes.map(async (lane) => {
        const answer = await lane.request({ kind: 'flush' });
        this.records.add(answer satisfies LaneRecords);
        this.#largestDispatchUs = Math.max(this.#largestDispatchUs, answer.largestDispatchUs);
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

function toError(reason: unknown): Error {
  return reason instanceof Error ? reason : new Error(String(reason));
}
