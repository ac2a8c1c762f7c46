import { assert } from '../../lib/assert.js';

/**
 * DPF, dominant private-block fairness (Luo, Pan, Tholoniat, Cidon, Geambasu, Lécuyer, "Privacy budget scheduling",
 * OSDI 2021), over budgets of any unit: blocks that are spent once and never refilled, and claims that want some of
 * several blocks, all or nothing. A block starts locked and is unlocked bit by bit, by arrivals (DPF-N) or by time
 * (DPF-T), so that those who come first cannot take all. What is unlocked goes to the claim with the smallest dominant
 * share first; one that does not fit blocks nobody.
 *
 * For every block, always: allocated + consumed ≤ unlocked ≤ capacity.
 */
export interface Block {
  readonly capacity: number;
  /** Claims that have asked for some of it. */
  readonly arrivals: number;
  /** Of the capacity, what may be given out; what has been given out included. */
  readonly unlocked: number;
  readonly allocated: number;
  readonly consumed: number;
}

export interface Claim {
  readonly id: string;
  /** By block: how much of it; above 0. */
  readonly demand: Readonly<Record<string, number>>;
}

/** Plain JSON. */
export interface DpfState {
  readonly blocks: Readonly<Record<string, Block>>;
  /** In order of arrival. */
  readonly waiting: readonly Claim[];
  /** In order of their grants. */
  readonly granted: readonly Claim[];
}

export const NO_BLOCKS: DpfState = { blocks: {}, waiting: [], granted: [] };

/** More claims than any sane caller has waiting at once. */
export const CLAIMS_MAX = 100_000;

/** The allocator: takes a state, changes a copy, gives that back. No clock, no randomness. */
export class Dpf {
  readonly #blocks: Map<string, Block>;
  #waiting: Claim[];
  readonly #granted: Map<string, Claim>;

  constructor(state: DpfState = NO_BLOCKS) {
    this.#blocks = new Map(Object.entries(state.blocks));
    this.#waiting = [...state.waiting];
    this.#granted = new Map(state.granted.map((claim) => [claim.id, claim]));
  }

  /** In order of arrival. */
  get waiting(): readonly Claim[] {
    return this.#waiting;
  }

  /** In order of their grants. */
  get granted(): ReadonlyMap<string, Claim> {
    return this.#granted;
  }

  get blocks(): ReadonlyMap<string, Block> {
    return this.#blocks;
  }

  get state(): DpfState {
    const blocks = Object.fromEntries(this.#blocks);
    return { blocks, waiting: this.#waiting, granted: [...this.#granted.values()] };
  }

  /** A new block, all of it locked. */
  addBlock(id: string, capacity: number): void {
    assert(!this.#blocks.has(id), `block ${id} is there already`);
    assert(capacity > 0 && Number.isFinite(capacity), `block ${id} holds ${capacity}`);
    this.#blocks.set(id, { capacity, arrivals: 0, unlocked: 0, allocated: 0, consumed: 0 });
  }

  /** A claim arrives at its blocks, and waits. */
  arrive(claim: Claim): void {
    const isKnown = this.#granted.has(claim.id) || this.#waiting.some((other) => other.id === claim.id);
    assert(!isKnown, `claim ${claim.id} is there already`);
    assert(this.#waiting.length < CLAIMS_MAX, `${CLAIMS_MAX} claims wait already`);
    const parts = Object.entries(claim.demand);
    assert(parts.length > 0, `claim ${claim.id} asks for nothing`);
    for (const [id, amount] of parts) {
      assert(amount > 0 && Number.isFinite(amount), `claim ${claim.id} asks for ${amount} of block ${id}`);
      const block = this.#block(id);
      this.#blocks.set(id, { ...block, arrivals: block.arrivals + 1 });
    }
    this.#waiting.push(claim);
  }

  /** DPF-N: after k arrivals at a block, k of n equal parts of it are unlocked. */
  unlockByArrivals(n: number): void {
    for (const [id, block] of this.#blocks) this.#unlock(id, block.arrivals / n);
  }

  /** DPF-T: of every block, `share` (elapsed time over its lifetime) is unlocked; never less than before. */
  unlockByTime(share: number): void {
    for (const id of this.#blocks.keys()) this.#unlock(id, share);
  }

  /** Grants what fits, smallest dominant share first. */
  allocate(): Claim[] {
    const ranked = this.#waiting.map((claim) => ({ claim, shares: this.#shares(claim) }));
    ranked.sort((a, b) => compareShares(a.shares, b.shares));
    const granted: Claim[] = [];
    for (const { claim } of ranked) {
      const parts = Object.entries(claim.demand);
      if (!parts.every(([id, amount]) => amount <= this.free(id))) continue;
      for (const [id, amount] of parts) {
        const block = this.#block(id);
        this.#blocks.set(id, { ...block, allocated: block.allocated + amount });
      }
      this.#granted.set(claim.id, claim);
      granted.push(claim);
    }
    if (granted.length > 0) this.#waiting = this.#waiting.filter((claim) => !this.#granted.has(claim.id));
    return granted;
  }

  /**
   * A granted claim ends: what it used of each of its blocks is consumed, the rest is free again. What it used beyond
   * its allocation comes out of what is free.
   */
  settle(id: string, used: (block: string) => number): void {
    const claim = this.#granted.get(id);
    assert(claim !== undefined, `claim ${id} was never granted`);
    for (const [name, amount] of Object.entries(claim.demand)) {
      const block = this.#block(name);
      const consumed = Math.min(Math.max(used(name), 0), amount + this.free(name));
      const allocated = block.allocated - amount;
      this.#blocks.set(name, { ...block, allocated, consumed: block.consumed + consumed });
    }
    this.#granted.delete(id);
  }

  /** A waiting claim is given up. */
  withdraw(id: string): void {
    this.#waiting = this.#waiting.filter((claim) => claim.id !== id);
  }

  /** Of a block, what is unlocked and given to nobody. */
  free(id: string): number {
    const block = this.#block(id);
    return block.unlocked - block.allocated - block.consumed;
  }

  /** The share of a block that must be unlocked before a claim fits; above 1 when it cannot any more. */
  shareNeeded(claim: Claim): number {
    const parts = Object.entries(claim.demand).map(([id, amount]) => {
      const { capacity, allocated, consumed } = this.#block(id);
      return (allocated + consumed + amount) / capacity;
    });
    return Math.max(...parts);
  }

  #unlock(id: string, share: number): void {
    const block = this.#block(id);
    const unlocked = block.capacity * Math.min(1, share);
    if (unlocked > block.unlocked) this.#blocks.set(id, { ...block, unlocked });
  }

  /** What a claim wants of each block as a share of its capacity, largest first. */
  #shares(claim: Claim): number[] {
    return Object.entries(claim.demand)
      .map(([id, amount]) => amount / this.#block(id).capacity)
      .sort((a, b) => b - a);
  }

  #block(id: string): Block {
    const block = this.#blocks.get(id);
    assert(block !== undefined, `no block ${id}`);
    return block;
  }
}

/** By the dominant share, ties by the second, the third and so on; a claim on fewer blocks has shares of 0 there. */
function compareShares(a: readonly number[], b: readonly number[]): number {
  for (let index = 0; index < Math.max(a.length, b.length); index++) {
    const difference = (a[index] ?? 0) - (b[index] ?? 0);
    if (difference !== 0) return difference;
  }
  return 0;
}
