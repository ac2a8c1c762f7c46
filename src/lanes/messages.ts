import type { Admission } from '../engine/admission.js';
import type { EngineUpdate, EvictedSequence } from '../engine/engine.js';
import type { Turn } from '../engine/episode.js';
import type { SequenceRequest } from '../engine/sequence.js';
import type { EngineOptions } from '../engine/webgpu-engine.js';
import type { AdapterSummary } from '../gpu/device.js';
import type { ModelConfig } from '../model/config.js';
import type { Buckets, ParamLayout } from '../model/layout.js';
import type { LaneRecords } from '../telemetry/records.js';
import type { ScoreSequence, TrainSequence, ValueSequence, WeightedSequence } from '../train/batch.js';
import type { CriticResult } from '../train/critic-results.js';
import type { CriticStepOptions } from '../train/critic.js';
import type { TrainResult } from '../train/results.js';
import type { StepOptions, TrainerOptions } from '../train/trainer.js';
import type { TrainerState } from '../train/state.js';
import type { SharedStore } from '../weights/store.js';
import type { LaneFault } from './faults.js';
import type { ExecutorBudgets, LaneSettings } from './settings.js';

/**
 * Every message that crosses a lane's port, in both directions. A request carries a number; exactly one `done` or
 * `failed` answers it. Tokens and records come on their own, one message a step, never one a token. A lane is anybody's:
 * what concerns a job's trainer, critic or engine names the job.
 */
export interface OpenLane {
  readonly lane: number;
  readonly adapter: string | null;
  readonly settings: LaneSettings;
  /** How often this lane was replaced: its weights are published as of this epoch. */
  readonly epoch: number;
  /** What is to go wrong in it: for tests. */
  readonly faults: readonly LaneFault[];
  /** Rung with every message to the lane, so that a napping thread wakes. */
  readonly doorbell: SharedArrayBuffer;
}

export type LaneRequest =
  | {
      readonly kind: 'createTrainer';
      readonly job: string;
      /** Its share of the device beside the trainers of other jobs, in proportion to theirs; above 0. */
      readonly weight: number;
      readonly config: ModelConfig;
      readonly layout: ParamLayout;
      readonly options: TrainerOptions;
      readonly weights: Buckets;
    }
  /**
   * Frees the trainer and its reference once what was asked of it before is done. One that failed has to be removed
   * before there can be another.
   */
  | { readonly kind: 'removeTrainer'; readonly job: string }
  /** The trainer goes on where another one was. */
  | { readonly kind: 'loadState'; readonly job: string; readonly state: TrainerState }
  /** A critic for the job, which gives values in a stage of its own and is trained in another. */
  | {
      readonly kind: 'createCritic';
      readonly job: string;
      /** As a trainer's. */
      readonly weight: number;
      readonly config: ModelConfig;
      /** Of `criticLayout`. */
      readonly layout: ParamLayout;
      readonly options: TrainerOptions;
      readonly weights: Buckets;
    }
  /** As `removeTrainer`. */
  | { readonly kind: 'removeCritic'; readonly job: string }
  /** The critic goes on where another one was. */
  | { readonly kind: 'loadCriticState'; readonly job: string; readonly state: TrainerState }
  /** An engine for the job; it has no weights until `publish` (same lane) or `pull` (any lane). */
  | {
      readonly kind: 'createEngine';
      readonly job: string;
      /** Its share of the device beside the engines of other jobs, in proportion to theirs; above 0. */
      readonly weight: number;
      readonly config: ModelConfig;
      readonly layout: ParamLayout;
      readonly options: EngineOptions;
      readonly store: SharedStore | null;
    }
  /** Frees the engine, its weights and its cache; the answer holds the sequences it had, to go on elsewhere. */
  | { readonly kind: 'removeEngine'; readonly job: string }
  /**
   * How many sequences the engine runs at once from now on, the oldest first. The others stay where they are, their
   * caches kept: at 0 all of them. Without a word from the plan it is all the slots the engine has.
   */
  | { readonly kind: 'slots'; readonly job: string; readonly slots: number }
  /** How the engine admits sequences from now on; null: each takes all the cache it may need, as at first. */
  | { readonly kind: 'admission'; readonly job: string; readonly admission: Admission | null }
  /** Keeps the trainer's present weights as the frozen reference. */
  | { readonly kind: 'keepReference'; readonly job: string }
  /**
   * One optimizer step; with `publish` the new weights go where that request would send them, with `commit` the state
   * after the step comes back. Either is a part of the step's own program: the engine yields once for all of it. A step
   * that fails ends the trainer, for nobody knows what it holds; other jobs are not touched.
   */
  | {
      readonly kind: 'train';
      readonly job: string;
      readonly requestedMs: number;
      readonly sequences: readonly TrainSequence[];
      readonly options: StepOptions;
      readonly publish?: PublishOrder | undefined;
      readonly commit?: boolean | undefined;
    }
  | {
      readonly kind: 'score';
      readonly job: string;
      readonly requestedMs: number;
      readonly stage: string;
      readonly which: 'policy' | 'reference';
      readonly sequences: readonly ScoreSequence[];
    }
  /** The critic's value at each position with a weight. */
  | {
      readonly kind: 'values';
      readonly job: string;
      readonly requestedMs: number;
      readonly sequences: readonly WeightedSequence[];
    }
  /**
   * One optimizer step of the critic; with `commit` the state after it comes back, as a part of the step's own program.
   * One that fails ends the critic alone.
   */
  | {
      readonly kind: 'trainCritic';
      readonly job: string;
      readonly requestedMs: number;
      readonly sequences: readonly ValueSequence[];
      readonly options: CriticStepOptions;
      readonly commit?: boolean | undefined;
    }
  /** The trainer's weights as `version`: a device copy for this lane's engine, and into the store when there is one. */
  | ({ readonly kind: 'publish'; readonly job: string } & PublishOrder)
  /** The store's newest version into this lane's engine. */
  | { readonly kind: 'pull'; readonly job: string }
  /** The trainer's weights to the host, for a checkpoint. */
  | { readonly kind: 'exportWeights'; readonly job: string }
  | { readonly kind: 'add'; readonly job: string; readonly sequences: readonly SequenceRequest[] }
  /** Episodes between two turns go on with what their environments answered. */
  | { readonly kind: 'extend'; readonly job: string; readonly turns: readonly EpisodeTurn[] }
  /**
   * Episodes between two turns are over, or go on elsewhere: their caches are freed. An engine that is gone has freed
   * them already.
   */
  | { readonly kind: 'finish'; readonly job: string; readonly ids: readonly number[] }
  | { readonly kind: 'abort'; readonly job: string; readonly ids: readonly number[] }
  /** From now on the lane shares its device like this. */
  | { readonly kind: 'configure'; readonly settings: LaneSettings }
  /**
   * From now on the lane's engines take turns, a slice each, whatever their weights; slices and what is in flight of
   * them stay within these limits as well as within the lane's budgets. Null: by weight, as the budgets say.
   */
  | { readonly kind: 'align'; readonly segment: ExecutorBudgets | null }
  /**
   * A stage will want the device at about `expectedMs` (lib/clock): until it asks, or until `untilMs`, generation keeps
   * as little in flight as it can.
   */
  | { readonly kind: 'hint'; readonly expectedMs: number; readonly untilMs: number }
  /** Records not sent yet, those of unfinished preemptions included. */
  | { readonly kind: 'flush' }
  /** Waits for everything in flight, frees the device and ends the thread. */
  | { readonly kind: 'close' };

