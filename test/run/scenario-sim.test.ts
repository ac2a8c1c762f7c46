import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { loadScenario } from '#src/run/scenario.js';
import { simSetup, type SimWishes } from '#src/run/scenario-sim.js';
import { policyNamed } from '#src/scheduler/policies/index.js';
import { profileNamed } from '#src/sim/profiles.js';
import { simulate } from '#src/sim/simulate.js';
import { stageMs } from '#src/sim/stage-costs.js';

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'offbeat-scenario-sim-'));
});
afterAll(() => rmSync(folder, { recursive: true }));

const PPO = `
[[job]]
id = "a"
steps = 3
[job.rollout]
prompts_per_step = 2
samples_per_prompt = 2
[job.algorithm]
name = "ppo"
kl_coefficient = 0.1
old_log_probs = "recomputed"
updates_per_step = 2
[job.critic]
epochs = 3
warmup_steps = 1
`;

function setup(toml: string, wishes: SimWishes = {}) {
  const file = join(folder, 'scenario.toml');
  writeFileSync(file, toml);
  return simSetup(loadScenario({ file }).scenario, wishes);
}

describe('a PPO job', () => {
  test('has all its stages in the order of a live run, and the policy none while the critic is warmed up', async () => {
    const { scenario, options } = await setup(PPO);
    const { timeline } = await simulate(scenario, policyNamed('priority'), options);
    const both = ['valueCompute', 'oldLogProbs', 'refLogProbs', 'criticTraining', 'actorTraining'];
    expect(timeline.stages.map(({ stage }) => stage)).toEqual([
      'init',
      'valueCompute',
      'criticTraining',
      ...both,
      ...both,
    ]);
    expect(timeline.versions.filter(({ kind }) => kind === 'publish').map(({ version }) => version)).toEqual([
      1, 2,
    ]);
  });

  test('pays for every update, and the critic for every epoch', async () => {
    const { scenario } = await setup(PPO);
    const [job] = scenario.jobs;
    if (job === undefined) throw new Error('no job');
    const costs = profileNamed('llvmpipe-2-cores');
    const { ms, msPerUnit } = costs.train;
    const gradientMs = 2 * ms + 100 * msPerUnit;
    expect(stageMs(costs, job, 'criticTraining', 100)).toBeCloseTo(3 * gradientMs, 9);
    const publishMs = costs.publish.msPerUnit * job.weightBytes;
    expect(stageMs(costs, job, 'actorTraining', 100)).toBeCloseTo(gradientMs + publishMs, 9);
    const own = { ...job, stageCosts: { valueCompute: { ms: 5, msPerUnit: 2 } } };
    expect(stageMs(costs, own, 'valueCompute', 100)).toBe(205);
  });
});

test('slices are as long as the lanes are told to make them', async () => {
  const { scenario } = await setup(`${PPO}\n[lanes]\nslice_budget_us = 1500\n`);
  expect(scenario.costs.sliceMs).toBe(1.5);
  expect((await setup(PPO)).scenario.costs.sliceMs).toBe(profileNamed('gpu').sliceMs);
});

test('a measured compute scale counts before a guessed one, and a written one before both', async () => {
  const computeScales = new Map([['a', 2.5]]);
  const measured = await setup(PPO, { computeScales });
  expect(measured.scenario.jobs[0]?.computeScale).toBe(2.5);
  expect(measured.assumptions.join()).not.toContain('compute_scale');
  const written = await setup(`${PPO}\n[job.sim]\ncompute_scale = 4\n`, { computeScales });
  expect(written.scenario.jobs[0]?.computeScale).toBe(4);
});
