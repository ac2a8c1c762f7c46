import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { Random } from '#src/lib/prng.js';
import { policyNamed } from '#src/scheduler/policies/index.js';
import { compareWithRun, scenarioOfRun } from '#src/sim/against.js';
import { calibrate, fit } from '#src/sim/calibrate.js';
import type { SimOutcome } from '#src/sim/outcome.js';
import { profileNamed, PROFILES } from '#src/sim/profiles.js';
import type { RecordedRollout } from '#src/sim/scenario.js';
import { simulate } from '#src/sim/simulate.js';
import { Trace } from '#src/telemetry/trace.js';
import { job, scenario } from './scenarios.js';

const priority = policyNamed('priority');

let folder = '';
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'offbeat-sim-'));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

const STEPS = 6;
const jsonl = (records: readonly object[]) => records.map((record) => `${JSON.stringify(record)}\n`).join('');

/** The files of a run that took what a simulation of it says, as a live run writes them. */
function writeRun(outcome: SimOutcome, recorded: readonly RecordedRollout[]): void {
  const trace = new Trace({ startMs: 0, eventsMax: 10_000 });
  for (const { kind, fromMs, toMs } of outcome.timeline.spans) {
    if (kind === 'generation') {
      // Two slices with the host's pause between them.
      const middle = fromMs + (toMs - fromMs) / 2;
      const track = trace.track('lane 0 — test', 'engine');
      const pauseMs = Math.min(1, (toMs - fromMs) / 10);
      trace.complete(track, 'engine', fromMs, middle - fromMs - pauseMs);
      trace.complete(track, 'engine', middle, toMs - middle);
    } else trace.complete(trace.track('scheduler', kind), 'granted', fromMs, toMs - fromMs);
  }
  for (const ms of outcome.yieldMs) {
    trace.complete(trace.track('lane 0 — test', 'preemptions'), 'time to yield', 1000, ms);
  }
  writeFileSync(join(folder, 'trace.json'), [...trace.chunks()].join(''));
  const perStep = recorded.length / STEPS;
  const lines = recorded.map(({ promptTokens, tokens, isFiltered }, index) => ({
    step: 1 + Math.floor(index / perStep),
    prompt_token_ids: Array<number>(promptTokens).fill(1),
    token_ids: Array<number>(tokens).fill(2),
    fate: isFiltered ? 'filtered' : 'trained',
  }));
  writeFileSync(join(folder, 'rollouts.jsonl'), jsonl(lines));
  const ends = outcome.timeline.spans.filter(({ kind }) => kind === 'actorTraining').map(({ toMs }) => toMs);
  const firstMs = outcome.timeline.spans.find(({ kind }) => kind === 'generation')?.fromMs ?? 0;
  const metrics = ends.map((endMs, index) => ({
    step: index + 1,
    time_s: endMs / 1000,
    'time/step_s': (endMs - (ends[index - 1] ?? firstMs)) / 1000,
  }));
  writeFileSync(join(folder, 'metrics.jsonl'), jsonl(metrics));
  const config = [
    ['[rollout]', 'prompts_per_step = 4', `samples_per_prompt = ${perStep / 4}`],
    ['[algorithm]', 'kl_coefficient = 0.0', 'staleness_versions_max = 0', 'old_log_probs = "recorded"'],
    ['[engine]', 'slots = 64', 'batch_tokens = 512', '[lanes]', 'count = 1', ''],
  ];
  writeFileSync(join(folder, 'config.toml'), config.flat().join('\n'));
}

describe('calibrate', () => {
  it('finds the costs a run was made with, and predicts it', async () => {
    const random = new Random(3);
    const recorded = Array.from({ length: STEPS * 16 }, (_, index) => ({
      promptTokens: random.int(5, 9),
      tokens: random.int(10, 40),
      isFiltered: Math.floor(index / 4) % 5 === 0,
    }));
    const base = profileNamed('llvmpipe-2-cores');
    const decode = { stepMs: 5, rowMs: 0.24, prefillRowMs: 0.2, batchRows: 512 };
    const costs = { ...base, decode, train: { ms: 60, msPerUnit: 0.5 }, yieldMs: [2, 3], resumeMs: 0 };
    const spec = job('main', { recorded, steps: STEPS, groupsPerStep: 4, groupSize: 4, slotsMax: 64 });
    const outcome = await simulate(scenario([spec], { costs }), priority);
    expect(outcome.ended).toBe('done');
    writeRun(outcome, recorded);
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
