import { at } from '#src/lib/assert.js';
import { Random } from '#src/lib/prng.js';
import type { ModelConfig } from '#src/model/config.js';
import { paramLayout } from '#src/model/layout.js';
import { describe, expect, it } from 'vitest';
import { adamwStep, initialAdamwState } from './adamw.js';
import { groupAdvantages } from './advantages.js';
import { expectClose } from './compare.js';
import { awkwardConfig, numericGradient, randomParams, randomTokens } from './fixtures.js';
import type { Params } from './params.js';
import { RAW_SAMPLING, logprobForced } from './sampling.js';
import {
  batchGradients,
  rolloutSequence,
  sequenceLoss,
  trainStep,
  type TrainHyper,
  type TrainSequence,
} from './trainer.js';
import { forward } from './transformer.js';

const HYPER: TrainHyper = {
  grpo: { clipLow: 0.2, clipHigh: 0.3, klBeta: 0.05 },
  adamw: { learningRate: 0.02, beta1: 0.9, beta2: 0.99, eps: 1e-8, weightDecay: 0.1, maxGradNorm: 1 },
};
/** Old minus new log-probability. Ratios 1.16, 1.57 and 0.64: inside the clip range and beyond each end. */
const SHIFTS = [-0.15, -0.45, 0.45];
const CASES = [22, 23].flatMap((seed) => [true, false].map((tied) => ({ seed, tied })));

/** Two rollouts, filtered and not, and one supervised sequence with a masked position in its middle. */
function mixedBatch(config: ModelConfig, params: Params, random: Random): TrainSequence[] {
  const samplings = [{ temperature: 0.8, topK: 12, topP: 0.9, minP: 0.01 }, RAW_SAMPLING];
  const rollouts = samplings.map((sampling, index) => {
    const tokens = randomTokens(random, 6, config.vocabSize);
    const targetStart = 2 + index;
    const { logits } = forward(config, params, tokens);
    const logprobs = tokens.slice(targetStart).map((token, i) => {
      const start = (targetStart + i - 1) * config.vocabSize;
      return logprobForced(logits.subarray(start, start + config.vocabSize), sampling, token);
    });
    return rolloutSequence({
      tokens,
      targetStart,
      weights: logprobs.map((_, i) => (i === 3 ? 0 : 0.25)),
      advantage: index === 0 ? 1.2 : -0.7,
      oldLogprobs: logprobs.map((logprob, i) => logprob + at(SHIFTS, i % SHIFTS.length)),
      refLogprobs: logprobs.map((logprob) => logprob + 0.4 * random.normal()),
      sampling,
    });
  });
  const tokens = randomTokens(random, 5, config.vocabSize);
  return [...rollouts, { tokens, weights: [0.1, 0, 0.1, 0.3], objective: { kind: 'supervised' } }];
}

function example(seed: number, tied: boolean) {
  const random = new Random(seed);
  const config = awkwardConfig(random, tied);
  const params = randomParams(config, random);
  return { config, params, batch: mixedBatch(config, params, random) };
}

describe('batchGradients', () => {
  it.each(CASES)('agrees with finite differences of the loss (seed $seed, tied $tied)', ({ seed, tied }) => {
    const { config, params, batch } = example(seed, tied);
    const { gradients, metrics } = batchGradients(config, params, batch, HYPER.grpo);
    expect(metrics.flat().some((token) => token?.clipped)).toBe(true);
    for (const [name, tensor] of params) {
      const numeric = numericGradient(tensor, () =>
        batch.reduce((loss, sequence) => loss + sequenceLoss(config, params, sequence, HYPER.grpo).loss, 0),
      );
      expectClose(gradients.get(name) ?? [], numeric, 1e-6, `seed ${seed}: gradient of ${name}`);
    }
  });

  it('is the sum over its sequences', () => {
    const { config, params, batch } = example(21, true);
    const whole = batchGradients(config, params, batch, HYPER.grpo);
    const parts = batch.map((sequence) => batchGradients(config, params, [sequence], HYPER.grpo));
    expect(whole.loss).toBeCloseTo(
      parts.reduce((total, part) => total + part.loss, 0),
      13,
    );
    for (const [name, gradient] of whole.gradients) {
      const added = gradient.map((_, i) =>
        parts.reduce((total, part) => total + (part.gradients.get(name)?.[i] ?? NaN), 0),
      );
      expectClose(gradient, added, 1e-14, name);
    }
  });

  it('reports no metrics where the weight is 0, and reads no records there', () => {
    const { config, params } = example(21, true);
    const sequence: TrainSequence = {
      tokens: [1, 2, 3, 4],
      weights: [0, 0, 1],
      objective: {
        kind: 'grpo',
        advantage: 1,
        oldLogprobs: [NaN, NaN, -3],
        refLogprobs: [NaN, NaN, -3],
        sampling: RAW_SAMPLING,
      },
    };
    const { loss, metrics } = batchGradients(config, params, [sequence], HYPER.grpo);
    expect(Number.isFinite(loss)).toBe(true);
    expect(metrics[0]?.map((token) => token === null)).toEqual([true, true, false]);
    const { logits } = forward(config, params, [1, 2, 3, 4]);
    const row = logits.subarray(2 * config.vocabSize, 3 * config.vocabSize);
    expect(metrics[0]?.[2]?.logprob).toBe(logprobForced(row, RAW_SAMPLING, 4));
  });
});

