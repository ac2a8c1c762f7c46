import { at } from '../../lib/assert.js';
import type { JobState, LaneId } from '../state.js';
import type { Allotment } from './allotment.js';

/** Slots are whole: a share that is this close to one is one. */
const EPSILON = 1e-9;

/**
 * Allots lanes to one job after the other. Each takes as many slots as it has runnable sequences: first where they run
 * already, then at home, then on lanes nobody has yet, then beside others. Whoever has half of its slots on a lane
 * leaves half of the lane, which the next may fill with half of its own slots.
 */
export function fillInOrder(allotment: Allotment, jobs: readonly JobState[]): void {
  const filling = new Filling(allotment);
  for (const job of jobs) filling.fill(job);
}

class Filling {
  /** By lane: what is left of it, from 1 down to 0. */
  readonly #left: Float64Array<ArrayBuffer>;
  /** Lanes of which anything is left. */
  #lanesLeft: number;

  constructor(readonly allotment: Allotment) {
    this.#left = new Float64Array(allotment.draft.snapshot.lanes.length).fill(1);
    this.#lanesLeft = this.#left.length;
  }

  fill(job: JobState): void {
    let missing = job.demand.runnable;
    const take = (lane: LaneId): void => {
      missing -= this.#take(job, lane, missing);
    };
    const { draft } = this.allotment;
    const engines = job.engines.filter((engine) => !draft.isLeaving(engine));
    for (const { lane } of engines.sort((a, b) => b.running - a.running)) take(lane);
    if (job.trainerLane !== null && job.engineLanes.includes(job.trainerLane)) take(job.trainerLane);
    // Nobody's lanes first: a lane of which less is left than one slot is not even tried.
    for (const [least, below] of [
      [1, Infinity],
      [(1 - EPSILON) / job.slotsMax, 1],
    ] as const) {
      for (const lane of job.engineLanes) {
        if (missing <= 0 || this.#lanesLeft === 0) return;
        const left = at(this.#left, lane);
        if (left >= least && left < below) take(lane);
      }
    }
  }

  /** Takes what there is, at most `slots`, and says how much that was. */
  #take(job: JobState, lane: LaneId, slots: number): number {
    const free = Math.floor(at(this.#left, lane) * job.slotsMax + EPSILON);
    const taken = Math.min(slots, free);
    const { allotment } = this;
    if (taken < 1 || allotment.slots(job, lane) > 0 || !allotment.fits(job, lane)) return 0;
    allotment.give(job, lane, taken);
    const left = at(this.#left, lane) - taken / job.slotsMax;
    this.#left[lane] = left;
    if (left < EPSILON) this.#lanesLeft--;
    return taken;
  }
}
