import { at } from '../../lib/assert.js';
import { mayLiveOn, type JobState, type LaneId } from '../state.js';
import type { Allotment } from './allotment.js';

/** Who sits on which lane. */
export type Seated = ReadonlyMap<LaneId, readonly JobState[]>;

/**
 * Allots lanes to jobs that share a lane's time rather than its slots: each has all the slots it can use wherever it
 * sits, however many sit there with it. Each job in its order gets one lane, then each as many more as it has sequences
 * for where fewer than `companyMax` sit: first where they run already, then at home, then where fewest sit.
 */
export function sitTogether(allotment: Allotment, jobs: readonly JobState[], companyMax: number): Seated {
  const seats = new Seats(allotment.draft.snapshot.lanes.length, companyMax);
  const guests = jobs.map((job) => new Guest(allotment, job, seats));
  // A job's first lane goes before anybody's second.
  for (const guest of guests) guest.sit(1, Infinity);
  for (const guest of guests) guest.sit(Infinity, companyMax);
  return seats.seated;
}

class Seats {
  readonly seated = new Map<LaneId, JobState[]>();
  /** By lane: how many sit there. */
  readonly #company: Uint32Array<ArrayBuffer>;
  /** Lanes on which fewer than `companyMax` sit. */
  lanesOpen: number;

  constructor(
    laneCount: number,
    readonly companyMax: number,
  ) {
    this.#company = new Uint32Array(laneCount);
    this.lanesOpen = laneCount;
  }

  company(lane: LaneId): number {
    return at(this.#company, lane);
  }

  take(job: JobState, lane: LaneId): void {
    const others = this.seated.get(lane);
    if (others === undefined) this.seated.set(lane, [job]);
    else others.push(job);
    const company = this.company(lane) + 1;
    this.#company[lane] = company;
    if (company === this.companyMax) this.lanesOpen--;
  }
}

class Guest {
  #missing: number;
  /** Where it sits already, most sequences first, then its home. */
  readonly #liked: readonly LaneId[];

  constructor(
    readonly allotment: Allotment,
    readonly job: JobState,
    readonly seats: Seats,
  ) {
    const { trainerLane, demand, engines } = job;
    this.#missing = demand.runnable;
    const staying = engines.filter((engine) => !allotment.draft.isLeaving(engine));
    const running = staying.sort((a, b) => b.running - a.running).map(({ lane }) => lane);
    const hasHome = trainerLane !== null && mayLiveOn(job, trainerLane);
    this.#liked = hasHome ? [...running, trainerLane] : running;
  }

  /** Takes up to so many more lanes on each of which fewer than `companyMax` sit. */
  sit(lanesMax: number, companyMax: number): void {
    const liked = this.#liked.filter((lane) => this.seats.company(lane) < companyMax);
    const left = lanesMax - this.#takeOf(liked, lanesMax);
    const isFull = companyMax <= this.seats.companyMax && this.seats.lanesOpen === 0;
    if (left <= 0 || this.#missing <= 0 || isFull) return;
    let taken = 0;
    for (const lanes of this.#byCompany(companyMax)) taken += this.#takeOf(lanes, left - taken);
  }

  /** The lanes it may use, by how many sit there, those left out where too many do. */
  #byCompany(companyMax: number): LaneId[][] {
    const byCompany: LaneId[][] = [];
    for (const lane of this.job.engineLanes) {
      const company = this.seats.company(lane);
      if (company >= companyMax) continue;
      while (byCompany.length <= company) byCompany.push([]);
      at(byCompany, company).push(lane);
    }
    return byCompany;
  }

  /** Returns how many it took. */
  #takeOf(lanes: readonly LaneId[], lanesMax: number): number {
    const { allotment, job, seats } = this;
    let taken = 0;
    for (const lane of lanes) {
      if (taken >= lanesMax || this.#missing <= 0) break;
      if (allotment.slots(job, lane) > 0 || !allotment.fits(job, lane)) continue;
      const slots = Math.min(this.#missing, job.slotsMax);
      allotment.give(job, lane, slots);
      this.#missing -= slots;
      seats.take(job, lane);
      taken++;
    }
    return taken;
  }
}
