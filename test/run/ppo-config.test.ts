import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { formatConfig, resolveConfig } from '#src/run/config.js';

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'offbeat-ppo-config-'));
});
afterAll(() => rmSync(folder, { recursive: true }));

const PPO = 'algorithm.name=ppo';

test('GRPO is the default, and PPO has every key beside its name', () => {
  expect(resolveConfig().algorithm.name).toBe('grpo');
  const { algorithm, critic } = resolveConfig({ set: [PPO] });
  expect(algorithm).toMatchObject({ name: 'ppo', gamma: 1, gaeLambda: 1 });
  expect(critic).toEqual({ learningRate: 1e-3, cliprangeValue: 0.5, warmupSteps: 0, epochs: 1 });
});

test('a critic that is configured is written down and read again', () => {
  const set = [
    PPO,
    'algorithm.gamma=0.99',
    'algorithm.gae_lambda=0.9',
    'critic.learning_rate=2e-4',
    'critic.cliprange_value=0.2',
    'critic.warmup_steps=3',
    'critic.epochs=4',
    'rollout.samples_per_prompt=1',
  ];
  const config = resolveConfig({ set });
  expect(config.algorithm).toMatchObject({ gamma: 0.99, gaeLambda: 0.9 });
  expect(config.critic).toEqual({ learningRate: 2e-4, cliprangeValue: 0.2, warmupSteps: 3, epochs: 4 });
  const file = join(folder, 'config.toml');
  writeFileSync(file, formatConfig(config));
  expect(resolveConfig({ file })).toEqual(config);
});

test.each([
  [['algorithm.name=reinforce'], '--set algorithm.name=reinforce: must be "grpo" or "ppo"'],
  [[PPO, 'algorithm.gamma=1.5'], '--set algorithm.gamma=1.5: must be a number from 0 to 1'],
  [[PPO, 'critic.cliprange_value=0'], '--set critic.cliprange_value=0: must be a number above 0'],
  [[PPO, 'critic.epochs=0'], '--set critic.epochs=0: must be a whole number from 1 to 64'],
  [
    [PPO, 'algorithm.advantage=mean'],
    'algorithm.advantage is "mean" and algorithm.name is "ppo": PPO has its advantages from the critic',
  ],
  [
    [PPO, 'steps=5', 'critic.warmup_steps=5'],
    'critic.warmup_steps is 5 and steps is 5: the policy would never be trained: raise steps or lower',
  ],
  [
    ['critic.learning_rate=0.01'],
    'critic.learning_rate is 0.01 and algorithm.name is "grpo": only PPO has a critic: set algorithm.name to "ppo" or leave critic.learning_rate out',
  ],
  [
    ['rollout.samples_per_prompt=1'],
    'rollout.samples_per_prompt is 1 and algorithm.name is "grpo": a group of one has nothing to be compared with',
  ],
])('%j is refused', (set, expected) => {
  expect(() => resolveConfig({ set })).toThrow(expected);
});
