import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it, test } from 'vitest';
import { policyNamed } from '#src/scheduler/policies/index.js';
import { compareWithRun } from '#src/sim/against.js';
import { calibrate } from '#src/sim/calibrate.js';
import { fit } from '#src/sim/fit.js';
import { profileNamed, PROFILES } from '#src/sim/profiles.js';
import { readRunFiles } from '#src/sim/run-files.js';
import { recordedRun, recordedRunOfTwo, STEPS, writeRun } from './live-run.js';

const priority = policyNamed('priority');

let folder = '';
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'offbeat-sim-'));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

describe('a run of one job', () => {
  it('tells the costs it was made with, and is predicted', async () => {
    const run = await recordedRun();
    expect(run.outcome.ended).toBe('done');
    writeRun(folder, run);
    const { costs, jobs } = await calibrate(folder);
    expect(costs.train.ms).toBeCloseTo(60, 2);
    expect(costs.train.msPerUnit).toBeCloseTo(0.5, 4);
    // What the base profile says, times two: the engine's steps are counted, not known.
    expect(costs.decode.stepMs / 5).toBeCloseTo(1, 2);
    expect(costs.decode.rowMs / costs.decode.stepMs).toBeCloseTo(0.24 / 5, 6);
    expect(costs.wake.ms).toBeCloseTo(204.48, 1);
    expect(jobs).toMatchObject([{ id: 'main', computeScale: 1 }]);
    const { error, measuredMs } = await compareWithRun(folder, priority);
    expect(measuredMs).toBeGreaterThan(1000);
    expect(Math.abs(error)).toBeLessThan(0.005);
  });

  it('of PPO has its stages, its first steps and its evaluations', async () => {
    const stages = ['valueCompute', 'oldLogProbs', 'refLogProbs', 'criticTraining', 'actorTraining'] as const;
    const evaluation = {
      prompts: 5,
      everySteps: 2,
      recorded: [{ promptTokens: 6, tokens: 50, isFiltered: false }],
    };
    const run = await recordedRun({ stages, criticEpochs: 2, criticSteps: 1, evaluation });
    const { job: id } = run.outcome.timeline.stages[0] ?? {};
    const count = (stage: string): number =>
      run.outcome.timeline.stages.filter((record) => record.stage === stage).length;
    expect([id, count('valueCompute'), count('criticTraining')]).toEqual(['main', STEPS, STEPS]);
    expect([count('oldLogProbs'), count('actorTraining')]).toEqual([STEPS - 1, STEPS - 1]);
    // Before the first step, after the second, the fourth and the last.
    expect(run.outcome.jobs[0]?.tokens.served).toBe(4 * 5 * 50);
    writeRun(folder, run);
    const { jobs } = await calibrate(folder);
    expect(jobs[0]?.stageCosts.criticTraining?.ms).toBeCloseTo(120, 2);
    expect(jobs[0]?.stageCosts.criticTraining?.msPerUnit).toBeCloseTo(1, 4);
    expect(jobs[0]?.stageCosts.refLogProbs?.msPerUnit).toBeCloseTo(0.1, 4);
    const { error } = await compareWithRun(folder, priority);
    // Lengths of held-out rollouts are guessed, only their sum is known.
    expect(Math.abs(error)).toBeLessThan(0.05);
  });
});

describe('a run of several jobs', () => {
  it.each(['priority', 'roundRobin'])('is read whole, and each job predicted, under %s', async (name) => {
    const run = await recordedRunOfTwo(name);
    expect(run.outcome.ended).toBe('done');
    writeRun(folder, run);
    const files = readRunFiles(folder);
    expect(files.jobs.map(({ id, arrivesMs, steps }) => [id, arrivesMs, steps.length])).toEqual([
      ['turns', 0, STEPS],
      ['large', 700, STEPS],
    ]);
    const [wanted] = run.specs;
    const [got] = files.jobs;
    expect(got?.rollouts.map(({ turns }) => turns)).toEqual(wanted?.recorded?.map(({ turns }) => turns));
    expect(got?.rollouts[0]?.rewardMs).toBeCloseTo(7, 6);
    const policy = policyNamed(name);
    const { jobs } = await calibrate(folder, policy);
    expect(jobs[1]?.computeScale).toBeGreaterThan(2.9);
    expect(jobs[1]?.computeScale).toBeLessThan(3.1);
    const comparison = await compareWithRun(folder, policy);
    expect(comparison.jobs.map(({ id }) => id)).toEqual(['turns', 'large']);
    for (const { id, error } of [...comparison.jobs, { id: 'makespan', error: comparison.error }]) {
      expect(Math.abs(error), id).toBeLessThan(0.03);
    }
  });
});

test('a run whose rollouts were ended early can be calibrated by, but not played again', async () => {
  writeRun(folder, await recordedRun());
  const file = join(folder, 'rollouts.jsonl');
  writeFileSync(file, readFileSync(file, 'utf8').replace('"filtered"', '"aborted"'));
  await expect(compareWithRun(folder, priority)).rejects.toThrow(
    / has aborted rollouts, .* under another policy than tailBatch$/,
  );
});

describe('a folder that lacks what is needed', () => {
  test('nothing at all', async () => {
    await expect(calibrate(folder)).rejects.toThrow(
      /config\.toml cannot be used .* name the folder of a finished/,
    );
  });

  test("a job's rollouts", async () => {
    writeRun(folder, await recordedRunOfTwo());
    rmSync(join(folder, 'jobs', 'large', 'rollouts.jsonl'));
    await expect(calibrate(folder)).rejects.toThrow(/jobs\/large\/rollouts\.jsonl cannot be used \(ENOENT/);
  });

  test('a step', async () => {
    writeRun(folder, await recordedRunOfTwo());
    const file = join(folder, 'jobs', 'large', 'rollouts.jsonl');
    const [first = ''] = readFileSync(file, 'utf8').split('\n');
    writeFileSync(file, `${first}\n`);
    await expect(calibrate(folder)).rejects.toThrow(/^job large in .* holds no whole step/);
  });
});

describe('fit', () => {
  it('is least squares, and falls back to a rate where there is nothing to fit a line to', () => {
    expect(fit([1, 2, 3], [12, 14, 16])).toEqual({
      ms: expect.closeTo(10, 9) as number,
      msPerUnit: expect.closeTo(2, 9) as number,
    });
    expect(fit([5, 5], [10, 20])).toEqual({ ms: 0, msPerUnit: 3 });
    // A line would start below zero.
    expect(fit([1, 2], [1, 10]).ms).toBe(0);
  });
});

describe('profiles', () => {
  it('say where they are from; what was not measured says so', () => {
    expect([...PROFILES.keys()]).toEqual(['llvmpipe-2-cores', 'gpu']);
    expect(profileNamed('gpu').source).toContain('hypothetical');
    expect(() => profileNamed('tpu')).toThrow(
      'no cost profile is named "tpu": use one of llvmpipe-2-cores, gpu',
    );
  });
});
