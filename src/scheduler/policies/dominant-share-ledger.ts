import { z } from 'zod';
import { at } from '../../lib/assert.js';
import { engineOn, isUsable, type JobId, type JobState, type LaneId, type Snapshot } from '../state.js';
import { Dpf, NO_BLOCKS, type Claim, type DpfState } from './dpf.js';

export interface LedgerOptions {
  readonly window_ms: number;
  readonly tokens_per_window: number;
  readonly unlock: 'time' | 'arrivals';
  readonly fair_shares: number;
  readonly claim_share_max: number;
}

/** What the policy remembers. A claim bears the name of its job, a block that of its lane. */
export interface LedgerMemory {
  /** Number of the window the blocks belong to. */
  readonly window: number;
  readonly dpf: DpfState;
  /** By job with a granted claim: the tokens it had sampled when it was granted. */
  readonly since: Readonly<Record<JobId, number>>;
}

export const NO_LEDGER: LedgerMemory = { window: -1, dpf: NO_BLOCKS, since: {} };

const blockSchema = z.object({
  capacity: z.number(),
  arrivals: z.number(),
  unlocked: z.number(),
  allocated: z.number(),
  consumed: z.number(),
});
const claimSchema = z.object({ id: z.string(), demand: z.record(z.string(), z.number()) });

export const ledgerSchema: z.ZodType<LedgerMemory> = z.object({
  window: z.number(),
  dpf: z.object({
    blocks: z.record(z.string(), blockSchema),
    waiting: z.array(claimSchema),
    granted: z.array(claimSchema),
  }),
  since: z.record(z.string(), z.number()),
});

/** The token accounts of one window, brought up to the snapshot's time by `update`. */
export class Ledger {
  readonly #window: number;
  readonly #dpf: Dpf;
  readonly #since: Map<JobId, number>;
  /** Jobs whose claims ended with the window before, in the order in which they may claim again. */
  readonly #carriedOver: readonly JobId[];

  constructor(
    memory: LedgerMemory,
    private readonly snapshot: Snapshot,
    private readonly options: LedgerOptions,
  ) {
    this.#window = Math.floor(snapshot.timeMs / options.window_ms);
    const isSame = memory.window === this.#window;
    this.#dpf = new Dpf(isSame ? memory.dpf : NO_BLOCKS);
    this.#since = new Map(isSame ? Object.entries(memory.since) : []);
    this.#carriedOver = isSame ? [] : this.#inTurn(memory);
  }

