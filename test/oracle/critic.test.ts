import { describe, expect, it } from 'vitest';
import { at } from '#src/lib/assert.js';
import { Random } from '#src/lib/prng.js';
import { expectClose } from './compare.js';
import { criticGradients, criticValues, valueLoss } from './critic.js';
import { awkwardConfig, numericGradient, randomParams, randomTokens, randomVector } from './fixtures.js';

describe('valueLoss', () => {
  // The clip is 1 around an old value of 0, the weight 2.
  it.each([
    { value: 0.5, wanted: 2, loss: 2.25, slope: -3, clipped: false },
    // Past the clip towards the return: the clipped square is larger and has no slope.
    { value: 1.5, wanted: 2, loss: 1, slope: 0, clipped: true },
    // Past the clip away from the return: the free square is larger and pulls back.
    { value: -1.5, wanted: 2, loss: 12.25, slope: -7, clipped: false },
    { value: -1.5, wanted: -3, loss: 4, slope: 0, clipped: true },
    { value: 3, wanted: 3, loss: 4, slope: 0, clipped: true },
  ])('of $value for $wanted is $loss', ({ value, wanted, loss, slope, clipped }) => {
    expect(valueLoss(value, { weight: 2, wanted, oldValue: 0 }, 1)).toEqual({ loss, slope, clipped });
  });

  it('without a clip is half the square', () => {
    const target = { weight: 1, wanted: 5, oldValue: -100 };
    expect(valueLoss(3, target, Infinity)).toEqual({ loss: 2, slope: -2, clipped: false });
  });
});

it.each([21, 22])('gradients agree with finite differences in every parameter (seed %i)', (seed) => {
  const random = new Random(seed);
  const config = awkwardConfig(random, true);
  const params = randomParams(config, random)
    .set('valueHead', randomVector(random, config.hiddenSize))
    .set('valueBias', Float64Array.of(0.3));
  const clip = 0.2;
  const batch = [5, 3].map((length) => {
    const tokens = randomTokens(random, length, config.vocabSize);
    // Away from the clip's corners, where there is no derivative to measure.
    const oldValues = criticValues(config, params, tokens).map(
      (value) => value + random.pick([0, 0.1, 0.5, -0.5]),
    );
    const weights = Float64Array.from(tokens, (_, t) => (t + 1 === length ? 0 : random.uniform()));
    return { tokens, weights, oldValues, returns: oldValues.map((value) => value + random.normal()) };
  });
  const { gradients } = criticGradients(config, params, batch, clip);
  expect([...gradients.keys()].sort()).toEqual([...params.keys()].sort());
  for (const [name, tensor] of params) {
    const numeric = numericGradient(tensor, () => criticGradients(config, params, batch, clip).loss);
    expectClose(gradients.get(name) ?? [], numeric, 1e-6, `seed ${seed}: gradient of ${name}`);
  }
});

it('a value depends on no later token', () => {
  const random = new Random(23);
  const config = awkwardConfig(random, true);
  const params = randomParams(config, random)
    .set('valueHead', randomVector(random, config.hiddenSize))
    .set('valueBias', new Float64Array(1));
  const before = criticValues(config, params, [1, 2, 3]);
  const after = criticValues(config, params, [1, 2, 4]);
  expect(after.subarray(0, 2)).toEqual(before.subarray(0, 2));
  expect(at(after, 2)).not.toBe(at(before, 2));
});
