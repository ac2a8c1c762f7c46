import { assert } from '../lib/assert.js';
import { Heap, type HeapItem } from './heap.js';

/** Calls of the same time go by rank, then in the order in which they were set. */
export type Rank = 'world' | 'scheduler';

/** One call to come, which can be moved or taken back. */
export class Timer implements HeapItem {
  place = -1;
  /** When it is due, in ms. */
  key = Infinity;
  /** Its order among those of the same time. */
  tie = 0;

  constructor(
    readonly rank: Rank,
    readonly fire: () => void,
  ) {}

  get isSet(): boolean {
    return this.place >= 0;
  }
}

/** More settings than a simulation ever makes. */
const SETTINGS_MAX = 2 ** 52;

/** Simulated time: it stands still while anything happens, and jumps to whatever is next. */
export class SimClock {
  #nowMs = 0;
  #settings = 0;
  readonly #timers = new Heap<Timer>();

  /** Milliseconds since the simulation began. */
  get nowMs(): number {
    return this.#nowMs;
  }

  /** Sets a timer, in place of any earlier setting; `Infinity` takes it back. */
  set(timer: Timer, timeMs: number): void {
    if (timeMs === Infinity) return this.cancel(timer);
    // Spelling out a message for each of millions of settings would take longer than the settings do.
    if (!(timeMs >= this.#nowMs)) assert(false, `a timer was set for ${timeMs} ms at ${this.#nowMs} ms`);
    timer.key = timeMs;
    timer.tie = ++this.#settings + (timer.rank === 'world' ? 0 : SETTINGS_MAX);
    if (timer.isSet) this.#timers.moved(timer);
    else this.#timers.push(timer);
  }

  /** Calls once after so long. */
  after(ms: number, fire: () => void): Timer {
    const timer = new Timer('world', fire);
    this.set(timer, this.#nowMs + ms);
    return timer;
  }

  cancel(timer: Timer | null): void {
    if (timer?.isSet === true) this.#timers.remove(timer);
  }

  /** Makes the next call that is due by then; false when there is none, and then that is the time. */
  step(untilMs: number): boolean {
    const timer = this.#timers.peek();
    if (timer === undefined) return false;
    if (timer.key > untilMs) {
      this.#nowMs = untilMs;
      return false;
    }
    this.#timers.remove(timer);
    this.#nowMs = timer.key;
    timer.fire();
    return true;
  }

  get isEmpty(): boolean {
    return this.#timers.size === 0;
  }
}
