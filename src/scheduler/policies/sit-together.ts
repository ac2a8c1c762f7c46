import { at } from '../../lib/assert.js';
import type { JobState, LaneId } from '../state.js';
import type { Allotment } from './allotment.js';

/** Who sits on which lane. */
export type Seated = ReadonlyMap<LaneId, readonly JobState[]>;

/**
 * Allots lanes to jobs that share a lane's time rather than its slots: each has all the slots it can use wherever it
 * sits, however many sit there with it. Each job in its order gets one lane, then each as many more as it has sequences
 * for where fewer than `companyMax` sit: first where they run already, then at home, then where fewest sit.
 */
export function sitTogether(allotment: Allotment, jobs: readonly JobState[], companyMax: number): Seated {
  const seated = new Map<LaneId, JobState[]>();
  const company = new Uint32Array(allotment.draft.snapshot.lanes.length);
  const guests = jobs.map((job) => new Guest(allotment, job, seated, company));
  // A job's first lane goes before anybody's second.
  for (const guest of guests) guest.sit(1, Infinity);
  for (const guest of guests) guest.sit(Infinity, companyMax);
  return seated;
}

class Guest {
  #missing: number;
  /** Where it sits already, most sequences first, then its home. */
  readonly #liked: readonly LaneId[];

  constructor(
    readonly allotment: Allotment,
    readonly job: JobState,
    readonly seated: Map<LaneId, JobState[]>,
    /** By lane: how many sit there. */
    readonly company: Uint32Array<ArrayBuffer>,
  ) {
    this.#missing = job.demand.runnable;
    const engines = job.engines.filter((engine) => !allotment.draft.isLeaving(engine));
    const running = engines.sort((a, b) => b.running - a.running).map(({ lane }) => lane);
    const home = job.engineLanes.find((lane) => lane === job.trainerLane);
    this.#liked = home === undefined ? running : [...running, home];
  }

  /** Takes up to so many more lanes on each of which fewer than `companyMax` sit. */
  sit(lanesMax: number, companyMax: number): void {
    const liked = this.#liked.filter((lane) => at(this.company, lane) < companyMax);
    const left = lanesMax - this.#takeOf(liked, lanesMax);
    if (left <= 0 || this.#missing <= 0) return;
    let taken = 0;
    for (const lanes of this.#byCompany(companyMax)) taken += this.#takeOf(lanes, left - taken);
  }

  /** The lanes it may use, by how many sit there, those left out where too many do. */
  #byCompany(companyMax: number): LaneId[][] {
    const byCompany: LaneId[][] = [];
    for (const lane of this.job.engineLanes) {
      const company = at(this.company, lane);
      if (company >= companyMax) continue;
      while (byCompany.length <= company) byCompany.push([]);
      at(byCompany, company).push(lane);
    }
    return byCompany;
  }

  /** Returns how many it took. */
  #takeOf(lanes: readonly LaneId[], lanesMax: number): number {
    const { allotment, job, seated } = this;
    let taken = 0;
    for (const lane of lanes) {
      if (taken >= lanesMax || this.#missing <= 0) break;
      if (allotment.slots(job, lane) > 0 || !allotment.fits(job, lane)) continue;
      const slots = Math.min(this.#missing, job.slotsMax);
      allotment.give(job, lane, slots);
      this.#missing -= slots;
      taken++;
      const others = seated.get(lane);
      if (others === undefined) seated.set(lane, [job]);
      else others.push(job);
      this.company[lane] = at(this.company, lane) + 1;
    }
    return taken;
  }
}
