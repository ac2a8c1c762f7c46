import type { Admission } from './admission.js';
import type { Program } from '../gpu/ops.js';
import type { Buckets } from '../model/layout.js';
import type { KvCounts } from '../telemetry/records.js';
import type { Turn, TurnEnd } from './episode.js';
import type { EvictedSequence, FinishReason, SequenceRequest } from './sequence.js';

export type { EvictedSequence } from './sequence.js';

/** Tokens that came back from one step, in parallel arrays; `versions` are the weights each was sampled under. */
export interface EngineUpdate {
  readonly ids: Uint32Array<ArrayBuffer>;
  readonly tokenIds: Uint32Array<ArrayBuffer>;
  readonly logprobs: Float32Array<ArrayBuffer>;
  readonly rawLogprobs: Float32Array<ArrayBuffer>;
  readonly version: number;
  readonly finished: readonly { readonly id: number; readonly reason: FinishReason }[];
  /** Episodes whose turn is over: they wait for `extend` or `finish`. Left out where there are none. */
  readonly paused?: readonly { readonly id: number; readonly reason: TurnEnd }[];
}

/** Caches that left so that others could have their blocks. */
export type DisplacedCounts = Omit<KvCounts, 'held'>;

/**
 * What becomes of the caches of an engine's sequences while a stage of higher priority holds the device: all are held,
 * all are copied to the host and back, all are dropped and computed again, or, under `pressure`, as few leave as it
 * takes to keep no more than `blocksMax` blocks, each the cheaper way by measurement.
 */
export type KvOnPreempt =
  | { readonly kind: 'held' }
  | { readonly kind: 'spilled' }
  | { readonly kind: 'dropped' }
  | { readonly kind: 'pressure'; readonly blocksMax: number };

/** What every generation engine offers; the lane knows no more of it than this. */
export interface Engine {
  /** Weights version new steps run under; −1 before the first. */
  readonly version: number;
  /** Sequences held, waiting and parked ones included. */
  readonly sequenceCount: number;
  /** Of these, the episodes between two turns: nothing is to be done for them until they are extended. */
  readonly parkedCount: number;
  /** Sequences that have a slot and a cache on the device, those held included. */
  readonly runningCount: number;
  /** How many sequences run at once at most. */
  readonly slotsMax: number;
  /**
   * From now on only the `slots` oldest of the running sequences get rows, and nobody is admitted or returns beyond so
   * many. The others are held where they are, caches kept; steps under way finish. No token changes.
   */
  limitSlots(slots: number): void;
  /**
   * From now on sequences take cache as they grow, and run as the rule says; null: each again takes all it may need
   * when it is admitted. The budget counts in whole blocks, and is never less than the longest sequence needs. A cache
   * for which there is no room any more is dropped, that of the sequence admitted last first, and computed again to the
   * same bits later. No token changes.
   */
  limitAdmission(admission: Admission | null): void;
  /** Takes a sequence in. An episode that comes between two turns is parked at once. */
  add(request: SequenceRequest): void;
  /**
   * Begins the next turn of an episode: the observation is read, and the sequence goes on in the next free slot, before
   * any that never ran. Its cache is where it was, so nothing but the last sampled token and the observation goes
   * through the model; a cache that had to leave meanwhile comes back to the same bits. However long the environment
   * took, the tokens are those of a sequence that begins with all of it as its prompt.
   *
   * Under weights that arrived meanwhile the cache of earlier turns stays as it was computed, like that of a sequence
   * in the middle of a turn, unless it was dropped; the version of each token says under which it was sampled. The row
   * of the last sampled token is always computed under the new ones.
   *
   * @throws assertion when the sequence is not between two turns, or does not fit the engine with this one
   */
  extend(id: number, turn: Turn): void;
  /**
   * Ends an episode between two turns, for the reason its last turn ended, and frees its cache.
   *
   * @throws assertion when the sequence is not between two turns
   */
  finish(id: number): void;
  /** Ends a sequence early, its tokens kept; unknown ids are ignored (it may just have finished). */
  abort(id: number): void;
  /** The next step's work, or null when there is nothing to do before the device answers. */
  nextStep(): Program | null;
  /** Puts host weights into place; new steps use them once all is submitted. */
  loadWeights(weights: Buckets, version: number): Program;
  /** A program of `nextStep` was handed out and has not come to its end, even if nothing of it is submitted yet. */
  readonly isMidStep: boolean;
  /**
   * A stage takes the device: some caches leave it as `kv` says, those of parked episodes first, and until `comeBack` no more blocks are taken than
   * it allows. Call it only when not mid-step; steps may be in flight. The caches of those
   * spilled are copied by the program, which must be run to its end before any later one of this engine. Calling it
   * again before `comeBack` sets the new limit and lets more leave.
   *
   * Those that left return in the course of `nextStep`, oldest first and before any that never ran, with all their
   * tokens and the very bits they would have got. Only new weights tell the ways apart: a spilled cache comes back as
   * it was computed, under the old ones, just as a held one stays; a dropped one is computed again under the new ones.
   */
  leave(kv: KvOnPreempt): Program;
  /** The stage is gone: blocks are limited no more. */
  comeBack(): void;
  /** What became of the caches on the device in the leaves since the last call; `held` is that of the last one. */
  takeKvCounts(): KvCounts;
  /**
   * Caches that left because others needed their blocks, since the last call: numbers of sequences. They are those of
   * episodes between two turns and, under a rule of admission, of sequences that gave way to others that grew.
   */
  takeDisplacedCounts(): DisplacedCounts;
  /** Rows prefilled a second time because their cache was dropped, since the last call. */
  takeTokensRecomputed(): number;
  /** The smallest pieces of a step, for timing the kernels of an engine that has no sequences yet. */
  warmUp(): Program;
  /** No new steps; those under way finish. There is no way back: an engine is paused to be evicted and destroyed. */
  pause(): void;
  /** Takes every sequence out, those away or parked included, with all they produced. Call only when no step is half done and all results are in. */
  evict(): EvictedSequence[];
  /** Steps submitted whose results have not come back. */
  readonly stepsInFlight: number;
  /** Resolves when every submitted step's result is in, and no cache is on its way. */
  settled(): Promise<void>;
  destroy(): void;
}
