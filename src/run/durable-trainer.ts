import { LaneLost, type RemoteLane } from '../lanes/remote-lane.js';
import type { LaneRequest } from '../lanes/messages.js';
import { assert } from '../lib/assert.js';
import { nowMs } from '../lib/clock.js';
import type { Buckets } from '../model/layout.js';
import type { ScoreSequence, TrainSequence } from '../train/batch.js';
import type { TrainResult } from '../train/results.js';
import type { TrainerState } from '../train/state.js';
import type { StepOptions } from '../train/trainer.js';
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
export interface TrainOrder {
  /** Of the run; told when it has to be taken again. */
  readonly step: number;
  /** The batch of each optimizer step, in order. */
  readonly updates: readonly (readonly TrainSequence[])[];
  readonly options: StepOptions;
  readonly version: number;
  readonly requestedMs: number;
}

export interface TrainReport {
  /** One for each optimizer step. */
  readonly results: readonly TrainResult[];
  /** What publishing took beside the step itself. */
  readonly publishSeconds: number;
}

/**
 * The trainer of a run, which outlives its lane. A step counts once the state after it has reached the host; when the
 * lane is lost, the next one gets the last such state and takes the step again. A step is a pure function of state and
 * batch, so it comes to the very same bits.
 *
 * The host holds one state, and one more while it arrives.
 */
export class DurableTrainer {
  /** What it began with: for the reference, and as long as no step counts. */
  #initial: Buckets | null = null;
  #committed: TrainerState | null = null;
  #version = 0;
  #furnished: RemoteLane | null = null;
  #steps = { underWay: 0, repeated: 0 };
  #turn: Promise<unknown> = Promise.resolve();

  constructor(private readonly parts: DurableTrainerParts) {}

  /** How often a step had to be taken again. */
  get stepsRepeated(): number {
    return this.#steps.repeated;
  }

  /** The step that is being taken; 0 when none is. */
  get stepUnderWay(): number {
    return this.#steps.underWay;
  }

  /** Makes the trainer, whose weights become version 0. */
  start(weights: Buckets): Promise<void> {
    this.#initial = weights;
    const store = this.parts.fleet.store?.shared ?? null;
    return this.#alone(async (lane) => {
      if (this.#furnished !== lane) await this.furnish(lane);
      await lane.request({ kind: 'publish', job: this.#job, version: 0, store });
    });
  }

  /** Gives a lane without a trainer the one that was lost; nothing before `start`. */
  async furnish(lane: RemoteLane): Promise<void> {
    const { shape, hasReference, recover } = this.parts;
    const weights = this.#initial ?? this.#committed?.weights;
    if (weights === undefined) return;
    // What is not needed again need not be copied.
    const transfer = recover ? [] : weights.map(({ buffer }) => buffer);
    const job = this.#job;
    const { weight } = this.parts.fleet;
    await lane.request({ kind: 'createTrainer', job, weight, ...shape, weights }, transfer);
    if (!recover) this.#initial = null;
    if (hasReference) await lane.request({ kind: 'keepReference', job });
    if (this.#committed !== null) await lane.request({ kind: 'loadState', job, state: this.#committed });
    this.#furnished = lane;
  }

  /** Log-probabilities of the sequences' tokens under the present weights or the reference. */
  score(
    request: Omit<Request<'score'>, 'kind' | 'job' | 'sequences'>,
    sequences: readonly ScoreSequence[],
  ): Promise<readonly Float32Array<ArrayBuffer>[]> {
    return this.#alone(async (lane, isAgain) => {
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
  async train(order: TrainOrder): Promise<TrainReport> {
    return this.#alone(async (lane, isAgain) => {
      if (isAgain) this.#steps.repeated++;
      this.#steps.underWay = order.step;
      const report = await this.#take(lane, order, isAgain);
      this.#steps.underWay = 0;
      this.#version = order.version;
      return report;
    });
  }

  /** Gives the engine beside it, on that lane, the present weights; returns their version. */
  giveHome(lane: RemoteLane): Promise<number> {
    return this.#inTurn(async () => {
      await lane.request({ kind: 'publish', job: this.#job, version: this.#version, store: null });
      return this.#version;
    });
  }

  /** The weights of the last step that counts. */
  async weights(): Promise<Buckets> {
    const known = this.#committed?.weights ?? this.#initial;
    if (known !== null) return known;
    const lane = await this.parts.fleet.trainer();
    const { weights } = await lane.request({ kind: 'exportWeights', job: this.#job });
    return weights;
  }

  /** Frees the trainer and forgets its weights: nothing is asked of it any more. */
  remove(): Promise<void> {
    this.#initial = null;
    this.#committed = null;
    return this.#inTurn(async () => {
      const lane = await this.parts.fleet.trainer();
      if (lane === this.#furnished) await lane.request({ kind: 'removeTrainer', job: this.#job });
    });
  }

  get #job(): string {
    return this.parts.fleet.job;
  }

  async #take(lane: RemoteLane, order: TrainOrder, isAgain: boolean): Promise<TrainReport> {
    const { fleet, recover: commit, hasReference } = this.parts;
    const { updates, options, version } = order;
    const store = fleet.store?.shared ?? null;
    const results: TrainResult[] = [];
    let committed: TrainerState | null = null;
    let publishMs = 0;
    for (const [i, sequences] of updates.entries()) {
      // Only the first has waited since the stage was asked for.
      const requestedMs = i === 0 && !isAgain ? order.requestedMs : nowMs();
      const request = { kind: 'train', job: this.#job, requestedMs, sequences, options } as const;
      const isLast = i + 1 === updates.length;
      const answer = await lane.request(
        isLast ? { ...request, publish: { version, store }, commit } : request,
      );
      const { state, publishMs: took, ...result } = answer;
      committed = state;
      publishMs += took;
      results.push(result);
    }
    assert(!commit || committed !== null, `step ${order.step} came back without its state`);
    this.#committed = committed;
    if (!hasReference && committed !== null) this.#initial = null;
    return { results, publishSeconds: publishMs / 1000 };
  }

  /** Alone with the trainer, and again on the next lane when this one is lost. */
  #alone<T>(work: (lane: RemoteLane, isAgain: boolean) => Promise<T>): Promise<T> {
    return this.#inTurn(async () => {
      for (let isAgain = false; ; isAgain = true) {
        const lane = await this.parts.fleet.trainer();
        try {
          return await work(lane, isAgain);
        } catch (error) {
          // How often that can be is for the fleet to say.
          if (!(error instanceof LaneLost)) throw error;
        }
      }
    });
  }

  /** One at a time: between the steps of one stage the weights are of no version. */
  #inTurn<T>(work: () => Promise<T>): Promise<T> {
    const done = this.#turn.then(work, work);
    this.#turn = done;
    done.catch(() => undefined);
    return done;
  }
}