describe('rolloutSequence', () => {
  it('places the target at index i on position i − 1', () => {
    const { weights, objective } = rolloutSequence({
      tokens: [7, 8, 9, 10, 11],
      targetStart: 3,
      weights: [1, 2],
      advantage: 1,
      oldLogprobs: [-1, -2],
      refLogprobs: null,
      sampling: RAW_SAMPLING,
    });
    expect(weights).toEqual([0, 0, 1, 2]);
    expect(objective).toMatchObject({ oldLogprobs: [0, 0, -1, -2], refLogprobs: null });
  });
});

describe('trainStep', () => {
  it('applies AdamW to the gradients of the batch', () => {
    const { config, params, batch } = example(22, false);
    const state = initialAdamwState(params);
    const step = trainStep(config, params, state, batch, HYPER);
    const { gradients } = batchGradients(config, params, batch, HYPER.grpo);
    const expected = adamwStep(paramLayout(config, Infinity).tensors, params, gradients, state, HYPER.adamw);
    expect(step).toMatchObject(expected);
    expect(step.params.get('layer0.qkv')).not.toEqual(params.get('layer0.qkv'));
  });

  it('learns a supervised sequence', () => {
    const { config, params } = example(23, true);
    const batch: TrainSequence[] = [
      { tokens: [3, 1, 4, 1, 5], weights: [0.25, 0.25, 0.25, 0.25], objective: { kind: 'supervised' } },
    ];
    let current = { params, state: initialAdamwState(params) };
    const losses: number[] = [];
    for (let i = 0; i < 40; i++) {
      const step = trainStep(config, current.params, current.state, batch, HYPER);
      losses.push(step.loss);
      current = step;
    }
    expect(losses[39]).toBeLessThan(0.1 * (losses[0] ?? 0));
    expect(current.state.step).toBe(40);
  });

  it('makes a rewarded rollout likelier than its unrewarded sibling', () => {
    const { config, params } = example(21, false);
    const sampling = RAW_SAMPLING;
    const prompt = [2, 9];
    const answers = [
      [5, 6],
      [7, 8],
    ];
    const logprobsOf = (weights: Params, answer: number[]) => {
      const { logits } = forward(config, weights, [...prompt, ...answer]);
      return answer.map((token, i) => {
        const start = (prompt.length + i - 1) * config.vocabSize;
        return logprobForced(logits.subarray(start, start + config.vocabSize), sampling, token);
      });
    };
    const advantages = groupAdvantages([1, 0], 'std');
    const batch = answers.map((answer, i) => {
      const oldLogprobs = logprobsOf(params, answer);
      const tokens = [...prompt, ...answer];
      const advantage = advantages[i] ?? NaN;
      return rolloutSequence({
        tokens,
        targetStart: 2,
        weights: [0.25, 0.25],
        advantage,
        oldLogprobs,
        refLogprobs: oldLogprobs,
        sampling,
      });
    });
    const step = trainStep(config, params, initialAdamwState(params), batch, HYPER);
    expect(
      step.metrics
        .flat()
        .filter((token) => token !== null)
        .every((token) => token.ratio === 1),
    ).toBe(true);
    const gain = answers.map((answer) => {
      const total = (weights: Params) => logprobsOf(weights, answer).reduce((a, b) => a + b);
      return total(step.params) - total(params);
    });
    expect(gain[0]).toBeGreaterThan(0);
    expect(gain[1]).toBeLessThan(0);
  });
});
