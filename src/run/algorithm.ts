import type { Buckets } from '../model/layout.js';
import type { TrainResult } from '../train/results.js';
import type { TrainUpdate } from './train-batch.js';

/** A step's batch, as an algorithm gets it. */
export interface StepOrder {
  /** From 1. */
  readonly step: number;
  /** Never empty. */
  readonly updates: readonly TrainUpdate[];
  readonly learningRate: number;
}

/** What a step did to a critic. */
export interface CriticReport {
  readonly learningRate: number;
  /** Σ weight · loss, a mean over the critic's updates. */
  readonly loss: number;
  /** Share of tokens whose gradient the clip removed. */
  readonly clipFraction: number;
  /** Largest of the updates, before clipping. */
  readonly gradNorm: number;
  /** Over the trained tokens, before the critic was trained. */
  readonly valueMean: number;
  readonly returnMean: number;
  /** Of the returns by the values before the critic was trained; null where the returns do not vary. */
  readonly explainedVariance: number | null;
}

export interface UpdateReport {
  /** Null while only the critic is trained. */
  readonly result: TrainResult | null;
  /** Null for an algorithm without one. */
  readonly critic: CriticReport | null;
  /** Over the trained tokens, before whitening; left out where the batch's own is right. */
  readonly advantageMean?: number;
}

/** How a batch of scored rollouts becomes new weights: what the loop of a job does not know. */
export interface Algorithm {
  /** A group whose rollouts all did equally well has something to teach. */
  readonly keepsEqualGroups: boolean;
  /** Makes what is trained, within the stage `init`. Takes the weights over. */
  prepare(weights: Buckets): Promise<void>;
  /** Trains on the batch, each piece of work in a stage of its own, and settles the tokens of its rollouts. */
  train(order: StepOrder): Promise<UpdateReport>;
}
