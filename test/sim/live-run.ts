import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Random } from '#src/lib/prng.js';
import { policyNamed } from '#src/scheduler/policies/index.js';
import type { SimOutcome } from '#src/sim/outcome.js';
import { profileNamed } from '#src/sim/profiles.js';
import type { RecordedRollout } from '#src/sim/scenario.js';
import { simulate } from '#src/sim/simulate.js';
import { Trace } from '#src/telemetry/trace.js';
import { job, scenario } from './scenarios.js';

export const STEPS = 6;

/** A run of which all is known: what it took, and the costs that it was made with. */
export interface RecordedRun {
  readonly outcome: SimOutcome;
  readonly recorded: readonly RecordedRollout[];
}

/** Training takes 60 ms and 0.5 ms a token; decoding, twice the base profile's time. */
export async function recordedRun(): Promise<RecordedRun> {
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
  const outcome = await simulate(scenario([spec], { costs }), policyNamed('priority'));
  return { outcome, recorded };
}

const jsonl = (records: readonly object[]) => records.map((record) => `${JSON.stringify(record)}\n`).join('');

/** The files of a run that took what a simulation of it says, as a live run writes them. */
export function writeRun(folder: string, { outcome, recorded }: RecordedRun): void {
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
