import type { RemoteLane } from '../../lanes/remote-lane.js';
import { Random } from '../../lib/prng.js';
import type { ModelConfig } from '../../model/config.js';
import { supervisedSequence, type TrainSequence } from '../../train/batch.js';
import type { TrainerOptions } from '../../train/trainer.js';

/** Whose everything on the bench is. */
export const JOB = 'bench';
const SEQUENCES = 2;
const SEQUENCE_TOKENS_MAX = 16;
/** So small that the weights stay what they are for as long as anybody measures. */
const LEARNING_RATE = 1e-9;

/** What high priority does, again and again: one whole optimizer step over this batch. */
export interface TrainingStep {
  readonly trainer: TrainerOptions;
  readonly batch: readonly TrainSequence[];
}

/** A small batch of random tokens; how long a step takes does not hang on what they are. */
export function trainingStep({ contextTokensMax, vocabSize }: ModelConfig, seed: number): TrainingStep {
  const random = new Random(seed).fork('training');
  const length = Math.min(SEQUENCE_TOKENS_MAX, contextTokensMax);
  const weights = Float32Array.from({ length }, (_, position) =>
    position < length - 1 ? 1 / (SEQUENCES * (length - 1)) : 0,
  );
  const batch = Array.from({ length: SEQUENCES }, () =>
    supervisedSequence(
      Array.from({ length }, () => random.int(0, vocabSize - 1)),
      weights,
    ),
  );
  const adamw = { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weightDecay: 0, gradNormMax: 1 };
  return { trainer: { rowsMax: SEQUENCES * length, contextTokensMax: length, adamw }, batch };
}

/** The step in words. */
export function trainingText({ batch }: TrainingStep): string {
  return `one optimizer step (forward, backward, AdamW) over ${batch.length} sequences of ${batch[0]?.tokens.length ?? 0} tokens`;
}

/** Asks the lane for one step as of `requestedMs`; resolves when its result is here. */
export async function train(lane: RemoteLane, { batch }: TrainingStep, requestedMs: number): Promise<void> {
  const options = { objective: { algorithm: 'crossEntropy' }, learningRate: LEARNING_RATE } as const;
  await lane.request({ kind: 'train', job: JOB, requestedMs, sequences: batch, options });
}
