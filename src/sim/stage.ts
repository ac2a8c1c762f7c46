import { StageRefused, type StageAsk } from '../scheduler/scheduler.js';
import type { ExclusiveStage } from '../scheduler/stages.js';
import type { JobId, StageGrant } from '../scheduler/state.js';
import type { Random } from '../lib/prng.js';
import type { Timer } from './clock.js';
import { draw } from './distribution.js';
import type { LaneHolder, SimLane } from './lane.js';
import type { World } from './world.js';

export interface StageOrder {
  readonly job: JobId;
  readonly stage: ExclusiveStage;
  readonly lanes: readonly SimLane[];
  /** On a lane of speed 1; the slowest of its lanes counts. */
  readonly workMs: number;
  readonly random: Random;
  readonly onGranted: (waitedMs: number) => void;
  readonly onDone: () => void;
}

/**
 * One stage from its request to its end. When one of its lanes is lost it begins again once all are back, as a live
 * run takes a step again; its grant stays its own meanwhile.
 */
export class StageRun implements LaneHolder {
  readonly #lanes: readonly SimLane[];
  readonly #askedMs: number;
  #grant: StageGrant | null = null;
  #timer: Timer | null = null;
  #sinceMs = 0;
  #isOver = false;

  constructor(
    private readonly world: World,
    private readonly order: StageOrder,
  ) {
    this.#lanes = order.lanes;
    this.#askedMs = world.clock.nowMs;
    world.desk.tell(() => this.#ask());
  }

  /** A lane of its own is gone, with the work on it. */
  laneLost(): void {
    if (this.#timer === null) return;
    this.world.clock.cancel(this.#timer);
    this.#timer = null;
    this.world.records.stagesRepeated++;
    this.#book();
  }

  laneReturned(): void {
    if (this.#grant !== null && this.#timer === null && !this.#isOver) this.#begin();
  }

  /** Its job was given up: whatever it holds is free, and its scheduler knows by `jobFinished`. */
  abandon(): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.world.clock.cancel(this.#timer);
    if (this.#grant === null) return;
    if (this.#timer !== null) this.#book();
    for (const lane of this.#lanes) lane.free();
  }

  #ask(): void {
    if (this.#isOver) return;
    const { job, stage, lanes } = this.order;
    const ask: StageAsk = { job, stage, lanes: lanes.map((lane) => lane.id) };
    this.world.scheduler
      .request(ask)
      .then(
        (grant) => this.#granted(grant),
        (error: unknown) => {
          // A job that is over gets no more grants; anything else has closed the scheduler, which tells of it itself.
          if (!(error instanceof StageRefused) && !this.#isOver) throw error;
        },
      )
      .catch((error: unknown) =>
        this.world.scheduler.effects.failed(error instanceof Error ? error : new Error(String(error))),
      );
  }

  #granted(grant: StageGrant): void {
    if (this.#isOver) return;
    this.#grant = grant;
    this.order.onGranted(this.world.clock.nowMs - this.#askedMs);
    this.#begin();
  }

  #begin(): void {
    const { clock, costs, records } = this.world;
    const isWaiting = this.#lanes.some((lane) => !lane.isUp);
    let yieldMs = 0;
    if (!isWaiting && this.#lanes.some((lane) => lane.isGenerating)) {
      yieldMs = draw(costs.yieldMs, this.order.random);
      records.yieldMs.push(yieldMs);
    }
    for (const lane of this.#lanes) lane.hold(this);
    if (isWaiting) return;
    this.#sinceMs = clock.nowMs + yieldMs;
    const speed = Math.min(...this.#lanes.map((lane) => lane.speed));
    this.#timer = clock.after(yieldMs + this.order.workMs / speed, () => this.#end());
  }

  #end(): void {
    this.#isOver = true;
    this.#timer = null;
    this.#book();
    for (const lane of this.#lanes) lane.free();
    const grant = this.#grant;
    if (grant !== null) this.world.desk.tell(() => this.world.scheduler.release(grant));
    this.order.onDone();
  }

  /** Its time on its lanes so far; work that was lost kept them busy too. */
  #book(): void {
    const { clock, records } = this.world;
    const { job, stage } = this.order;
    const fromMs = Math.min(this.#sinceMs, clock.nowMs);
    for (const { id } of this.#lanes) {
      records.busyOf(id, job, stage).ms += clock.nowMs - fromMs;
      records.span(id, job, stage, fromMs, clock.nowMs);
    }
  }
}
