import { describe, expect, it } from 'vitest';
import type { ModelConfig } from '#src/model/config.js';
import { findTensor, paramLayout, tensorView } from '#src/model/layout.js';
import { randomWeights } from '#src/model/random-weights.js';
import { AWKWARD } from './fixtures.js';

const CONFIG: ModelConfig = { ...AWKWARD, hiddenSize: 120, intermediateSize: 300, layers: 3, vocabSize: 999 };
const LAYOUT = paramLayout(CONFIG, 2 ** 24);

function tensor(name: string, seed = 1): Float32Array {
  return tensorView(randomWeights(CONFIG, LAYOUT, seed), findTensor(LAYOUT, name));
}

/** Mean, deviation and fourth moment over the square of the second: 0, σ and 3 for a normal distribution. */
function moments(values: Float32Array): { mean: number; deviation: number; kurtosis: number } {
  const average = (power: number) => values.reduce((sum, value) => sum + value ** power, 0) / values.length;
  return { mean: average(1), deviation: Math.sqrt(average(2)), kurtosis: average(4) / average(2) ** 2 };
}

describe('random weights', () => {
  it.each([
    ['embedding', 0.02],
    ['head', 0.02],
    ['layer2.gateUp', 0.02],
    ['layer1.attentionOut', 0.02 / Math.sqrt(6)],
    ['layer0.down', 0.02 / Math.sqrt(6)],
  ])('%s is normal with deviation %f', (name, deviation) => {
    const values = tensor(name);
    const found = moments(values);
    // Five standard errors of each estimate, for the number of draws there are.
    const bound = 5 / Math.sqrt(values.length);
    expect(Math.abs(found.mean) / deviation).toBeLessThan(bound);
    expect(Math.abs(found.deviation / deviation - 1)).toBeLessThan(bound / Math.SQRT2);
    expect(Math.abs(found.kurtosis - 3)).toBeLessThan(bound * Math.sqrt(24));
  });

  it('draws neighbours independently, both halves of each pair and the two rows of a column', () => {
    const values = tensor('embedding');
    for (const lag of [1, 2, CONFIG.hiddenSize]) {
      let sum = 0;
      for (let index = lag; index < values.length; index++)
        sum += (values[index] ?? 0) * (values[index - lag] ?? 0);
      expect(Math.abs(sum / values.length / 0.02 ** 2)).toBeLessThan(5 / Math.sqrt(values.length));
    }
  });

  it('starts every norm gain at one', () => {
    for (const name of ['layer0.attentionNorm', 'layer2.mlpNorm', 'finalNorm']) {
      expect(tensor(name)).toEqual(new Float32Array(CONFIG.hiddenSize).fill(1));
    }
  });

  it('depends on seed and tensor, not on how the buckets are cut', () => {
    const small = paramLayout(CONFIG, 2 ** 19);
    expect(small.bucketElements.length).toBeGreaterThan(LAYOUT.bucketElements.length);
    const [few, many] = [randomWeights(CONFIG, LAYOUT, 7), randomWeights(CONFIG, small, 7)];
    for (const placed of LAYOUT.tensors) {
      const { name } = placed;
      expect(tensorView(many, findTensor(small, name)), name).toEqual(tensorView(few, placed));
    }
    expect(tensor('embedding', 8)).not.toEqual(tensor('embedding', 7));
    expect(tensor('layer1.qkv')).not.toEqual(tensor('layer0.qkv'));
  });
});
