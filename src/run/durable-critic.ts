import type { LaneRequest } from '../lanes/messages.js';
import type { RemoteLane } from '../lanes/remote-lane.js';
import { nowMs } from '../lib/clock.js';
import { layoutBytes, type Buckets, type ParamLayout } from '../model/layout.js';
import type { ValueSequence, WeightedSequence } from '../train/batch.js';
import type { CriticResult } from '../train/critic-results.js';
import type { CriticStepOptions } from '../train/critic.js';
import { Durable, type StepCount, type StepsOrder } from './durable.js';
import type { JobFleet } from './job-fleet.js';

/** What a critic is made of, its weights apart. */
export type CriticShape = Omit<
  Extract<LaneRequest, { kind: 'createCritic' }>,
  'kind' | 'job' | 'weight' | 'weights'
>;

export interface DurableCriticParts {
  readonly fleet: JobFleet;
  readonly shape: CriticShape;
  /** Brings the state to the host after every step, so that another lane can go on. */
  readonly recover: boolean;
  /** Of the run, whose trainer counts there too. */
  readonly steps: StepCount;
}

/** The critic's optimizer steps of one step of the run. */
export interface CriticOrder extends StepsOrder<readonly ValueSequence[]> {
  readonly options: CriticStepOptions;
}

/** The critic of a run, which lives on the trainer's lane and outlives it as `Durable` says. */
export class DurableCritic {
  readonly #durable: Durable;

  constructor(private readonly parts: DurableCriticParts) {
    const { fleet, shape, recover, steps } = parts;
    const { job } = fleet;
    this.#durable = new Durable({
      fleet,
      recover,
      keepsInitial: false,
      steps,
      create: (lane, weights, transfer) =>
        lane.request({ kind: 'createCritic', job, weight: fleet.weight, ...shape, weights }, transfer),
      loadState: (lane, state) => lane.request({ kind: 'loadCriticState', job, state }),
    });
  }

  get layout(): ParamLayout {
    return this.parts.shape.layout;
  }

  /** On its lane: weights, gradients and both moments. */
  get bytes(): number {
    return 4 * layoutBytes(this.layout);
  }

  /** Makes the critic. */
  start(weights: Buckets): Promise<void> {
    return this.#durable.start(weights, () => Promise.resolve());
  }

  /** Gives a lane without a critic the one that was lost; nothing before `start`. */
  furnish(lane: RemoteLane): Promise<void> {
    return this.#durable.furnish(lane);
  }

  /** Frees the critic: nothing is asked of it any more. */
  remove(): Promise<void> {
    const { job } = this.parts.fleet;
    return this.#durable.remove((lane) => lane.request({ kind: 'removeCritic', job }));
  }

  /** The value at each position with a weight, aligned as the sequences' weights. */
  values(
    sequences: readonly WeightedSequence[],
    requestedMs: number,
  ): Promise<readonly Float32Array<ArrayBuffer>[]> {
    return this.#durable.alone(async (lane, isAgain) => {
      const askedMs = isAgain ? nowMs() : requestedMs;
      const { job } = this.parts.fleet;
      const { values } = await lane.request({ kind: 'values', job, requestedMs: askedMs, sequences });
      return values;
    });
  }

  /** Takes the steps; one result for each. */
  train(order: CriticOrder): Promise<readonly CriticResult[]> {
    const { job } = this.parts.fleet;
    const { options } = order;
    return this.#durable.alone((lane, isAgain) =>
      this.#durable.take(isAgain, order, (sequences, { requestedMs, commit }) =>
        lane.request({ kind: 'trainCritic', job, requestedMs, sequences, options, commit }),
      ),
    );
  }
}
