import { expect, test } from 'vitest';
import { at } from '#src/lib/assert.js';
import { Random } from '#src/lib/prng.js';
import { type Episode, ppoEstimates } from '#src/run/ppo-advantages.js';
import { seeds } from '../helpers/seeds.js';

/** Positions with a weight are not all neighbours: what lies between them was not sampled. */
function randomEpisode(random: Random): Episode {
  const length = random.int(3, 20);
  const weights = new Float32Array(length).map(() => (random.uniform() < 0.6 ? random.uniform() : 0));
  weights[random.int(0, length - 2)] = 0.5;
  weights[length - 1] = 0;
  const values = new Float32Array(length).map(() => random.normal());
  return { weights, values, reward: random.normal() };
}

const stepsOf = ({ weights }: Episode): number[] =>
  [...weights.keys()].filter((position) => weights[position] !== 0);
const mean = (numbers: readonly number[]): number => numbers.reduce((a, b) => a + b, 0) / numbers.length;

/** From its definition: the sum of what each later step surprised by. */
function advantageAt(episode: Episode, from: number, gamma: number, lambda: number): number {
  const steps = stepsOf(episode);
  let sum = 0;
  for (let step = from; step < steps.length; step++) {
    const isLast = step + 1 === steps.length;
    const next = isLast ? episode.reward : gamma * at(episode.values, at(steps, step + 1));
    sum += (gamma * lambda) ** (step - from) * (next - at(episode.values, at(steps, step)));
  }
  return sum;
}

test.each(seeds())('estimates are those of the definition over the masked positions, seed %i', (seed) => {
  const random = new Random(seed).fork('ppo advantages');
  for (let i = 0; i < 50; i++) {
    const label = `seed ${seed}, batch ${i}`;
    const episodes = Array.from({ length: random.int(2, 6) }, () => randomEpisode(random));
    const [gamma, lambda] = [random.uniform(), random.uniform()];
    const estimates = ppoEstimates(episodes, gamma, lambda);
    const wanted = episodes.map((episode) =>
      stepsOf(episode).map((_, step) => advantageAt(episode, step, gamma, lambda)),
    );
    const all = wanted.flat();
    const deviation = Math.sqrt(mean(all.map((advantage) => (advantage - mean(all)) ** 2)) + 1e-8);
    episodes.forEach((episode, e) => {
      const steps = stepsOf(episode);
      episode.weights.forEach((_, position) => {
        const step = steps.indexOf(position);
        const raw = step < 0 ? 0 : at(at(wanted, e), step);
        const whitened = step < 0 ? 0 : (raw - mean(all)) / deviation;
        const expected = step < 0 ? 0 : raw + at(episode.values, position);
        expect(at(at(estimates.advantages, e), position), label).toBeCloseTo(whitened, 4);
        expect(at(at(estimates.returns, e), position), label).toBeCloseTo(expected, 4);
      });
    });
    expect(estimates.means.advantage, label).toBeCloseTo(mean(all), 8);
  }
});

test('with lambda and gamma 1 every return is the reward, and values that knew it explain all', () => {
  const weights = Float32Array.of(0, 1, 1, 0);
  const episodes = [1, 0, 1].map((reward) => ({
    weights,
    values: Float32Array.of(9, reward, reward, 9),
    reward,
  }));
  const estimates = ppoEstimates(episodes, 1, 1);
  expect(estimates.returns.map((list) => [...list])).toEqual([
    [0, 1, 1, 0],
    [0, 0, 0, 0],
    [0, 1, 1, 0],
  ]);
  expect(estimates.explainedVariance).toBe(1);
  expect(estimates.means).toEqual({ advantage: 0, value: 2 / 3, return: 2 / 3 });
  for (const list of estimates.advantages) expect([...list].every((advantage) => advantage === 0)).toBe(true);
});

test('where nothing varies nothing is explained and nothing blows up', () => {
  const episode = { weights: Float32Array.of(1, 1, 0), values: new Float32Array(3), reward: 1 };
  const { explainedVariance, advantages } = ppoEstimates([episode, episode], 1, 1);
  expect(explainedVariance).toBeNull();
  expect(advantages.map((list) => [...list])).toEqual([
    [0, 0, 0],
    [0, 0, 0],
  ]);
});
