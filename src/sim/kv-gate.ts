import { advancing, boundaryAfter, mayEnter, type Admission, type Resident } from '../engine/admission.js';
import type { KvHome, SimSequence } from './sequence.js';

/** Steps are counted in doubles: this much short of a whole one is one. */
export const STEP_SLACK = 1e-6;

/** An engine from within. Those held have no slot, with cache or without; those thinking have cache and no turn. */
export interface GatedEngine {
  readonly home: KvHome;
  readonly owner: {
    cacheLost(tokens: number): void;
    evicted(sequences: number, kvTokensPeak: number): void;
  };
  readonly decoding: { readonly items: readonly SimSequence[] };
  readonly prefilling: readonly SimSequence[];
  readonly held: SimSequence[];
  readonly thinking: Set<SimSequence>;
  steps(): number;
  slots(): number;
  run(sequence: SimSequence): void;
  stop(sequence: SimSequence): void;
}

/**
 * The cache of a simulated engine: who has a place in it, who may run and who leaves. Without a rule of admission a
 * sequence takes all it may need in its turn, as a live engine's does.
 */
export class KvGate {
  admission: Admission | null = null;
  #evictions = 0;
  #kvTokensPeak = 0;
  /** In the order in which they were admitted. */
  readonly #residents: SimSequence[] = [];

  constructor(
    private readonly engine: GatedEngine,
    private readonly kvTokens: number,
    private readonly turnTokensMax: number,
  ) {}

  remove(sequence: SimSequence): void {
    const index = this.#residents.indexOf(sequence);
    if (index >= 0) this.#residents.splice(index, 1);
  }

  clear(): void {
    this.#residents.length = 0;
  }

  boundaryAfter(tokens: number): number {
    return this.admission === null ? Infinity : boundaryAfter(this.admission, tokens);
  }

