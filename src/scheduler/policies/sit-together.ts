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
  const seats = new Seats(allotment, jobs, companyMax);
  const guests = jobs.map((job) => new Guest(allotment, job, seats));
  // A job's first lane goes before anybody's second.
  for (const guest of guests) guest.sit(1, Infinity);
  for (const guest of guests) guest.sit(Infinity, companyMax);
  return seats.seated;
}

class Seats {
  readonly seated = new Map<LaneId, JobState[]>();
  /** By lane: how many sit there. */
  readonly company: Uint32Array<ArrayBuffer>;
  /** By lane: 1 where fewer than `companyMax` sit and somebody's engine still fits. */
  readonly #isOpen: Uint8Array<ArrayBuffer>;
  /** How many of those there are. */
  lanesOpen: number;
  readonly #bytesLeast: number;

  constructor(
    readonly allotment: Allotment,
    jobs: readonly JobState[],
    readonly companyMax: number,
  ) {
    const { lanes } = allotment.draft.snapshot;
    this.#bytesLeast = jobs.reduce((least, job) => Math.min(least, job.engineBytes), Infinity);
    this.company = new Uint32Array(lanes.length);
    this.#isOpen = Uint8Array.from(lanes, ({ id }) => (this.#hasRoom(id) ? 1 : 0));
    this.lanesOpen = this.#isOpen.reduce((sum, isOpen) => sum + isOpen, 0);
  }

  take(job: JobState, lane: LaneId): void {
    const others = this.seated.get(lane);
    if (others === undefined) this.seated.set(lane, [job]);
    else others.push(job);
    const company = at(this.company, lane) + 1;
    this.company[lane] = company;
    if (this.#isOpen[lane] === 0 || (company < this.companyMax && this.#hasRoom(lane))) return;
    this.#isOpen[lane] = 0;
    this.lanesOpen--;
  }

  #hasRoom(lane: LaneId): boolean {
    return this.allotment.bytesLeft(lane) >= this.#bytesLeast;
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
    const liked = this.#liked.filter((lane) => at(this.seats.company, lane) < companyMax);
    const left = lanesMax - this.#takeOf(liked, lanesMax);
    const isFull = companyMax <= this.seats.companyMax && this.seats.lanesOpen === 0;
    if (left <= 0 || this.#missing <= 0 || isFull) return;
    this.#takeOf(this.#byCompany(companyMax), left);
  }

  /** The lanes it may use, those first on which fewest sit, those left out where too many do. */
  #byCompany(companyMax: number): LaneId[] {
    const { company } = this.seats;
    const { engineLanes } = this.job;
    // Placed by counting: how many lanes of each company there are says where those of the next begin.
    const next: number[] = [];
    for (const lane of engineLanes) {
      const others = company[lane] ?? 0;
      while (next.length <= others) next.push(0);
      next[others] = (next[others] ?? 0) + 1;
    }
    let places = 0;
    for (let others = 0; others < Math.min(next.length, companyMax); others++) {
      const lanes = at(next, others);
      next[others] = places;
      places += lanes;
    }
    const ordered = new Array<LaneId>(places).fill(0);
    for (const lane of engineLanes) {
      const others = company[lane] ?? 0;
      if (others >= companyMax) continue;
      const place = next[others] ?? 0;
      ordered[place] = lane;
      next[others] = place + 1;
    }
    return ordered;
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
