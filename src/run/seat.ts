import type { LaneEvents, RemoteLane } from '../lanes/remote-lane.js';
import { nowMs } from '../lib/clock.js';
import { toError } from '../lib/errors.js';

/** Before each try to open a lane again, in ms: a driver that has just lost a device needs a moment. */
const WAITS_MS = [0, 100, 500, 2000];

export interface SeatParts {
  readonly lane: number;
  /** Opens a lane as of that epoch. */
  readonly open: (epoch: number, events: LaneEvents) => Promise<RemoteLane>;
  /** Gives a replacement what the lane before it had, before anybody else may use it. */
  readonly furnish: (replacement: RemoteLane) => Promise<void>;
  /** Says yes, and counts it, when one more replacement may be tried. */
  readonly mayReplace: () => boolean;
  readonly events: Pick<LaneEvents, 'onTokens' | 'onRecords'> & {
    /** Everything on the lane is gone. */
    readonly onLost: (error: Error) => void;
    /** Another lane has taken its place. */
    readonly onRebuilt: (seconds: number) => void;
    /** It stays lost. */
    readonly onGivenUp: (error: Error) => void;
  };
}

/**
 * One lane of a run, whoever sits there: when a lane breaks, another one of the same number takes its place under a new
 * epoch, as often as it is allowed. The broken one is not heard any more.
 */
export class Seat {
  #epoch = 0;
  #lane: RemoteLane | null = null;
  /** Why nobody will sit here again. */
  #ended: Error | null = null;
  #replacing: Promise<void> = Promise.resolve();
  #waiting: { resolve: (lane: RemoteLane) => void; reject: (error: Error) => void }[] = [];
  #hurry: () => void = () => undefined;

  private constructor(private readonly parts: SeatParts) {}

  /** Resolves once its first lane is open. */
  static async open(parts: SeatParts): Promise<Seat> {
    const seat = new Seat(parts);
    await seat.#seatNext(() => Promise.resolve());
    return seat;
  }

  get number(): number {
    return this.parts.lane;
  }

  /** Of the newest lane that was begun to be opened here. */
  get epoch(): number {
    return Math.max(0, this.#epoch - 1);
  }

  /** The lane that sits here, or null while there is none. */
  get lane(): RemoteLane | null {
    return this.#lane;
  }

  /**
   * The lane that sits here, once there is one.
   *
   * @throws Error when there will be none.
   */
  ready(): Promise<RemoteLane> {
    if (this.#lane !== null) return Promise.resolve(this.#lane);
    if (this.#ended !== null) return Promise.reject(this.#ended);
    return new Promise((resolve, reject) => this.#waiting.push({ resolve, reject }));
  }

  /** From now on a lane that breaks stays lost, without a word. */
  retire(): void {
    if (this.#lane === null) this.#end(new Error(`lane ${this.number} is not replaced any more`));
    this.#ended ??= new Error(`lane ${this.number} is closed`);
    this.#hurry();
  }

  async close(): Promise<void> {
    this.retire();
    await this.#replacing;
    await this.#lane?.close();
  }

  /** Opens a lane of the next epoch and seats it, unless it breaks before it is furnished. */
  async #seatNext(furnish: (lane: RemoteLane) => Promise<void>): Promise<void> {
    const { onTokens, onRecords } = this.parts.events;
    const lane = await this.parts.open(this.#epoch++, {
      onTokens,
      onRecords,
      onBroken: (error) => {
        if (this.#lane === lane) this.#lost(error);
      },
    });
    try {
      await furnish(lane);
      if (lane.broken !== null) throw lane.broken;
      if (this.#ended !== null) throw this.#ended;
    } catch (error) {
      await lane.close();
      throw error;
    }
    this.#lane = lane;
    for (const { resolve } of this.#waiting.splice(0)) resolve(lane);
  }

  #lost(error: Error): void {
    // It ends by itself; until it has, its thread and its device are there.
    const gone = this.#lane?.close() ?? Promise.resolve();
    this.#lane = null;
    this.#replacing = gone;
    if (this.#ended !== null) return;
    this.parts.events.onLost(error);
    this.#replacing = this.#replace(error, gone);
  }

  async #replace(error: Error, gone: Promise<void>): Promise<void> {
    const startedMs = nowMs();
    let why = error;
    for (let attempt = 0; this.#ended === null; attempt++) {
      if (!this.parts.mayReplace()) {
        this.#end(why);
        this.parts.events.onGivenUp(why);
        break;
      }
      try {
        await this.#pause(WAITS_MS[Math.min(attempt, WAITS_MS.length - 1)] ?? 0);
        // Two devices might not fit side by side.
        await gone;
        await this.#seatNext(this.parts.furnish);
      } catch (failure) {
        why = toError(failure);
        continue;
      }
      this.parts.events.onRebuilt((nowMs() - startedMs) / 1000);
      return;
    }
    await gone;
  }

  #end(why: Error): void {
    this.#ended ??= why;
    for (const { reject } of this.#waiting.splice(0)) reject(why);
  }

  /** Waits, but not when the seat is about to be closed. */
  async #pause(ms: number): Promise<void> {
    let timer: NodeJS.Timeout | undefined;
    await new Promise<void>((resolve) => {
      this.#hurry = resolve;
      timer = setTimeout(resolve, ms);
    });
    clearTimeout(timer);
  }
}
