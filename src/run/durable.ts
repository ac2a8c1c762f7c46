import { LaneLost, type RemoteLane } from '../lanes/remote-lane.js';
import { assert } from '../lib/assert.js';
import { nowMs } from '../lib/clock.js';
import type { Buckets } from '../model/layout.js';
import type { TrainerState } from '../train/state.js';
import type { JobFleet } from './job-fleet.js';

/** Of all that is trained in a run. */
export interface StepCount {
  /** The step that is being taken; 0 when none is. */
  underWay: number;
  /** How often a step had to be taken again. */
  repeated: number;
}

export interface DurableParts {
  readonly fleet: JobFleet;
  /** Makes it on a lane; the memory of `transfer` may be moved there. */
  readonly create: (lane: RemoteLane, weights: Buckets, transfer: ArrayBuffer[]) => Promise<unknown>;
  readonly loadState: (lane: RemoteLane, state: TrainerState) => Promise<unknown>;
  /** The weights it began with are needed again, whatever state it has come to. */
  readonly keepsInitial: boolean;
  /** Brings the state to the host after every step, so that another lane can go on. */
  readonly recover: boolean;
  readonly steps: StepCount;
}

/** Optimizer steps that count all together or not at all. */
export interface StepsOrder<Batch> {
  /** Of the run; told when it has to be taken again. */
  readonly step: number;
  /** The batch of each optimizer step, in order. */
  readonly updates: readonly Batch[];
  readonly requestedMs: number;
}

/** How one optimizer step is to be asked for. */
export interface StepAsked {
  readonly requestedMs: number;
  /** The last of those that count together. */
  readonly isLast: boolean;
  /** The state after it is to come back. */
  readonly commit: boolean;
}

/**
 * What is trained in a run and outlives its lane. A step counts once the state after it has reached the host; when the
 * lane is lost, the next one gets the last such state and takes the step again. A step is a pure function of state and
 * batch, so it comes to the very same bits.
 *
 * The host holds one state, and one more while it arrives.
 */
export class Durable {
  /** What it began with: as long as no step counts, and longer where that is needed again. */
  #initial: Buckets | null = null;
  #committed: TrainerState | null = null;
  #furnished: RemoteLane | null = null;
  #turn: Promise<unknown> = Promise.resolve();

  constructor(private readonly parts: DurableParts) {}

  /** Makes it, and does with it on its lane what has to come first. */
  start(weights: Buckets, work: (lane: RemoteLane) => Promise<unknown>): Promise<void> {
    this.#initial = weights;
    return this.alone(async (lane) => {
      if (this.#furnished !== lane) await this.furnish(lane);
      await work(lane);
    });
  }

  /** Gives a lane that has none the one that was lost; nothing before `start`. */
  async furnish(lane: RemoteLane): Promise<void> {
    const { create, loadState, recover } = this.parts;
    const weights = this.#initial ?? this.#committed?.weights;
    if (weights === undefined) return;
    // What is not needed again need not be copied.
    await create(lane, weights, recover ? [] : weights.map(({ buffer }) => buffer));
    if (!recover) this.#initial = null;
    if (this.#committed !== null) await loadState(lane, this.#committed);
    this.#furnished = lane;
  }

  /** Takes the steps on that lane. To be called while `alone` with it. */
  async take<Batch, Answer extends { readonly state: TrainerState | null }>(
    isAgain: boolean,
    { step, updates, requestedMs }: StepsOrder<Batch>,
    ask: (batch: Batch, asked: StepAsked) => Promise<Answer>,
  ): Promise<Omit<Answer, 'state'>[]> {
    const { recover, keepsInitial, steps } = this.parts;
    if (isAgain) steps.repeated++;
    steps.underWay = step;
    const answers: Omit<Answer, 'state'>[] = [];
    let committed: TrainerState | null = null;
    for (const [i, batch] of updates.entries()) {
      const isLast = i + 1 === updates.length;
      // Only the first has waited since the stage was asked for.
      const askedMs = i === 0 && !isAgain ? requestedMs : nowMs();
      const { state, ...answer } = await ask(batch, {
        requestedMs: askedMs,
        isLast,
        commit: recover && isLast,
      });
      committed = state;
      answers.push(answer);
    }
    assert(!recover || committed !== null, `step ${step} came back without its state`);
    this.#committed = committed;
    if (!keepsInitial && committed !== null) this.#initial = null;
    steps.underWay = 0;
    return answers;
  }

  /** The weights of the last step that counts; null when only the lane has them. */
  get weights(): Buckets | null {
    return this.#committed?.weights ?? this.#initial;
  }

  /** Ends it: its memory on the lane is freed by `free`, that on the host here. What was lost is gone already. */
  remove(free: (lane: RemoteLane) => Promise<unknown>): Promise<void> {
    this.#initial = null;
    this.#committed = null;
    return this.inTurn(async () => {
      const lane = await this.parts.fleet.trainer();
      if (lane === this.#furnished) await free(lane);
      this.#furnished = null;
    });
  }

  /** Alone with it, and again on the next lane when this one is lost. */
  alone<T>(work: (lane: RemoteLane, isAgain: boolean) => Promise<T>): Promise<T> {
    return this.inTurn(async () => {
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
  inTurn<T>(work: () => Promise<T>): Promise<T> {
    const done = this.#turn.then(work, work);
    this.#turn = done;
    done.catch(() => undefined);
    return done;
  }
}
