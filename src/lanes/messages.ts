import type { EngineUpdate, EvictedSequence } from '../engine/engine.js';
import type { SequenceRequest } from '../engine/sequence.js';
import type { EngineOptions } from '../engine/webgpu-engine.js';
import type { AdapterSummary } from '../gpu/device.js';
import type { ModelConfig } from '../model/config.js';
import type { Buckets, ParamLayout } from '../model/layout.js';
import type { LaneRecords } from '../telemetry/records.js';
import type { ScoreSequence, TrainSequence } from '../train/batch.js';
import type { TrainResult } from '../train/results.js';
import type { StepOptions, TrainerOptions } from '../train/trainer.js';
import type { SharedStore } from '../weights/store.js';
import type { ExecutorBudgets } from './executor.js';

/**
 * Every message that crosses a lane's port, in both directions. A request carries a number; exactly one `done` or
 * `failed` answers it. Tokens and records come on their own, one message a step, never one a token.
 */
export interface OpenLane {
  readonly lane: number;
  readonly job: string;
  readonly adapter: string | null;
  readonly budgets: ExecutorBudgets;
  /** Rung with every message to the lane, so that a napping thread wakes. */
  readonly doorbell: SharedArrayBuffer;
}

export type LaneRequest =
  | {
      readonly kind: 'createTrainer';
      readonly config: ModelConfig;
      readonly layout: ParamLayout;
      readonly options: TrainerOptions;
      readonly weights: Buckets;
    }
  /** An engine for the job; it has no weights until `publish` (same lane) or `pull` (any lane). */
  | {
      readonly kind: 'createEngine';
      readonly config: ModelConfig;
      readonly layout: ParamLayout;
      readonly options: EngineOptions;
      readonly store: SharedStore | null;
    }
  /** Frees the engine, its weights and its cache; the answer holds the sequences it had, to go on elsewhere. */
  | { readonly kind: 'removeEngine' }
  /** Keeps the trainer's present weights as the frozen reference. */
  | { readonly kind: 'keepReference' }
  | {
      readonly kind: 'train';
      readonly requestedMs: number;
      readonly sequences: readonly TrainSequence[];
      readonly options: StepOptions;
    }
  | {
      readonly kind: 'score';
      readonly requestedMs: number;
      readonly stage: string;
      readonly which: 'policy' | 'reference';
      readonly sequences: readonly ScoreSequence[];
    }
  /** The trainer's weights as `version`: a device copy for this lane's engine, and into the store when there is one. */
  | { readonly kind: 'publish'; readonly version: number; readonly store: SharedStore | null }
  /** The store's newest version into this lane's engine. */
  | { readonly kind: 'pull' }
  /** The trainer's weights to the host, for a checkpoint. */
  | { readonly kind: 'exportWeights' }
  | { readonly kind: 'add'; readonly sequences: readonly SequenceRequest[] }
  | { readonly kind: 'abort'; readonly ids: readonly number[] }
  /** Records not sent yet, those of unfinished preemptions included. */
  | { readonly kind: 'flush' }
  /** Waits for everything in flight, frees the device and ends the thread. */
  | { readonly kind: 'close' };

/** What `done` carries, by request. */
export interface LaneAnswers {
  createTrainer: { readonly bytes: number };
  createEngine: { readonly bytes: number };
  removeEngine: { readonly evicted: readonly EvictedSequence[] };
  keepReference: null;
  train: TrainResult;
  score: { readonly logprobs: readonly Float32Array<ArrayBuffer>[] };
  publish: { readonly storeBytes: number };
  pull: { readonly version: number; readonly bytes: number };
  exportWeights: { readonly weights: Buckets };
  add: null;
  abort: null;
  flush: LaneRecords & { readonly largestDispatchUs: number };
  close: null;
}

export type LaneRequestKind = LaneRequest['kind'];

export interface ToLane {
  readonly id: number;
  readonly request: LaneRequest;
}

export type FromLane =
  | {
      readonly kind: 'opened';
      readonly adapter: AdapterSummary;
      readonly storageBindingBytesMax: number;
      readonly hasTimestamps: boolean;
    }
  | { readonly kind: 'done'; readonly id: number; readonly answer: LaneAnswers[LaneRequestKind] }
  | { readonly kind: 'failed'; readonly id: number; readonly failure: LaneFailure }
  | { readonly kind: 'tokens'; readonly update: EngineUpdate }
  | { readonly kind: 'records'; readonly records: LaneRecords }
  /** The lane cannot go on: its device is lost or a bug stopped it. */
  | { readonly kind: 'broken'; readonly failure: LaneFailure };

/** Errors cross threads as a code and a text. */
export interface LaneFailure {
  /** `user`: something a person can mend. `device`: the device was lost. `bug`: everything else. */
  readonly code: 'user' | 'device' | 'bug';
  readonly text: string;
}
