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

/** Engines that let go of a lane, and when. */
interface Yield {
  readonly lane: SimLane;
  readonly jobs: readonly JobId[];
  readonly fromMs: number;
  readonly toMs: number;
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
  #grantedMs: number | null = null;
  /** Lanes whose generation yielded to it. */
  #yields: readonly Yield[] = [];
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
    this.#recordYields(null);
  }

  laneReturned(): void {
    if (this.#grant !== null && this.#timer === null && !this.#isOver) this.#begin();
  }

  /** Its job was given up: whatever it holds is free, and its scheduler knows by `jobFinished`. */
  abandon(): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#recordStage(this.world.clock.nowMs);
    this.world.clock.cancel(this.#timer);
    if (this.#grant === null) return;
    if (this.#timer !== null) this.#book();
    this.#recordYields(this.world.clock.nowMs);
    for (const lane of this.#lanes) lane.free();
  }

  /** The simulation ends before it does. */
  close(): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#recordStage(null);
    this.#recordYields(null);
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
    this.#grantedMs = this.world.clock.nowMs;
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
      const toMs = clock.nowMs + yieldMs;
      const generating = this.#lanes.filter((lane) => lane.isGenerating && records.shows(lane.id));
      this.#yields = generating.map((lane) => ({ lane, jobs: lane.generating, fromMs: clock.nowMs, toMs }));
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
    this.#recordStage(this.world.clock.nowMs);
    this.#recordYields(this.world.clock.nowMs);
    for (const lane of this.#lanes) lane.free();
    const grant = this.#grant;
    if (grant !== null) this.world.desk.tell(() => this.world.scheduler.release(grant));
    this.order.onDone();
  }

  #recordStage(releasedMs: number | null): void {
    const { job, stage } = this.order;
    const grantedMs = this.#grantedMs;
    const released = grantedMs === null ? null : releasedMs;
    this.world.records.stages.push({
      ...{ job, stage },
      ...{ requestedMs: this.#askedMs, grantedMs, releasedMs: released },
    });
  }

  /** The law has no place here: nobody predicts slices, and times to yield are those of the cost model. */
  #recordYields(releasedMs: number | null): void {
    const { records, costs } = this.world;
    for (const { lane, jobs, fromMs, toMs } of this.#yields) {
      const [job = this.order.job, ...alsoYielded] = jobs;
      const isBack = releasedMs !== null && releasedMs >= toMs && lane.generating.length > 0;
      records.preempted({
        ...{
          lane: lane.id,
          job,
          asker: this.order.job,
          stage: this.order.stage,
          requestedMs: fromMs,
          detectedMs: fromMs,
        },
        ...(alsoYielded.length > 0 ? { alsoYielded } : {}),
        ...{ yieldedMs: toMs, yieldedDeviceMs: null, releasedMs: isBack ? releasedMs : null },
        resumedMs: isBack ? releasedMs + costs.resumeMs : null,
        ...{ leavingMs: 0, budgetMs: Infinity, inFlightUs: 0, phase: null, blame: null },
        kv: { held: 0, spilled: 0, dropped: 0 },
        tokensRecomputed: 0,
      });
    }
    this.#yields = [];
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
