import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { parse } from 'smol-toml';
import { z } from 'zod';
import { errorText, UserError } from '../lib/errors.js';

/** A stretch of a run's trace, in ms since the run began. */
export interface TraceSpan {
  readonly process: string;
  readonly thread: string;
  readonly name: string;
  readonly fromMs: number;
  readonly ms: number;
  /** Of weights on their way; 0 for everything else. */
  readonly bytes: number;
}

/** A rollout of a training step. */
export interface RunRollout {
  readonly step: number;
  readonly promptTokens: number;
  readonly tokens: number;
  readonly isTrained: boolean;
  readonly isFiltered: boolean;
  /** Ended early: nobody knows how long it would have become. */
  readonly isAborted: boolean;
}

/** What a live run has left in its folder, as far as a simulation of it needs it. */
export interface RunFiles {
  readonly spans: readonly TraceSpan[];
  readonly rollouts: readonly RunRollout[];
  readonly steps: readonly { readonly step: number; readonly endMs: number; readonly stepMs: number }[];
  readonly promptsPerStep: number;
  readonly samplesPerPrompt: number;
  readonly stalenessVersionsMax: number;
  readonly usesReference: boolean;
  readonly recomputesLogProbs: boolean;
  readonly slots: number;
  readonly batchRows: number;
  readonly lanes: number;
}

const traceSchema = z.object({
  traceEvents: z.array(
    z.object({
      ph: z.string(),
      name: z.string(),
      pid: z.number(),
      tid: z.number(),
      ts: z.number().optional(),
      dur: z.number().optional(),
      args: z.record(z.string(), z.unknown()).optional(),
    }),
  ),
});
const rolloutSchema = z.object({
  step: z.number(),
  prompt_token_ids: z.array(z.number()),
  token_ids: z.array(z.number()),
  fate: z.string(),
});
const stepSchema = z.object({ step: z.number(), time_s: z.number(), 'time/step_s': z.number().optional() });
const configSchema = z.object({
  rollout: z.object({ prompts_per_step: z.number(), samples_per_prompt: z.number() }),
  algorithm: z.object({
    kl_coefficient: z.number(),
    staleness_versions_max: z.number(),
    old_log_probs: z.string(),
  }),
  engine: z.object({ slots: z.number(), batch_tokens: z.number() }),
  lanes: z.object({ count: z.number() }),
});

/** @throws UserError when a file is missing or is not what a run writes. */
export function readRunFiles(folder: string): RunFiles {
  const config = checked(folder, 'config.toml', (text) => configSchema.parse(parse(text)));
  const rollouts = checked(folder, 'rollouts.jsonl', (text) => {
    return linesOf(text).map((line): RunRollout => {
      const { step, prompt_token_ids: prompt, token_ids: tokens, fate } = rolloutSchema.parse(line);
      return {
        step,
        promptTokens: prompt.length,
        tokens: tokens.length,
        isTrained: fate === 'trained',
        isFiltered: fate === 'filtered',
        isAborted: fate === 'aborted',
      };
    });
  });
  const steps = checked(folder, 'metrics.jsonl', (text) => {
    return linesOf(text).flatMap((line) => {
      const { step, time_s: seconds, 'time/step_s': stepSeconds } = stepSchema.parse(line);
      if (step === 0 || stepSeconds === undefined) return [];
      return [{ step, endMs: seconds * 1000, stepMs: stepSeconds * 1000 }];
    });
  });
  const { engine, lanes, rollout, algorithm } = config;
  return {
    spans: checked(folder, 'trace.json', spansOf),
    rollouts,
    steps,
    promptsPerStep: rollout.prompts_per_step,
    samplesPerPrompt: rollout.samples_per_prompt,
    stalenessVersionsMax: algorithm.staleness_versions_max,
    usesReference: algorithm.kl_coefficient > 0,
    recomputesLogProbs: algorithm.old_log_probs === 'recomputed',
    slots: engine.slots,
    batchRows: engine.batch_tokens,
    lanes: lanes.count,
  };
}

/** Bytes of a version of the weights, by what was pulled or published; 0 when neither crossed the host. */
export function weightBytes({ spans }: RunFiles): number {
  return spans.reduce((most, { thread, bytes }) => (thread === 'weights' ? Math.max(most, bytes) : most), 0);
}

function spansOf(text: string): TraceSpan[] {
  const { traceEvents } = traceSchema.parse(JSON.parse(text));
  const processes = new Map<number, string>();
  const threads = new Map<string, string>();
  for (const { ph, name, pid, tid, args } of traceEvents) {
    if (ph !== 'M' || typeof args?.['name'] !== 'string') continue;
    if (name === 'process_name') processes.set(pid, args['name']);
    if (name === 'thread_name') threads.set(`${pid} ${tid}`, args['name']);
  }
  return traceEvents.flatMap(({ ph, name, pid, tid, ts, dur, args }) => {
    if (ph !== 'X' || ts === undefined || dur === undefined) return [];
    const bytes = args?.['bytes'];
    const where = { process: processes.get(pid) ?? '', thread: threads.get(`${pid} ${tid}`) ?? '' };
    return [
      { ...where, name, fromMs: ts / 1000, ms: dur / 1000, bytes: typeof bytes === 'number' ? bytes : 0 },
    ];
  });
}

function linesOf(text: string): unknown[] {
  return text
    .split('\n')
    .filter((line) => line !== '')
    .map((line): unknown => JSON.parse(line));
}

function checked<T>(folder: string, name: string, read: (text: string) => T): T {
  const path = join(folder, name);
  try {
    return read(readFileSync(path, 'utf8'));
  } catch (error) {
    const [why = ''] = errorText(error).split('\n');
    throw new UserError(`${path} cannot be used (${why}): name the folder of a finished \`offbeat run\``);
  }
}