/** The next turn of the episode of that id. */
export interface EpisodeTurn {
  readonly id: number;
  readonly turn: Turn;
}

/** Under which version weights are published, and the store that others take them from. */
export interface PublishOrder {
  readonly version: number;
  readonly store: SharedStore | null;
}

/** What `done` carries, by request. */
export interface LaneAnswers {
  createTrainer: { readonly bytes: number };
  createEngine: { readonly bytes: number };
  removeTrainer: null;
  createCritic: { readonly bytes: number };
  removeCritic: null;
  loadCriticState: null;
  slots: null;
  admission: null;
  removeEngine: { readonly evicted: readonly EvictedSequence[] };
  loadState: null;
  keepReference: null;
  train: TrainResult & {
    /** Null unless the step was to be committed. */
    readonly state: TrainerState | null;
    /** From the last update of a weight until all was published; 0 when nothing was to be. */
    readonly publishMs: number;
  };
  score: { readonly logprobs: readonly Float32Array<ArrayBuffer>[] };
  /** Of each sequence, aligned as its weights; 0 where the weight is 0. */
  values: { readonly values: readonly Float32Array<ArrayBuffer>[] };
  trainCritic: CriticResult & {
    /** Null unless the step was to be committed. */
    readonly state: TrainerState | null;
  };
  publish: { readonly storeBytes: number };
  pull: { readonly version: number; readonly bytes: number };
  exportWeights: { readonly weights: Buckets };
  add: null;
  extend: null;
  finish: null;
  abort: null;
  configure: null;
  align: null;
  hint: null;
  flush: LaneRecords & {
    /** Longest single dispatch of generation lately submitted, by prediction. */
    readonly largestDispatchUs: number;
    /** Processor time of the lane's thread so far; null where the platform does not tell. */
    readonly cpuMs: number | null;
  };
  close: null;
}

export type LaneRequestKind = LaneRequest['kind'];

/** What is asked of one job's residents. */
export type JobRequest = Extract<LaneRequest, { readonly job: string }>;

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
  | {
      readonly kind: 'tokens';
      readonly job: string;
      readonly update: EngineUpdate;
      /** What one decode step of the engine takes the device by prediction, waits left out, in ms; null: not known. */
      readonly stepMs: number | null;
    }
  | { readonly kind: 'records'; readonly records: LaneRecords }
  /** The lane cannot go on: its device is lost or a bug stopped it. */
  | { readonly kind: 'broken'; readonly failure: LaneFailure };

/** Errors cross threads as a code and a text. */
export interface LaneFailure {
  /** `user`: something a person can mend. `device`: the device was lost. `bug`: everything else. */
  readonly code: 'user' | 'device' | 'bug';
  readonly text: string;
}
