import type { TrainSequence, ValueSequence } from './batch.js';
import type { CriticStepOptions } from './critic.js';
import type { StepOptions } from './trainer.js';

/** Long enough that every kernel has something to do, short enough to be over at once. */
const TOKENS_MAX = 16;

/** A batch as small as can be, for timing the kernels of a trainer that has no weights yet. */
export function warmUpBatch(tokensMax: number): TrainSequence[] {
  const tokens = new Uint32Array(Math.min(TOKENS_MAX, tokensMax));
  const last = tokens.length - 1;
  return [
    {
      tokens,
      weights: Float32Array.from(tokens, (_, position) => (position < last ? 1 : 0)),
      sampling: { temperature: 1, topK: 1, topP: 0.9, minP: 0 },
      advantage: 1,
      oldLogprobs: new Float32Array(tokens.length),
      refLogprobs: null,
    },
  ];
}

/** Changes nothing that counts. */
export const WARM_UP_STEP: StepOptions = {
  objective: { algorithm: 'grpo', clipLow: 0.2, clipHigh: 0.2, klCoefficient: 0 },
  learningRate: 0,
};

/** The same for a critic. */
export function warmUpValues(tokensMax: number): ValueSequence[] {
  return warmUpBatch(tokensMax).map(({ tokens, weights }) => ({
    tokens,
    weights,
    returns: new Float32Array(tokens.length),
    oldValues: new Float32Array(tokens.length),
  }));
}

/** Changes nothing that counts. */
export const WARM_UP_CRITIC_STEP: CriticStepOptions = { clip: 0.2, learningRate: 0 };
