import type { LaneId } from '../scheduler/state.js';
import type { LatencyHistogram } from './latency.js';
import type { SimJobSpec } from './scenario.js';
import type { SimSequence } from './sequence.js';
import type { World } from './world.js';

/** The job an engine works for. */
export interface EngineOwner<Engine> {
  readonly spec: SimJobSpec;
  readonly latency: LatencyHistogram;
  decoded(tokens: number): void;
  /** So many tokens will have to be read again. */
  cacheLost(tokens: number): void;
  /** A sequence has lost its cache to others of the engine; the engine's cache held so many tokens at most so far. */
  evicted(sequences: number, kvTokensPeak: number): void;
  /** A sequence has all tokens of its turn; it has left its slot, its KV is still here. */
  turnEnded(sequence: SimSequence): void;
  /** The number of sequences an engine runs may have changed, and with it the room it has. */
  engineChanged(engine: Engine): void;
}

/** The lane an engine is on. */
export interface EngineLane<Engine> {
  readonly id: LaneId;
  readonly speed: number;
  readonly world: World;
  /** Shares follow the lengths of everybody's steps. */
  readonly isAligned: boolean;
  /** What the engine has to do has changed: gives it its share of the lane's time. */
  share(engine: Engine): void;
}
