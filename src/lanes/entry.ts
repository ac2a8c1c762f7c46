import type { Op, Program } from '../gpu/ops.js';
import { assert } from '../lib/assert.js';
import { type Resident, whoOf } from './resident.js';

/** A resident on an executor, and the program it is in the middle of. */
export class Entry {
  #program: Program | null = null;
  /** Pulled from the program, not yet taken. */
  #held: Op | null = null;
  #opsTaken = 0;
  /** Of the last program that came to its end. */
  #opsBefore = 0;
  /** Predicted device time of the ops taken, and of those of the last program. */
  #usTaken = 0;
  #usBefore = 0;

  /** It goes first, whoever outranks it, until what it was asked to finish is submitted. */
  isLeaving = false;

  /** Where its last slice ended in the time that it shares with its equals, in µs at weight 1. */
  finishTagUs = 0;

  /** As whom the cost model knows it. */
  readonly who: string;

  constructor(readonly resident: Resident) {
    this.who = whoOf(resident);
  }

  get isHalfDone(): boolean {
    return this.#program !== null;
  }

  get hasWork(): boolean {
    return this.isHalfDone || this.resident.hasWork;
  }

  /** How much of its step is submitted, 0 to 1, going by the step before; null between steps. */
  get phase(): number | null {
    if (this.#opsTaken === 0) return null;
    return this.#opsBefore === 0 ? 0 : Math.min(1, this.#opsTaken / this.#opsBefore);
  }

  /** Asks the resident for a program unless one is half done; false when there is none. */
  begin(): boolean {
    this.#program ??= this.resident.next();
    return this.isHalfDone;
  }

  /** The next op, without taking it; null at the program's end, which is then forgotten. */
  peek(): Op | null {
    if (this.#held !== null || this.#program === null) return this.#held;
    const step = this.#program.next();
    if (step.done === true) {
      this.#opsBefore = this.#opsTaken;
      this.#usBefore = this.#usTaken;
      this.resident.ended?.(this.#usTaken);
      this.#forget();
      return null;
    }
    return (this.#held = step.value);
  }

  /** The op that `peek` showed is submitted, predicted to take `us`. */
  take(us: number): void {
    assert(this.#held !== null, 'take before peek');
    this.#held = null;
    this.#opsTaken++;
    this.#usTaken += us;
  }

  /** How long the next slice should be, at most `sliceUs`: what is left of the program in equal parts. */
  evenUs(sliceUs: number): number {
    // Going by the program before: a last slice that is a mere rest would cost a submission for next to nothing.
    const leftUs = this.#usBefore - this.#usTaken;
    return leftUs <= 0 || leftUs === Infinity ? sliceUs : leftUs / Math.ceil(leftUs / sliceUs);
  }

  /** Gives up the program half done. */
  abandon(): void {
    this.#program?.return();
    this.#forget();
  }

  #forget(): void {
    this.#program = null;
    this.#held = null;
    this.#opsTaken = 0;
    this.#usTaken = 0;
  }
}
