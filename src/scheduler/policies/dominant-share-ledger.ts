import { z } from 'zod';
import { assert, at } from '../../lib/assert.js';
import { engineOn, isUsable, type JobId, type JobState, type LaneId, type Snapshot } from '../state.js';
import { remembered } from './options.js';
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
  /** By job with a granted claim. */
  readonly grants: Readonly<Record<JobId, Grant>>;
}

/** What is often asked about a granted claim. */
interface Grant {
  /** The tokens its job had sampled when it was granted. */
  readonly since: number;
  /** Its tokens on all lanes together. */
  readonly tokens: number;
  readonly lanes: readonly LaneId[];
}

const NO_LEDGER: LedgerMemory = { window: -1, dpf: NO_BLOCKS, grants: {} };

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
  grants: z.record(
    z.string(),
    z.object({ since: z.number(), tokens: z.number(), lanes: z.array(z.number()) }),
  ),
});

/** Memories made here: their shape need not be looked at again, which takes longer than a plan. */
const sound = new WeakMap<object, LedgerMemory>();

/** What the policy left in its last plan; nothing where another has planned before. */
export function recalled(memory: unknown): LedgerMemory {
  const known = typeof memory === 'object' && memory !== null ? sound.get(memory) : undefined;
  return known ?? remembered(ledgerSchema, memory) ?? NO_LEDGER;
}

/** The token accounts of one window, brought up to the snapshot's time by `update`. */
export class Ledger {
  readonly #window: number;
  readonly #dpf: Dpf;
  readonly #grants: Map<JobId, Grant>;
  /** Jobs whose claims ended with the window before, in the order in which they may claim again. */
  readonly #carriedOver: readonly JobId[];
  /** By lane: what waiting claims want of it. */
  readonly #wanted: Float64Array<ArrayBuffer>;

  constructor(
    memory: LedgerMemory,
    private readonly snapshot: Snapshot,
    private readonly options: LedgerOptions,
    /** Whether a job's engine has room on a lane at all. */
    private readonly fits: (job: JobState, lane: LaneId) => boolean,
  ) {
    this.#window = Math.floor(snapshot.timeMs / options.window_ms);
    const isSame = memory.window === this.#window;
    this.#dpf = new Dpf(isSame ? memory.dpf : NO_BLOCKS);
    this.#grants = new Map(isSame ? Object.entries(memory.grants) : []);
    this.#carriedOver = isSame ? [] : this.#inTurn(memory);
    this.#wanted = new Float64Array(snapshot.lanes.length);
  }

