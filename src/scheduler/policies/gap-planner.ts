import { at } from '../../lib/assert.js';
import type { LaneId } from '../state.js';
import type { Guest } from './seating.js';

/** A job that claims parts of lanes. */
export interface Claimant extends Guest {
  readonly id: string;
  /** What it still has to generate, in the unit of all the others; above 0. */
  readonly work: number;
  /** Its parts now. */
  readonly parts: ReadonlyMap<LaneId, number>;
  /** Most parts that it could fill with rollouts. */
  readonly partsMax: number;
  /** Most parts of one lane. */
  readonly partsPerLaneMax: number;
  /** Sequences that could run now. */
  readonly runnable: number;
  /** Device memory of its engine, in bytes. */
  readonly bytes: number;
  /** Slots that so many parts of one lane come to. */
  slots(parts: number): number;
  /** Sequences it runs on a lane: what its engine's leaving would disturb. */
  running(lane: LaneId): number;
}

export interface Division {
  /** Equal parts that each lane is divided into. RLix's bundle is one part; its GPUs are lanes of one part. */
  readonly partsPerLane: number;
  /** By lane: bytes there are for engines. */
  readonly bytes: Float64Array;
  readonly claimants: readonly Claimant[];
}

/** Shares closer than this are equal. */
const EPSILON = 1e-9;

/**
 * RLix's gap-ratio planner (`scheduler/planner.py`): every claimant's target is its share of all work, as a share of
 * all parts, rounded half up, and at least one part. One part at a time goes to the claimant that lacks the largest
 * share of its target, free parts first; else somebody above their target gives one, those with most work left before
 * those who are nearly done, and none more than they have above it.
 *
 * Ours: no claimant is given more than it has rollouts for; of one donor's engines, the one that runs least goes
 * (P3); free parts that rounding leaves over go, in the same order, to those who still have sequences without a slot.
 *
 * @returns by claimant: its parts by lane.
 */
export function divide(division: Division): Map<LaneId, number>[] {
  const planner = new GapPlanner(division);
  planner.cutExcess();
  planner.closeGaps();
  planner.fillRest();
  return planner.shares.map((share) => share.parts);
}

interface Share {
  readonly claimant: Claimant;
  readonly index: number;
  readonly parts: Map<LaneId, number>;
  /** Share of all parts that its work is worth. */
  readonly target: number;
  readonly targetParts: number;
  /** Sum of `parts`, and the slots they come to. */
  active: number;
  slots: number;
  /** Place in the lanes it likes and then all its lanes, up to which none has a free part for it. */
  next: number;
}

interface Donation {
  readonly donor: Share;
  readonly lane: LaneId;
}

class GapPlanner {
  readonly shares: readonly Share[];
  readonly #budget: number;
  /** By lane: who has parts there, and how many there are in all. */
  readonly #owners: Set<Share>[];
  readonly #used: Uint32Array<ArrayBuffer>;
  readonly #bytes: Float64Array<ArrayBuffer>;
  /** By those that needed a donation: 1 for each lane that they may have. */
  readonly #reached = new Map<Share, Uint8Array<ArrayBuffer>>();
  /** Parts that anybody has. */
  #active = 0;

  constructor(readonly division: Division) {
    const { claimants, partsPerLane } = division;
    const laneCount = division.bytes.length;
    const work = claimants.reduce((sum, claimant) => sum + claimant.work, 0);
    this.#budget = partsPerLane * lanesReached(claimants, laneCount);
    this.#owners = Array.from({ length: laneCount }, () => new Set());
    this.#used = new Uint32Array(laneCount);
    this.#bytes = Float64Array.from(division.bytes);
    this.shares = claimants.map((claimant, index): Share => {
      const target = claimant.work / work;
      const rounded = Math.floor(target * this.#budget + 0.5 + EPSILON);
      const targetParts = Math.max(Math.min(rounded, claimant.partsMax), 1);
      return { claimant, index, parts: new Map(), target, targetParts, active: 0, slots: 0, next: 0 };
    });
    for (const share of this.shares) {
      for (const [lane, parts] of share.claimant.parts) {
        for (let part = 0; part < parts; part++) this.#give(share, lane);
      }
    }
  }

  /**
   * A lane may have given away more than it has: it is divided anew, an engine woke with all its slots, or a stage
   * waits for its bytes.
   */
  cutExcess(): void {
    this.#owners.forEach((owners, lane) => {
      while (at(this.#used, lane) > this.division.partsPerLane || at(this.#bytes, lane) < 0) {
        const [most] = [...owners].sort((a, b) => surplus(b) - surplus(a) || b.index - a.index);
        if (most === undefined) return;
        this.#take(most, lane);
      }
    });
  }

  closeGaps(): void {
    const stuck = new Set<Share>();
    for (;;) {
      const isShort = (share: Share): boolean =>
        this.#gap(share) > EPSILON && share.active < share.targetParts && !stuck.has(share);
      const acceptor = this.#first(isShort);
      if (acceptor === null) return;
      const lane = this.#freeLane(acceptor);
      const donation = lane === null ? this.#donation(acceptor) : null;
      if (donation !== null) this.#take(donation.donor, donation.lane);
      const given = lane ?? donation?.lane;
      if (given === undefined) stuck.add(acceptor);
      else this.#give(acceptor, given);
    }
  }

