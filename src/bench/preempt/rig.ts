import type { AdapterSummary } from '../../gpu/device.js';
import { RemoteLane } from '../../lanes/remote-lane.js';
import { laneSettings } from '../../lanes/settings.js';
import { assert } from '../../lib/assert.js';
import { loadWeights } from '../../model/checkpoint.js';
import type { ModelConfig } from '../../model/config.js';
import { type Buckets, paramLayout, type ParamLayout } from '../../model/layout.js';
import { JOB, type TrainingStep, trainingStep } from './high-priority.js';
import { loadShape, type LoadShape, sequenceAt } from './load-shape.js';
import { LowPriorityLoad } from './load.js';
import { Tap, type Tapped } from './tap.js';

const UNLIMITED = laneSettings({ sliceUs: Infinity, inFlightUs: Infinity });

export interface RigOptions {
  /** A checkpoint folder, and its config. */
  readonly model: string;
  readonly config: ModelConfig;
  readonly adapter: string | null;
  readonly seed: number;
  /** High priority gets a second device on the same adapter for the cells that ask for one. */
  readonly hasSecond: boolean;
}

/** All that is measured: generation and training on one device as in a live run, and training alone on another. */
export class Rig {
  private constructor(
    readonly lane: RemoteLane,
    readonly second: RemoteLane | null,
    readonly load: LowPriorityLoad,
    readonly shape: LoadShape,
    readonly training: TrainingStep,
    private readonly tap: Tap,
    private readonly secondTap: Tap,
  ) {}

  /** @throws UserError for weights or an adapter that cannot be used. */
  static async open({ model, config, adapter, seed, hasSecond }: RigOptions): Promise<Rig> {
    const [tap, secondTap] = [new Tap(), new Tap()];
    let load: LowPriorityLoad | null = null;
    const open = (lane: number, records: Tap): Promise<RemoteLane> =>
      RemoteLane.open(
        { lane, adapter, settings: UNLIMITED },
        {
          onTokens: (update) => load?.receive(update),
          onRecords: (part) => records.receive(part),
          onBroken: (error) => load?.fail(error),
        },
      );
    const lane = await open(0, tap);
    let second: RemoteLane | null = null;
    try {
      const shape = loadShape(config, model, lane.storageBindingBytesMax);
      load = new LowPriorityLoad(shape.sequences, (index) => sequenceAt(shape, config, seed, index), {
        add: (sequences) => lane.request({ kind: 'add', job: JOB, sequences }),
        abort: (ids) => lane.request({ kind: 'abort', job: JOB, ids }),
      });
      const layout = paramLayout(config, lane.storageBindingBytesMax);
      const weights = await loadWeights(model, config, layout);
      const training = trainingStep(config, seed);
      await createTrainer(lane, config, layout, training, weights);
      await lane.request({
        kind: 'createEngine',
        job: JOB,
        weight: 1,
        config,
        layout,
        options: shape.engine,
        store: null,
      });
      await lane.request({ kind: 'publish', job: JOB, version: 0, store: null });
      if (hasSecond) {
        second = await open(1, secondTap);
        await createTrainer(second, config, layout, training, weights);
      }
      return new Rig(lane, second, load, shape, training, tap, secondTap);
    } catch (error) {
      await Promise.all([lane.close(), second?.close()]);
      throw error;
    }
  }

  get adapter(): AdapterSummary {
    return this.lane.adapter;
  }

  /** The lane that training is on: the second device, or the one that generation has. */
  trainingLane(onSecond: boolean): RemoteLane {
    if (!onSecond) return this.lane;
    assert(this.second !== null, 'no second device was opened');
    return this.second;
  }

  /** Records since the last call: those of the first lane, and those of the second. */
  async takeRecords(): Promise<{ readonly first: Tapped; readonly second: Tapped | null }> {
    const { second } = this;
    const [first, other] = await Promise.all([
      this.tap.take(this.lane),
      second === null ? null : this.secondTap.take(second),
    ]);
    return { first, second: other };
  }

  async close(): Promise<void> {
    await Promise.all([this.lane.close(), this.second?.close()]);
  }
}

async function createTrainer(
  lane: RemoteLane,
  config: ModelConfig,
  layout: ParamLayout,
  { trainer }: TrainingStep,
  weights: Buckets,
): Promise<void> {
  await lane.request({
    kind: 'createTrainer',
    job: JOB,
    weight: 1,
    config,
    layout,
    options: trainer,
    weights,
  });
}
