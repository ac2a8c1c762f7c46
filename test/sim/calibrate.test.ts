import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { policyNamed } from '#src/scheduler/policies/index.js';
import { compareWithRun, scenarioOfRun } from '#src/sim/against.js';
import { calibrate, fit } from '#src/sim/calibrate.js';
import { profileNamed, PROFILES } from '#src/sim/profiles.js';
import { recordedRun, STEPS, writeRun } from './live-run.js';

const priority = policyNamed('priority');

let folder = '';
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'offbeat-sim-'));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

describe('calibrate', () => {
  it('finds the costs a run was made with, and predicts it', async () => {
    const run = await recordedRun();
    expect(run.outcome.ended).toBe('done');
    writeRun(folder, run);
    const model = calibrate(folder);
    expect(model.train.ms).toBeCloseTo(60, 3);
    expect(model.train.msPerUnit).toBeCloseTo(0.5, 5);
    // What the base profile says, times two: the engine's steps are counted, not known.
    expect(model.decode.stepMs / 5).toBeGreaterThan(0.9);
    expect(model.decode.stepMs / 5).toBeLessThan(1.1);
    expect(model.decode.rowMs / model.decode.stepMs).toBeCloseTo(0.24 / 5, 6);
    const { error, measuredMs } = await compareWithRun(folder, priority);
    expect(measuredMs).toBeGreaterThan(1000);
    expect(Math.abs(error)).toBeLessThan(0.02);
    expect(scenarioOfRun(folder).jobs[0]).toMatchObject({ steps: STEPS, groupSize: 4 });
  });

  it('can be calibrated by, but not played again, with rollouts whose lengths nobody knows', async () => {
    writeRun(folder, await recordedRun());
    const file = join(folder, 'rollouts.jsonl');
    writeFileSync(file, readFileSync(file, 'utf8').replace('"filtered"', '"aborted"'));
    expect(calibrate(folder).train.ms).toBeGreaterThan(0);
    expect(() => scenarioOfRun(folder)).toThrow(
      / has aborted rollouts, .* under another policy than tailBatch$/,
    );
  });

  it('says in one line what is missing', () => {
    expect(() => calibrate(folder)).toThrow(/config\.toml cannot be used .* name the folder of a finished/);
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