  /** Steps until the cache is full; Infinity when nobody grows, or nobody else could leave. */
  stepsUntilFull(): number {
    const growing = this.engine.decoding.items.length;
    if (growing === 0 || this.#residents.length < 2) return Infinity;
    return Math.max(0, this.#kvTokensMax - this.#kvTokensUsed) / growing;
  }

  /** Whoever has no room to grow leaves, whoever may come comes, and of those that are here run those that may. */
  regulate(): void {
    const { held, thinking, decoding, prefilling, owner } = this.engine;
    const slots = this.engine.slots();
    const evictions = this.#evictions;
    this.measure();
    while (this.#kvTokensUsed + decoding.items.length > this.#kvTokensMax) {
      const victim = this.#newest();
      if (victim === undefined) break;
      this.#dropCache(victim);
    }
    const newcomers = held.filter((sequence) => !this.#residents.includes(sequence));
    while (this.#residents.length - thinking.size < slots) {
      const [next] = newcomers;
      if (next === undefined || !this.#mayEnter(next)) break;
      this.#residents.push(next);
      newcomers.shift();
    }
    const allowed = this.#advancing(newcomers.length).slice(0, slots);
    const stopped = [...decoding.items, ...prefilling].filter((each) => !allowed.includes(each));
    for (const sequence of stopped) this.engine.stop(sequence);
    held.push(...stopped);
    for (const sequence of allowed) this.#goOn(sequence);
    this.measure();
    owner.evicted(this.#evictions - evictions, this.#kvTokensPeak);
  }

  /** Runs one that stood still, if there is room; when nothing else runs, room is made. */
  #goOn(sequence: SimSequence): void {
    const { held } = this.engine;
    if (!held.includes(sequence)) return;
    while (!this.#mayGoOn(sequence) && this.#isIdle) {
      const victim = this.#newest();
      if (victim === undefined || victim === sequence) break;
      this.#dropCache(victim);
    }
    const isFirst = this.#residents[0] === sequence && this.#isIdle;
    if (!isFirst && !this.#mayGoOn(sequence)) return;
    held.splice(held.indexOf(sequence), 1);
    this.engine.run(sequence);
  }

  /** One whose environment thinks comes back without its cache; any other is the first in line to be admitted again. */
  #dropCache(sequence: SimSequence): void {
    const { held, thinking, home, owner } = this.engine;
    const isThinking = thinking.delete(sequence);
    if (this.#isActive(sequence)) this.engine.stop(sequence);
    else if (held.includes(sequence)) held.splice(held.indexOf(sequence), 1);
    this.remove(sequence);
    const lost = sequence.dropCache();
    // One that had not been read yet loses nothing.
    if (lost > 0) this.#evictions++;
    owner.cacheLost(lost);
    if (isThinking) return;
    sequence.engine = home;
    held.unshift(sequence);
  }

  /** One whose environment thinks before all others, then whoever was admitted last; never the first of all. */
  #newest(): SimSequence | undefined {
    const others = this.#residents.slice(1);
    return others.findLast((each) => this.engine.thinking.has(each)) ?? others.at(-1);
  }

  #mayEnter(sequence: SimSequence): boolean {
    if (this.admission === null) {
      return this.#residents.length === 0 || this.#kvTokensTaken() + this.#most(sequence) <= this.kvTokens;
    }
    const residents = this.#present.map((each) => this.#resident(each));
    const newcomer = { tokens: sequence.tokens, kvTokens: sequence.contextTokens + 1 };
    return mayEnter(this.admission, residents, newcomer, this.#kvTokensUsed);
  }

  #mayGoOn(sequence: SimSequence): boolean {
    const others = this.#kvTokensTaken() - this.#taken(sequence);
    const own = this.admission === null ? this.#most(sequence) : sequence.contextTokens + 1;
    return others + own <= this.#kvTokensMax;
  }

  /** Those that may advance, in the order in which they were admitted. */
  #advancing(waiting: number): SimSequence[] {
    const present = this.#present;
    if (this.admission === null) return present;
    const residents = present.map((each) => this.#resident(each));
    const allowed = advancing(this.admission, residents, waiting);
    return present.filter((_, index) => allowed[index]);
  }

  /** Called before anybody leaves, for then there is most. */
  measure(): void {
    this.#kvTokensPeak = Math.max(this.#kvTokensPeak, Math.ceil(this.#kvTokensUsed - 1e-3));
  }

  get #kvTokensMax(): number {
    return this.admission?.kvTokensMax ?? this.kvTokens;
  }

  get #present(): SimSequence[] {
    return this.#residents.filter((each) => !this.engine.thinking.has(each));
  }

  get #isIdle(): boolean {
    return this.engine.decoding.items.length + this.engine.prefilling.length === 0;
  }

  get #kvTokensUsed(): number {
    return this.#residents.reduce((sum, each) => sum + this.#kvTokensOf(each), 0);
  }

  #isActive(sequence: SimSequence): boolean {
    return sequence.place >= 0 || this.engine.prefilling.includes(sequence);
  }

  /** In the cache now, or as soon as it is read; of one that stands still, what is left there. */
  #kvTokensOf(sequence: SimSequence): number {
    const { contextTokens, prefillLeft } = sequence;
    if (sequence.place >= 0) return contextTokens + this.engine.steps() - sequence.startStep;
    return this.#isActive(sequence) ? contextTokens + 1 : contextTokens - prefillLeft;
  }

  #kvTokensTaken(): number {
    return this.#residents.reduce((sum, each) => sum + this.#taken(each), 0);
  }

  /** What is kept for it: all its turn may need, or what it has. */
  #taken(sequence: SimSequence): number {
    const isGrowing = this.admission === null && !this.engine.thinking.has(sequence);
    return isGrowing ? this.#most(sequence) : this.#kvTokensOf(sequence);
  }

  #most({ contextTokens, turnLeft, turnTokens }: SimSequence): number {
    return contextTokens + Math.max(turnLeft, this.turnTokensMax - turnTokens);
  }

  #resident(sequence: SimSequence): Resident {
    const { tokens, place, startStep } = sequence;
    const since = place >= 0 ? Math.floor(this.engine.steps() - startStep + STEP_SLACK) : 0;
    return { tokens: tokens + since, kvTokensMax: this.#most(sequence) };
  }
}
