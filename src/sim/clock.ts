import { assert } from '../lib/assert.js';
import { Heap, type HeapItem } from './heap.js';

/** Calls of the same time go by rank, then in the order in which they were set. */
export type Rank = 'world' | 'scheduler';

/** One call to come, which can be moved or taken back. */
export class Timer implements HeapItem {
  place = -1;
  timeMs = Infinity;
  /** Counts up with every setting of any timer. */
  order = 0;

  constructor(
    readonly rank: Rank,
    readonly fire: () => void,
  ) {}

  get isSet(): boolean {
    return this.place >= 0;
  }
}

/** Simulated time: it stands still while anything happens, and jumps to whatever is next. */
export class SimClock {
  #nowMs = 0;
  #settings = 0;
  readonly #timers = new Heap<Timer>(isBefore);

  /** Milliseconds since the simulation began. */
  get nowMs(): number {
    return this.#nowMs;
  }

  /** Sets a timer, in place of any earlier setting; `Infinity` takes it back. */
  set(timer: Timer, timeMs: number): void {
    if (timeMs === Infinity) return this.cancel(timer);
    assert(timeMs >= this.#nowMs, `a timer was set for ${timeMs} ms at ${this.#nowMs} ms`);
    timer.timeMs = timeMs;
    timer.order = ++this.#settings;
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
    if (timer.timeMs > untilMs) {
      this.#nowMs = untilMs;
      return false;
    }
    this.#timers.remove(timer);
    this.#nowMs = timer.timeMs;
    timer.fire();
    return true;
  }

  get isEmpty(): boolean {
    return this.#timers.size === 0;
  }
}

function isBefore(a: Timer, b: Timer): boolean {
  if (a.timeMs !== b.timeMs) return a.timeMs < b.timeMs;
  if (a.rank !== b.rank) return a.rank === 'world';
  return a.order < b.order;
}
