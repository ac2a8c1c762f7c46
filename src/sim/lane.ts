import { evenSegments } from '../scheduler/segments.js';
import type { JobId, LaneId, Segment } from '../scheduler/state.js';
import type { Timer } from './clock.js';
import type { SimEngine } from './engine.js';
import type { EngineLane } from './engine-surroundings.js';
import type { World } from './world.js';

/** A stage that holds a lane, as the lane sees it. */
export interface LaneHolder {
  laneLost(): void;
  laneReturned(): void;
}

/**
 * One simulated device. A stage that holds it has all of it, and the engines awake on it stand still meanwhile; else
 * the engines that have something to do share its time by their jobs' weights; or, where a plan has cut their steps into
 * segments, take turns, a segment each.
 */
export class SimLane implements EngineLane<SimEngine> {
  isUp = true;
  /** Counts its losses: tells what was begun before one from what was begun after. */
  epoch = 0;
  holder: LaneHolder | null = null;
  readonly engines = new Map<JobId, SimEngine>();
  readonly #active = new Set<SimEngine>();
  #weights = 0;
  #resume: Timer | null = null;
  #segment: Segment | null = null;

  constructor(
    readonly id: LaneId,
    readonly speed: number,
    readonly bytesCapacity: number,
    readonly world: World,
  ) {}

  /** True when a stage that comes now has to wait for generation to let go. */
  get isGenerating(): boolean {
    return this.#active.size > 0 && !this.#isBlocked;
  }

  /** Jobs whose engines have something to do. */
  get generating(): JobId[] {
    return [...this.#active].map((engine) => engine.jobId);
  }

  add(engine: SimEngine): void {
    this.engines.set(engine.owner.spec.id, engine);
  }

  remove(engine: SimEngine): void {
    engine.isOpen = false;
    this.engines.delete(engine.owner.spec.id);
    this.#active.delete(engine);
    this.world.clock.cancel(engine.timer);
    this.#shareAll();
  }

  /** What the engine has to do has changed. */
  share(engine: SimEngine): void {
    if (engine.isActive === this.#active.has(engine)) {
      // In segments, everybody's share depends on how long everybody's steps are.
      if (this.#segment !== null && this.#active.size > 1) return this.#shareAll();
      engine.planStep();
      engine.setShare(this.#shareOf(engine), this.#othersMs(engine));
      return;
    }
    if (engine.isActive) this.#active.add(engine);
    else {
      this.#active.delete(engine);
      engine.setShare(0);
    }
    this.#shareAll();
  }

  get isAligned(): boolean {
    return this.#segment !== null && this.#active.size > 1;
  }

  /** How its engines alternate from now on. */
  align(segment: Segment | null): void {
    this.#segment = segment;
    this.#shareAll();
  }

  hold(stage: LaneHolder): void {
    this.holder = stage;
    this.world.clock.cancel(this.#resume);
    this.#resume = null;
    this.#shareAll();
  }

  /** The stage gives the lane back; generation that stood still goes on a moment later. */
  free(): void {
    this.holder = null;
    if (this.#active.size === 0) return;
    this.#resume = this.world.clock.after(this.world.costs.resumeMs, () => {
      this.#resume = null;
      this.#shareAll();
    });
  }

  get #isBlocked(): boolean {
    return this.holder !== null || this.#resume !== null;
  }

  #shareOf(engine: SimEngine): number {
    if (this.#isBlocked || !this.#active.has(engine)) return 0;
    if (this.#segment === null) return engine.owner.spec.weight / this.#weights;
    const sliceMs = this.#sliceMsOf(engine);
    return sliceMs / (sliceMs + this.#othersMs(engine));
  }

  /** A slice of each of the others: so long an engine waits whenever it does. */
  #othersMs(engine: SimEngine): number {
    let ms = 0;
    for (const other of this.#active) if (other !== engine) ms += this.#sliceMsOf(other);
    return ms;
  }

  #sliceMsOf(engine: SimEngine): number {
    const ownMs = this.world.costs.sliceMs ?? 0;
    if (this.#segment === null) return ownMs === 0 ? 0 : evenSegments(engine.stepAloneMs, ownMs).length;
    const segmentMs = this.#segment.sliceUs / 1000;
    return evenSegments(engine.stepAloneMs, ownMs === 0 ? segmentMs : Math.min(segmentMs, ownMs)).length;
  }

  #shareAll(): void {
    this.#weights = 0;
    for (const engine of this.#active) {
      this.#weights += engine.owner.spec.weight;
      engine.planStep();
    }
    for (const engine of this.#active) engine.setShare(this.#shareOf(engine), this.#othersMs(engine));
  }
}
