import type { LaneRequest } from '../lanes/messages.js';
import type { RemoteLane } from '../lanes/remote-lane.js';
import { nowMs } from '../lib/clock.js';
import type { Buckets } from '../model/layout.js';
import type { ScoreSequence, TrainSequence } from '../train/batch.js';
import type { TrainResult } from '../train/results.js';
import type { StepOptions } from '../train/trainer.js';
import { Durable, type StepCount, type StepsOrder } from './durable.js';
import type { JobFleet } from './job-fleet.js';

type Request<K extends LaneRequest['kind']> = Extract<LaneRequest, { kind: K }>;

/** What a trainer is made of, its weights apart. */
export type TrainerShape = Omit<Request<'createTrainer'>, 'kind' | 'job' | 'weight' | 'weights'>;

export interface DurableTrainerParts {
  readonly fleet: JobFleet;
  readonly shape: TrainerShape;
  /** Keeps the weights it begins with as the frozen reference. */
  readonly hasReference: boolean;
  /** Brings the state to the host after every step, so that another lane can go on. */
  readonly recover: boolean;
}

/** All optimizer steps that lead to one version. */
export interface TrainOrder extends StepsOrder<readonly TrainSequence[]> {
  readonly options: StepOptions;
  readonly version: number;
}

export interface TrainReport {
  /** One for each optimizer step. */
  readonly results: readonly TrainResult[];
  /** What publishing took beside the step itself. */
  readonly publishSeconds: number;
}

/** The trainer of a run, which outlives its lane as `Durable` says, and the version its weights are. */
export class DurableTrainer {
  /** Of all that is trained in the run: a critic counts its steps here too. */
  readonly steps: StepCount = { underWay: 0, repeated: 0 };
  readonly #durable: Durable;
  #version = 0;

  constructor(private readonly parts: DurableTrainerParts) {
    const { fleet, shape, hasReference, recover } = parts;
    const job = this.#job;
    this.#durable = new Durable({
      fleet,
      recover,
      keepsInitial: hasReference,
      steps: this.steps,
      create: async (lane, weights, transfer) => {
        await lane.request({ kind: 'createTrainer', job, weight: fleet.weight, ...shape, weights }, transfer);
        if (hasReference) await lane.request({ kind: 'keepReference', job });
      },
      loadState: (lane, state) => lane.request({ kind: 'loadState', job, state }),
    });
  }

  /** How often a step had to be taken again. */
  get stepsRepeated(): number {
    return this.steps.repeated;
  }

  /** The step that is being taken; 0 when none is. */
  get stepUnderWay(): number {
    return this.steps.underWay;
  }

  /** Makes the trainer, whose weights become version 0. */
  start(weights: Buckets): Promise<void> {
    const store = this.parts.fleet.store?.shared ?? null;
    const publish = { kind: 'publish', job: this.#job, version: 0, store } as const;
    return this.#durable.start(weights, (lane) => lane.request(publish));
  }

  /** Gives a lane without a trainer the one that was lost; nothing before `start`. */
  furnish(lane: RemoteLane): Promise<void> {
    return this.#durable.furnish(lane);
  }

  /** Log-probabilities of the sequences' tokens under the present weights or the reference. */
  score(
    request: Omit<Request<'score'>, 'kind' | 'job' | 'sequences'>,
    sequences: readonly ScoreSequence[],
  ): Promise<readonly Float32Array<ArrayBuffer>[]> {
    return this.#durable.alone(async (lane, isAgain) => {
      const requestedMs = isAgain ? nowMs() : request.requestedMs;
      const { logprobs } = await lane.request({
        kind: 'score',
        job: this.#job,
        ...request,
        requestedMs,
        sequences,
      });
      return logprobs;
    });
  }

  /** Takes the steps and publishes the weights they lead to. */
  train(order: TrainOrder): Promise<TrainReport> {
    const { options, version } = order;
    const publish = { version, store: this.parts.fleet.store?.shared ?? null };
    return this.#durable.alone(async (lane, isAgain) => {
      let publishMs = 0;
      const results = await this.#durable.take(isAgain, order, async (sequences, asked) => {
        const { requestedMs, isLast, commit } = asked;
        const request = { kind: 'train', job: this.#job, requestedMs, sequences, options } as const;
        const ending = isLast ? { publish, commit } : {};
        const { publishMs: tookMs, ...answer } = await lane.request({ ...request, ...ending });
        publishMs += tookMs;
        return answer;
      });
      this.#version = version;
      return { results, publishSeconds: publishMs / 1000 };
    });
  }

  /** Gives the engine beside it, on that lane, the present weights; returns their version. */
  giveHome(lane: RemoteLane): Promise<number> {
    return this.#durable.inTurn(async () => {
      await lane.request({ kind: 'publish', job: this.#job, version: this.#version, store: null });
      return this.#version;
    });
  }

  /** The weights of the last step that counts. */
  async weights(): Promise<Buckets> {
    const known = this.#durable.weights;
    if (known !== null) return known;
    const lane = await this.parts.fleet.trainer();
    const { weights } = await lane.request({ kind: 'exportWeights', job: this.#job });
    return weights;
  }

  /** Frees the trainer and forgets its weights: nothing is asked of it any more. */
  remove(): Promise<void> {
    const job = this.#job;
    return this.#durable.remove((lane) => lane.request({ kind: 'removeTrainer', job }));
  }

  get #job(): string {
    return this.parts.fleet.job;
  }
}
