import { describe, expect, it } from 'vitest';
import { at } from '#src/lib/assert.js';
import { Random } from '#src/lib/prng.js';
import { gae } from '#src/train/gae.js';

describe('gae', () => {
  it('is the sum worked out by hand', () => {
    // δ = (1 + ½·2 − 1, 0 + ½·4 − 2, 2 + 0 − 4) = (1, 0, −2), each later one weighing ½·½.
    const { advantages, returns } = gae([1, 0, 2], [1, 2, 4], 0.5, 0.5);
    expect([...advantages]).toEqual([0.875, -0.5, -2]);
    expect([...returns]).toEqual([1.875, 1.5, 2]);
  });

  it('goes on from the value of a state after the last where an episode was cut short', () => {
    // δ = (1 + ½·2 − 1, 0 + ½·8 − 2) = (1, 2).
    const { advantages, returns } = gae([1, 0], [1, 2], 0.5, 0.5, 8);
    expect([...advantages]).toEqual([1.5, 2]);
    expect([...returns]).toEqual([2.5, 4]);
  });

  it('with lambda 0 looks one step ahead, with lambda 1 to the end', () => {
    const [rewards, values] = [
      [0, 0, 1],
      [0.25, 0.5, 0.75],
    ];
    expect([...gae(rewards, values, 1, 0).advantages]).toEqual([0.25, 0.25, 0.25]);
    expect([...gae(rewards, values, 1, 1).advantages]).toEqual([0.75, 0.5, 0.25]);
    // The only reward comes last: every return is it.
    expect([...gae(rewards, values, 1, 1).returns]).toEqual([1, 1, 1]);
    expect([...gae(rewards, values, 0, 1).advantages]).toEqual([-0.25, -0.5, 0.25]);
  });

  it('of nothing is nothing, and lists of different lengths are a bug', () => {
    expect(gae([], [], 1, 1)).toEqual({ advantages: new Float64Array(0), returns: new Float64Array(0) });
    expect(() => gae([1], [], 1, 1)).toThrow('1 rewards and 0 values');
    expect(() => gae([1], [1], 1.5, 1)).toThrow('gamma 1.5');
  });

  it.each([1, 2, 3])(
    'is Σ (gamma · lambda)^k · δ, and has no bias where values are right (seed %i)',
    (seed) => {
      const random = new Random(seed);
      const count = random.int(1, 30);
      const [gamma, lambda] = [random.uniform(), random.uniform()];
      const rewards = Array.from({ length: count }, () => random.normal());
      const values = rewards.map(() => random.normal());
      const { advantages } = gae(rewards, values, gamma, lambda);
      const deltas = rewards.map((reward, t) => reward + gamma * (values[t + 1] ?? 0) - at(values, t));
      advantages.forEach((advantage, t) => {
        const sum = deltas.slice(t).reduce((total, delta, k) => total + (gamma * lambda) ** k * delta, 0);
        expect(advantage, `seed ${seed}, step ${t}`).toBeCloseTo(sum, 12);
      });
      const right = gae(rewards, [...gae(rewards, values, gamma, 1).returns], gamma, lambda);
      right.advantages.forEach((advantage) => expect(advantage, `seed ${seed}`).toBeCloseTo(0, 12));
    },
  );
});
