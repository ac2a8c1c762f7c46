import type { Admission } from '../engine/admission.js';
import { assert, at } from '../lib/assert.js';
import type { SleepOrder, WakeOrder } from '../scheduler/plan.js';
import type { LaneId } from '../scheduler/state.js';
import type { JobAccount } from './account.js';
import { linear } from './cost-model.js';
import { SimEngine } from './engine.js';
import type { EngineOwner } from './engine-surroundings.js';
import type { SimSequence } from './sequence.js';
import type { SimLane } from './lane.js';
import type { World } from './world.js';

/** The job as its engines see it. */
interface Home extends EngineOwner<SimEngine> {
  /** Newest version there is. */
  readonly version: number;
}

/** All engines of a job, the sequences that wait for one, and who goes where: oldest first, to the roomiest. */
export class Engines {
  readonly #byLane = new Map<LaneId, SimEngine>();
  #queue: SimSequence[] = [];
  /** Engines that wait for weights to wake with; null once there are some. */
  #waiting: (() => void)[] | null = [];

  constructor(
    private readonly job: Home,
    private readonly world: World,
    private readonly lanes: readonly SimLane[],
    private readonly account: JobAccount,
  ) {}

  get awake(): readonly SimEngine[] {
    return [...this.#byLane.values()];
  }

  /** Tokens its engines have sampled and not committed yet, about. */
  get uncommitted(): number {
    let tokens = 0;
    for (const engine of this.#byLane.values()) tokens += engine.uncommitted;
    return tokens;
  }

  weightsExist(): void {
    const waiting = this.#waiting ?? [];
    this.#waiting = null;
    for (const begin of waiting) begin();
  }

  add(sequences: readonly SimSequence[]): void {
    this.#queue.push(...sequences);
  }

  clearQueue(): void {
    this.#queue = [];
  }

  /** Nobody needs these any more, wherever they are. */
  drop(sequences: readonly SimSequence[]): void {
    const gone = new Set(sequences);
    this.#queue = this.#queue.filter((sequence) => !gone.has(sequence));
    for (const engine of this.#byLane.values()) {
      const own = sequences.filter((sequence) => sequence.engine === engine);
      if (own.length > 0) engine.drop(own);
    }
  }

  /** A sequence is back from its environment: to where its KV is, or else before all that never ran. */
  goOn(sequence: SimSequence): void {
    if (sequence.engine !== null) return sequence.engine.take([sequence]);
    this.#queue.unshift(sequence);
    this.place();
  }

  wake({ lane: id, slots }: WakeOrder, answer: (version: number) => void): void {
    const { clock, costs, desk } = this.world;
    const { weightBytes, trainerLane } = this.job.spec;
    const lane = at(this.lanes, id);
    const { epoch } = lane;
    const isHome = id === trainerLane;
    const pullMs = isHome ? 0 : linear(costs.pull, weightBytes);
    let version = 0;
    const pull = (ms: number): void => {
      version = this.job.version;
      if (!isHome) this.account.weightBytes += weightBytes;
      clock.after(ms + pullMs, loaded);
    };
    const loaded = (): void => {
      if (lane.epoch !== epoch) return;
      // Engines awake by then got what was published meanwhile; this one was not.
      if (!isHome && this.job.version > version) return pull(0);
      this.#open(id, slots);
      const { version: loadedVersion } = this.job;
      desk.tell(() => answer(loadedVersion));
      this.place();
    };
    const begin = (): void => {
      if (lane.epoch === epoch) pull(linear(costs.wake, weightBytes));
    };
    if (this.#waiting === null) begin();
    else this.#waiting.push(begin);
  }

  sleep({ lane: id, moveTo }: SleepOrder, answer: () => void): void {
    const { clock, costs, desk } = this.world;
    const lane = at(this.lanes, id);
    const { epoch } = lane;
    const evicted = this.#close(id);
    const target = moveTo === 'queue' ? undefined : this.#byLane.get(moveTo);
    if (target === undefined) this.#queue.unshift(...evicted);
    else target.take(evicted);
    this.place();
    clock.after(linear(costs.sleep, this.job.spec.weightBytes), () => {
      if (lane.epoch === epoch) desk.tell(answer);
    });
  }

  resize(lane: LaneId, slots: number): void {
    this.#on(lane).resize(slots);
    this.place();
  }

  admit(lane: LaneId, admission: Admission | null): void {
    this.#on(lane).admit(admission);
    this.place();
  }

  laneLost(lane: LaneId): void {
    if (!this.#byLane.has(lane)) return;
    this.#queue.unshift(...this.#close(lane));
    this.place();
  }

  /** The engine beside the trainer has the new weights at once, the others pull them. */
  published(): void {
    const { clock, costs } = this.world;
    const { weightBytes, trainerLane } = this.job.spec;
    const { version } = this.job;
    if (trainerLane !== null)
      this.#moved(trainerLane, 'publish', version, linear(costs.publish, weightBytes));
    for (const [lane, engine] of this.#byLane) {
      if (lane === trainerLane) {
        this.#moved(lane, 'flip', version, 0);
        this.#refresh(engine, version);
        continue;
      }
      engine.pulling++;
      this.account.weightBytes += weightBytes;
      const pullMs = linear(costs.pull, weightBytes);
      clock.after(pullMs, () => {
        engine.pulling--;
        if (this.#byLane.get(lane) !== engine) return;
        this.#moved(lane, 'pull', version, pullMs);
        this.#refresh(engine, version);
        this.place();
      });
    }
  }

  /** Gives what waits to the engines with room, so that what room is left is as even as can be. */
  place(): void {
    if (this.#queue.length === 0) return;
    const open: SimEngine[] = [];
    for (const engine of this.#byLane.values()) if (engine.room > 0) open.push(engine);
    if (open.length === 0) return;
    const rooms = open.map((engine) => engine.room);
    const shares = evenly(rooms, this.#queue.length);
    open.forEach((engine, i) => {
      const taken = this.#queue.splice(0, at(shares, i));
      if (taken.length > 0) engine.take(taken);
    });
  }

  #open(id: LaneId, slots: number): void {
    const { records } = this.world;
    const lane = at(this.lanes, id);
    const busy = records.busyOf(id, this.job.spec.id, 'generation');
    const engine = new SimEngine(this.job, lane, busy, slots, this.job.version);
    this.#byLane.set(id, engine);
    lane.add(engine);
  }

  #close(id: LaneId): SimSequence[] {
    const engine = this.#on(id);
    this.#byLane.delete(id);
    const evicted = engine.evict();
    engine.close();
    at(this.lanes, id).remove(engine);
    return evicted;
  }

  #moved(lane: LaneId, kind: 'publish' | 'flip' | 'pull', version: number, durationMs: number): void {
    const { clock, records } = this.world;
    const { id: job, weightBytes } = this.job.spec;
    const bytes = kind === 'flip' ? 0 : weightBytes;
    records.moved({ lane, job, version, kind, atMs: clock.nowMs, durationMs, bytes });
  }

  #refresh(engine: SimEngine, version: number): void {
    engine.version = Math.max(engine.version, version);
    this.job.engineChanged(engine);
  }

  #on(lane: LaneId): SimEngine {
    const engine = this.#byLane.get(lane);
    assert(engine !== undefined, `${this.job.spec.id} has no engine on lane ${lane}`);
    return engine;
  }
}

/** How many each gets of `count` things that go one by one to whoever has most room left, the first of equals. */
export function evenly(rooms: readonly number[], count: number): number[] {
  const over = (level: number): number => rooms.reduce((sum, room) => sum + Math.max(0, room - level), 0);
  if (over(0) <= count) return [...rooms];
  // The highest level of room left that uses up everything; a last few get one less.
  let low = 0;
  let high = rooms.reduce((most, room) => Math.max(most, room), 0);
  while (high - low > 1) {
    const middle = (low + high) >>> 1;
    if (over(middle) >= count) low = middle;
    else high = middle;
  }
  let excess = over(low) - count;
  const shares = rooms.map((room) => Math.max(0, room - low));
  for (let i = shares.length - 1; i >= 0 && excess > 0; i--) {
    if (at(shares, i) === 0) continue;
    shares[i] = at(shares, i) - 1;
    excess--;
  }
  return shares;
}
