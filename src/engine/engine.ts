import type { Program } from '../gpu/ops.js';
import type { Buckets } from '../model/layout.js';
import type { FinishReason, GeneratedTokens, SequenceRequest } from './sequence.js';

/** Tokens that came back from one step, in parallel arrays; `versions` are the weights each was sampled under. */
export interface EngineUpdate {
  readonly ids: Uint32Array<ArrayBuffer>;
  readonly tokenIds: Uint32Array<ArrayBuffer>;
  readonly logprobs: Float32Array<ArrayBuffer>;
  readonly rawLogprobs: Float32Array<ArrayBuffer>;
  readonly version: number;
  readonly finished: readonly { readonly id: number; readonly reason: FinishReason }[];
}

/** A sequence taken out before its end, with all it produced; it can go on in any engine. */
export interface EvictedSequence {
  readonly id: number;
  readonly generated: GeneratedTokens;
}

/** What every generation engine offers; the lane knows no more of it than this. */
export interface Engine {
  /** Weights version new steps run under; −1 before the first. */
  readonly version: number;
  /** Sequences held, waiting ones included. */
  readonly sequenceCount: number;
  add(request: SequenceRequest): void;
  /** Ends a sequence early, its tokens kept; unknown ids are ignored (it may just have finished). */
  abort(id: number): void;
  /** The next step's work, or null when there is nothing to do before the device answers. */
  nextStep(): Program | null;
  /** Puts host weights into place; new steps use them once all is submitted. */
  loadWeights(weights: Buckets, version: number): Program;
  /** No new steps; those under way finish. There is no way back: an engine is paused to be evicted and destroyed. */
  pause(): void;
  /** Takes every sequence out. Call only when no step is half done and all results are in. */
  evict(): EvictedSequence[];
  /** Steps submitted whose results have not come back. */
  readonly stepsInFlight: number;
  /** Resolves when every submitted step's result is in. */
  settled(): Promise<void>;
  destroy(): void;
}