  get memory(): LedgerMemory {
    const grants = Object.fromEntries(this.#grants);
    const memory = { window: this.#window, dpf: this.#dpf.state, grants };
    sound.set(memory, memory);
    return memory;
  }

  /** Ends claims that are used up or in vain, takes new ones, unlocks and allocates. */
  update(): void {
    this.#endClaims();
    for (const claim of this.#dpf.waiting) this.#want(claim);
    const { options, snapshot } = this;
    for (const id of [...this.#carriedOver, ...snapshot.jobs.keys()]) {
      const job = snapshot.jobs.get(id);
      if (job !== undefined && !this.#hasClaim(id)) this.#claim(job);
    }
    if (options.unlock === 'arrivals') this.#dpf.unlockByArrivals(options.fair_shares);
    else this.#dpf.unlockByTime((snapshot.timeMs - this.#startMs()) / options.window_ms);
    for (const claim of this.#dpf.allocate()) {
      const lanes = lanesOf(claim);
      this.#grants.set(claim.id, { since: this.#tokensDone(claim.id), tokens: totalOf(claim), lanes });
    }
  }

  /** Jobs with a grant, oldest first, and the lanes that it is for. */
  *granted(): Iterable<readonly [JobId, readonly LaneId[]]> {
    for (const id of this.#dpf.granted.keys()) yield [id, this.#grant(id).lanes];
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

  #grant(id: JobId): Grant {
    const grant = this.#grants.get(id);
    assert(grant !== undefined, `${id} was granted nothing`);
    return grant;
  }

  /** Those who still waited first, then those who got least of what they were granted. */
  #inTurn(memory: LedgerMemory): JobId[] {
    const used = ({ id }: Claim): number => {
      const grant = memory.grants[id];
      return grant === undefined ? 0 : (this.#tokensDone(id) - grant.since) / grant.tokens;
    };
    const granted = [...memory.dpf.granted].sort((a, b) => used(a) - used(b));
    return [...memory.dpf.waiting, ...granted].map((claim) => claim.id);
  }

  #endClaims(): void {
    for (const claim of [...this.#dpf.waiting]) {
      if (this.#isInVain(claim.id, lanesOf(claim), 'runnable')) this.#dpf.withdraw(claim.id);
    }
    for (const { id, demand } of [...this.#dpf.granted.values()]) {
      const { since, tokens, lanes } = this.#grant(id);
      const used = this.#tokensDone(id) - since;
      if (used < tokens && !this.#isInVain(id, lanes, 'rollouts')) continue;
      // A job's tokens are counted over all its lanes.
      this.#dpf.settle(id, (block) => (used * (demand[block] ?? 0)) / tokens);
      this.#grants.delete(id);
    }
  }

  /** True when the job has gone or wants nothing any more, or a lane of the claim is out of use. */
  #isInVain(id: JobId, lanes: readonly LaneId[], wish: 'runnable' | 'rollouts'): boolean {
    const job = this.snapshot.jobs.get(id);
    if (job === undefined || job.finished || job.demand[wish] === 0) return true;
    return lanes.some((lane) => !isUsable(at(this.snapshot.lanes, lane)));
  }

  #hasClaim(id: JobId): boolean {
    return this.#dpf.granted.has(id) || this.#dpf.waiting.some((claim) => claim.id === id);
  }

  #claim(job: JobState): void {
    if (job.finished || job.demand.runnable === 0) return;
    const { tokens_per_window: capacity, unlock, fair_shares, claim_share_max } = this.options;
    const usable = job.engineLanes.filter((lane) => this.fits(job, lane));
    const lanes = lanesToClaim(job, usable, (lane) => this.#budgetLeft(lane));
    if (lanes.length === 0) return;
    const most = capacity * (unlock === 'arrivals' ? 1 / fair_shares : claim_share_max);
    const amount = Math.min(most, Math.max(1, Math.ceil(job.demand.tokensRemaining / lanes.length)));
    for (const lane of lanes) {
      if (!this.#dpf.blocks.has(String(lane))) this.#dpf.addBlock(String(lane), capacity);
    }
    const claim = {
      id: job.id,
      demand: Object.fromEntries(lanes.map((lane) => [String(lane), amount])),
    };
    this.#dpf.arrive(claim);
    this.#want(claim);
  }

  #want(claim: Claim): void {
    for (const [block, amount] of Object.entries(claim.demand)) {
      const lane = Number(block);
      this.#wanted[lane] = at(this.#wanted, lane) + amount;
    }
  }

  #budgetLeft(lane: LaneId): number {
    const wanted = at(this.#wanted, lane);
    const block = this.#dpf.blocks.get(String(lane));
    if (block === undefined) return this.options.tokens_per_window - wanted;
    return block.capacity - block.allocated - block.consumed - wanted;
  }

  #tokensDone(id: JobId): number {
    return this.snapshot.jobs.get(id)?.tokensDone ?? 0;
  }
}

function lanesOf(claim: Claim): LaneId[] {
  return Object.keys(claim.demand).map(Number);
}

function totalOf(claim: Claim): number {
  return Object.values(claim.demand).reduce((sum, amount) => sum + amount, 0);
}

/**
 * The lanes a job claims: as many as its runnable sequences need, first those that hold some of them, then those with
 * an engine awake, then its trainer's, then those with most budget left. Ascending.
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
    const nearness = engine !== undefined ? 2 : lane === job.trainerLane ? 1 : 0;
    return { lane, running: engine?.running ?? 0, nearness, left: budgetLeft(lane) };
  });
  ranked.sort(
    (a, b) => b.running - a.running || b.nearness - a.nearness || b.left - a.left || a.lane - b.lane,
  );
  return ranked
    .slice(0, count)
    .map(({ lane }) => lane)
    .sort((a, b) => a - b);
}