  fillRest(): void {
    const stuck = new Set<Share>();
    for (;;) {
      const isMissed = (share: Share): boolean => share.claimant.runnable > share.slots && !stuck.has(share);
      const acceptor = this.#first(isMissed);
      if (acceptor === null) return;
      const lane = this.#freeLane(acceptor);
      if (lane === null) stuck.add(acceptor);
      else this.#give(acceptor, lane);
    }
  }

  #gap(share: Share): number {
    return share.target - share.active / this.#budget;
  }

  /** The one that lacks the largest share of its target; then the largest share; then the first by name. */
  #first(isCandidate: (share: Share) => boolean): Share | null {
    let best: Share | null = null;
    for (const share of this.shares) {
      if (isCandidate(share) && (best === null || this.#compare(share, best) < 0)) best = share;
    }
    return best;
  }

  #compare(a: Share, b: Share): number {
    const lacks = this.#gap(b) / b.target - this.#gap(a) / a.target;
    if (Math.abs(lacks) > EPSILON) return lacks;
    const gaps = this.#gap(b) - this.#gap(a);
    if (Math.abs(gaps) > EPSILON) return gaps;
    return a.claimant.id < b.claimant.id ? -1 : 1;
  }

  /** Free parts only ever get fewer, so a lane that had none for this claimant is not looked at again. */
  #freeLane(share: Share): LaneId | null {
    if (this.#active >= this.#budget) return null;
    const { lanes, liked } = share.claimant;
    for (; share.next < liked.length + lanes.length; share.next++) {
      const lane = share.next < liked.length ? at(liked, share.next) : at(lanes, share.next - liked.length);
      if (at(this.#used, lane) < this.division.partsPerLane && this.#mayEnter(share, lane, 0)) return lane;
    }
    return null;
  }

  /** From those with most work left: their part that loses least, of those that the acceptor may have. */
  #donation(acceptor: Share): Donation | null {
    const donors = this.shares
      .filter((share) => surplus(share) > 0 && this.#gap(share) < -EPSILON)
      .sort((a, b) => b.claimant.work - a.claimant.work);
    let best: Donation | null = null;
    for (const donor of donors) {
      if (best !== null && donor.claimant.work < best.donor.claimant.work) break;
      for (const [lane, parts] of donor.parts) {
        if (!this.#reaches(acceptor, lane)) continue;
        const bytesFreed = parts === 1 ? donor.claimant.bytes : 0;
        if (!this.#mayEnter(acceptor, lane, bytesFreed)) continue;
        if (best === null || this.#losesLess({ donor, lane }, best)) best = { donor, lane };
      }
    }
    return best;
  }

  /** Of two parts of donors with as much work: fewest sequences disturbed, then the first lane, then who came there first. */
  #losesLess(a: Donation, b: Donation): boolean {
    const running = a.donor.claimant.running(a.lane) - b.donor.claimant.running(b.lane);
    if (running !== 0) return running < 0;
    if (a.lane !== b.lane) return a.lane < b.lane;
    for (const owner of at(this.#owners, a.lane))
      if (owner === a.donor || owner === b.donor) return owner === a.donor;
    return false;
  }

  /** Whether the claimant may have the lane at all. */
  #reaches(share: Share, lane: LaneId): boolean {
    let reached = this.#reached.get(share);
    if (reached === undefined) {
      reached = new Uint8Array(this.division.bytes.length);
      for (const own of share.claimant.lanes) reached[own] = 1;
      this.#reached.set(share, reached);
    }
    return reached[lane] === 1;
  }

  #mayEnter(share: Share, lane: LaneId, bytesFreed: number): boolean {
    const parts = share.parts.get(lane) ?? 0;
    if (parts > 0) return parts < share.claimant.partsPerLaneMax;
    return share.claimant.bytes <= at(this.#bytes, lane) + bytesFreed;
  }

  #give(share: Share, lane: LaneId): void {
    this.#change(share, lane, 1);
    this.#owners[lane]?.add(share);
    if (share.parts.get(lane) === 1) this.#bytes[lane] = at(this.#bytes, lane) - share.claimant.bytes;
  }

  #take(share: Share, lane: LaneId): void {
    this.#change(share, lane, -1);
    if ((share.parts.get(lane) ?? 0) > 0) return;
    share.parts.delete(lane);
    this.#owners[lane]?.delete(share);
    this.#bytes[lane] = at(this.#bytes, lane) + share.claimant.bytes;
  }

  #change(share: Share, lane: LaneId, change: 1 | -1): void {
    const before = share.parts.get(lane) ?? 0;
    const { claimant } = share;
    share.parts.set(lane, before + change);
    share.active += change;
    this.#active += change;
    share.slots += claimant.slots(before + change) - claimant.slots(before);
    this.#used[lane] = at(this.#used, lane) + change;
  }
}

/** How many lanes there are that anybody may have. */
function lanesReached(claimants: readonly Claimant[], laneCount: number): number {
  const reached = new Uint8Array(laneCount);
  let count = 0;
  let last: readonly LaneId[] = [];
  for (const { lanes } of claimants) {
    if (count === laneCount) break;
    if (lanes === last) continue;
    last = lanes;
    for (const lane of lanes) {
      if (reached[lane] === 0) count++;
      reached[lane] = 1;
    }
  }
  return count;
}

/** Parts that a share has above its target. */
function surplus(share: Share): number {
  return share.active - share.targetParts;
}