  get memory(): LedgerMemory {
    const since = Object.fromEntries([...this.#since].filter(([id]) => this.#dpf.granted.has(id)));
    return { window: this.#window, dpf: this.#dpf.state, since };
  }

  /** Ends claims that are used up or in vain, takes new ones, unlocks and allocates. */
  update(): void {
    this.#endClaims();
    const { options, snapshot } = this;
    for (const id of [...this.#carriedOver, ...snapshot.jobs.keys()]) {
      const job = snapshot.jobs.get(id);
      if (job !== undefined && !this.#hasClaim(id)) this.#claim(job);
    }
    if (options.unlock === 'arrivals') this.#dpf.unlockByArrivals(options.fair_shares);
    else this.#dpf.unlockByTime((snapshot.timeMs - this.#startMs()) / options.window_ms);
    for (const { id } of this.#dpf.allocate()) this.#since.set(id, this.#tokensDone(id));
  }

  /** Oldest grant first. */
  grantedJobs(): Iterable<JobId> {
    return this.#dpf.granted.keys();
  }

  isGranted(job: JobId, lane: LaneId): boolean {
    return this.#dpf.granted.get(job)?.demand[String(lane)] !== undefined;
  }

  /** When time alone changes something: a waiting claim fits, or a window ends that anybody uses. Null: never. */
  reviewAtMs(): number | null {
    const { waiting, granted } = this.#dpf;
    if (waiting.length + granted.size === 0) return null;
    const { window_ms: windowMs, unlock } = this.options;
    const shares = unlock === 'time' ? waiting.map((claim) => this.#dpf.shareNeeded(claim)) : [];
    const share = Math.min(1, ...shares);
    // Where rounding leaves it a hair short, it is asked again 1 ms later.
    return Math.max(Math.ceil(this.#startMs() + share * windowMs), this.snapshot.timeMs + 1);
  }

  #startMs(): number {
    return this.#window * this.options.window_ms;
  }

  /** Those who still waited first, then those who got least of what they were granted. */
  #inTurn(memory: LedgerMemory): JobId[] {
    const used = (claim: Claim): number =>
      (this.#tokensDone(claim.id) - (memory.since[claim.id] ?? 0)) / totalOf(claim);
    const granted = [...memory.dpf.granted].sort((a, b) => used(a) - used(b));
    return [...memory.dpf.waiting, ...granted].map((claim) => claim.id);
  }

  #endClaims(): void {
    for (const claim of [...this.#dpf.waiting]) {
      if (this.#isInVain(claim, 'runnable')) this.#dpf.withdraw(claim.id);
    }
    for (const claim of [...this.#dpf.granted.values()]) {
      const used = this.#tokensDone(claim.id) - (this.#since.get(claim.id) ?? 0);
      const total = totalOf(claim);
      if (used < total && !this.#isInVain(claim, 'rollouts')) continue;
      // A job's tokens are counted over all its lanes.
      this.#dpf.settle(claim.id, (block) => (used * (claim.demand[block] ?? 0)) / total);
    }
  }

  /** True when the job has gone or wants nothing any more, or a lane of the claim is out of use. */
  #isInVain(claim: Claim, wish: 'runnable' | 'rollouts'): boolean {
    const job = this.snapshot.jobs.get(claim.id);
    if (job === undefined || job.finished || job.demand[wish] === 0) return true;
    return Object.keys(claim.demand).some((lane) => !isUsable(at(this.snapshot.lanes, Number(lane))));
  }

  #hasClaim(id: JobId): boolean {
    return this.#dpf.granted.has(id) || this.#dpf.waiting.some((claim) => claim.id === id);
  }

  #claim(job: JobState): void {
    if (job.finished || job.demand.runnable === 0) return;
    const { tokens_per_window: capacity, unlock, fair_shares, claim_share_max } = this.options;
    const usable = job.engineLanes.filter((lane) => isUsable(at(this.snapshot.lanes, lane)));
    const lanes = lanesToClaim(job, usable, (lane) => this.#budgetLeft(lane));
    if (lanes.length === 0) return;
    const most = capacity * (unlock === 'arrivals' ? 1 / fair_shares : claim_share_max);
    const amount = Math.min(most, Math.max(1, Math.ceil(job.demand.tokensRemaining / lanes.length)));
    for (const lane of lanes) {
      if (!this.#dpf.blocks.has(String(lane))) this.#dpf.addBlock(String(lane), capacity);
    }
    this.#dpf.arrive({
      id: job.id,
      demand: Object.fromEntries(lanes.map((lane) => [String(lane), amount])),
    });
  }

  #budgetLeft(lane: LaneId): number {
    const block = this.#dpf.blocks.get(String(lane));
    if (block === undefined) return this.options.tokens_per_window;
    return block.capacity - block.allocated - block.consumed;
  }

  #tokensDone(id: JobId): number {
    return this.snapshot.jobs.get(id)?.tokensDone ?? 0;
  }
}

function totalOf(claim: Claim): number {
  return Object.values(claim.demand).reduce((sum, amount) => sum + amount, 0);
}

/**
 * The lanes a job claims: as many as its runnable sequences need, first those that hold some of them, then those with
 * an engine awake, then those with most budget left. Ascending.
 */
export function lanesToClaim(
  job: JobState,
  usable: readonly LaneId[],
  budgetLeft: (lane: LaneId) => number,
): LaneId[] {
  const count = Math.ceil(job.demand.runnable / job.slotsMax);
  if (count >= usable.length) return [...usable];
  const ranked = usable.map((lane) => {
    const engine = engineOn(job, lane);
    const isHere = engine === undefined ? 0 : 1;
    return { lane, running: engine?.running ?? 0, isHere, left: budgetLeft(lane) };
  });
  ranked.sort((a, b) => b.running - a.running || b.isHere - a.isHere || b.left - a.left || a.lane - b.lane);
  return ranked
    .slice(0, count)
    .map(({ lane }) => lane)
    .sort((a, b) => a - b);
}
