import { assert } from '../lib/assert.js';
import { Entry } from './entry.js';
import type { CostModel } from './cost-model.js';
import type { GenerationFloor } from './generation-floor.js';
import type { Resident } from './resident.js';

/** What a slice counts for where turns are even. */
const EVEN_US = 1;

/**
 * Whose turn the next slice is. Who is more urgent always goes first; residents of the same priority share the device
 * by start-time fair queueing (Goyal, Vin and Cheng, 1996). Each slice has a start tag: where the resident's slice
 * before it ended, or the start tag of the last slice submitted, whichever is later; it ends its length by prediction,
 * divided by the resident's weight, after that. The least start tag goes next. Of two residents that always have work
 * neither ever falls behind its due by more than a slice of each. One that had none begins where the others are: it has
 * saved up nothing.
 *
 * Where turns are even, each slice of an engine counts as much as any other: engines that have work take strict turns,
 * whatever their weights and the length of their slices.
 *
 * Predictions are what is shared out, because they are known as a slice is submitted, and the cost model holds them to
 * the device's clock.
 */
export class Turns {
  readonly #entries: Entry[] = [];
  /** Start tag of the last slice of each priority. */
  readonly #virtualUs = new Map<number, number>();
  #areEven = false;

  constructor(
    private readonly cost: CostModel,
    private readonly floor: GenerationFloor,
  ) {}

  /** Everybody, in no order. */
  get entries(): readonly Entry[] {
    return this.#entries;
  }

  /** Everybody, in the order of their turns. */
  get order(): Entry[] {
    return this.#entries.toSorted(
      (a, b) => a.resident.priority - b.resident.priority || this.#startUs(a) - this.#startUs(b),
    );
  }

  add(resident: Resident): void {
    assert(resident.weight > 0, `a ${resident.kind} of weight ${resident.weight}`);
    this.#entries.push(new Entry(resident));
  }

  /** Whether engines take turns slice by slice from now on; all begin anew, for their tags were in another measure. */
  setEven(areEven: boolean): void {
    if (areEven === this.#areEven) return;
    this.#areEven = areEven;
    for (const entry of this.#entries) if (entry.resident.kind === 'engine') entry.finishTagUs = 0;
  }

  remove(entry: Entry): void {
    this.#entries.splice(this.#entries.indexOf(entry), 1);
  }

  of(resident: Resident): Entry | null {
    return this.#entries.find((entry) => entry.resident === resident) ?? null;
  }

  /** Somebody may come for whom it has to make way: for generation that may be anybody, at any time. */
  yields({ kind, priority }: Resident): boolean {
    return kind === 'engine' || this.#entries.some(({ resident }) => resident.priority < priority);
  }

  /** The entry whose turn it is, with a program begun; or generation, when it is owed its first op's time. */
  next(nowMs: number): Entry | null {
    const order = this.order;
    const leaving = order.find((entry) => entry.isLeaving && entry.begin());
    if (leaving !== undefined) return leaving;
    const urgent = order.find((entry) => entry.begin()) ?? null;
    const kept =
      urgent === null || urgent.resident.kind === 'engine'
        ? []
        : order.filter(({ resident, hasWork }) => resident.kind === 'engine' && hasWork);
    if (kept.length === 0) {
      this.floor.rests(nowMs);
      return urgent;
    }
    return this.#owed(kept) ?? this.#keep(kept, urgent, nowMs);
  }

  /** The entry's next slice is submitted, predicted to take so long. */
  ran(entry: Entry, predictedUs: number): void {
    const startUs = this.#startUs(entry);
    this.#virtualUs.set(entry.resident.priority, startUs);
    const { kind, weight } = entry.resident;
    entry.finishTagUs = startUs + (this.#areEven && kind === 'engine' ? EVEN_US : predictedUs / weight);
  }

  #owed(generation: readonly Entry[]): Entry | null {
    const { owedUs } = this.floor;
    if (owedUs <= 0) return null;
    const entry = generation.find((each) => each.begin());
    if (entry === undefined) return null;
    const first = entry.peek();
    return first === null || this.cost.predictUs(first, entry.who) <= owedUs ? entry : null;
  }

  #keep(generation: readonly Entry[], urgent: Entry | null, nowMs: number): Entry | null {
    this.floor.waits(
      generation.map(({ resident }) => resident.job),
      nowMs,
    );
    return urgent;
  }

  #startUs({ resident, finishTagUs }: Entry): number {
    return Math.max(this.#virtualUs.get(resident.priority) ?? 0, finishTagUs);
  }
}
