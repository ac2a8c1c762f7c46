import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { parse } from 'smol-toml';
import { z } from 'zod';
import { at } from '../lib/assert.js';
import { errorText, UserError } from '../lib/errors.js';
import { type JobConfig, readRunConfig } from './run-config-file.js';
import { readTrace, rewardKey, type TraceFile } from './run-trace-file.js';
import type { RecordedTurn } from './scenario.js';

/** A rollout that was trained on or could have been. */
export interface RunRollout {
  readonly step: number;
  /** The opening of an episode of several turns included. */
  readonly promptTokens: number;
  readonly tokens: number;
  readonly isTrained: boolean;
  readonly isFiltered: boolean;
  /** Ended early: nobody knows how long it would have become. */
  readonly isAborted: boolean;
  /** Left out of a rollout of one turn. */
  readonly turns?: readonly RecordedTurn[];
  /** From its last token to its reward; null where nobody knows. */
  readonly rewardMs: number | null;
}

/** One job of a run. */
export interface RunJob {
  readonly id: string;
  readonly config: JobConfig;
  /** Since the run began: when it came, and when its last step was told of, a held-out evaluation after it included. */
  readonly arrivesMs: number;
  readonly endMs: number;
  readonly steps: readonly { readonly step: number; readonly endMs: number; readonly stepMs: number }[];
  readonly rollouts: readonly RunRollout[];
  /** All sampled tokens, held-out rollouts included; null where no summary says. */
  readonly tokensDecoded: number | null;
  /** Of one version of its weights; 0 where no summary says. */
  readonly weightBytes: number;
}

/** What a live run has left in its folder, as far as a simulation of it needs it. */
export interface RunFiles extends TraceFile {
  readonly lanes: number;
  readonly sliceMs: number | null;
  readonly jobs: readonly RunJob[];
}

const turnSchema = z.object({
  start: z.number(),
  end: z.number(),
  observation_token_ids: z.array(z.number()),
  environment_ms: z.number().nullable(),
});
const rolloutSchema = z.object({
  id: z.union([z.string(), z.number()]).optional(),
  step: z.number(),
  prompt_token_ids: z.array(z.number()),
  token_ids: z.array(z.number()),
  fate: z.string(),
  episode: z.object({ opening_token_ids: z.array(z.number()), turns: z.array(turnSchema) }).optional(),
});
const stepSchema = z.object({ step: z.number(), time_s: z.number(), 'time/step_s': z.number().optional() });
const jobSummarySchema = z.object({
  tokens: z.object({ decoded: z.number() }),
  weights: z.object({ publishes: z.number(), bytes_broadcast: z.number() }),
});
const summarySchema = z.object({ jobs: z.record(z.string(), z.object({ arrived_s: z.number() })) });

/**
 * Reads the folder of a run of one job (its files beside the trace) or of several (`jobs/ID/` for each).
 *
 * @throws UserError when a file is missing or is not what a run writes.
 */
export function readRunFiles(folder: string): RunFiles {
  const { lanes, jobs, sliceMs } = checked(folder, 'config.toml', (text) => readRunConfig(parse(text)));
  const trace = checked(folder, 'trace.json', readTrace);
  if (jobs.length === 1) {
    const config = at(jobs, 0);
    const asked = trace.spans.filter(({ process, thread }) => process === 'scheduler' && thread === 'init');
    const arrivesMs = asked.reduce((first, { fromMs }) => Math.min(first, fromMs), Infinity);
    return { ...trace, lanes, sliceMs, jobs: [readJob(folder, config, arrivesMs, trace)] };
  }
  const arrived = checked(folder, 'summary.json', (text) => summarySchema.parse(JSON.parse(text))).jobs;
  const known = jobs.flatMap((config) => {
    const own = arrived[config.id];
    // A job that the run ended before it came is in no summary.
    if (own === undefined) return [];
    return [readJob(join(folder, 'jobs', config.id), config, own.arrived_s * 1000, trace)];
  });
  return { ...trace, lanes, sliceMs, jobs: known };
}

/** A resident, stage or event of a job as the trace names it: after the job where the run had several. */
export function traceName({ jobs }: Pick<RunFiles, 'jobs'>, job: RunJob, what: string): string {
  return jobs.length > 1 ? `${job.id} ${what}` : what;
}

function readJob(folder: string, config: JobConfig, askedMs: number, { rewardMs }: TraceFile): RunJob {
  const steps = checked(folder, 'metrics.jsonl', (text) => {
    return linesOf(text).flatMap((line) => {
      const { step, time_s: seconds, 'time/step_s': stepSeconds } = stepSchema.parse(line);
      if (step === 0 || stepSeconds === undefined) return [];
      return [{ step, endMs: seconds * 1000, stepMs: stepSeconds * 1000 }];
    });
  });
  const rollouts = checked(folder, 'rollouts.jsonl', (text) => {
    const rewardOf = (id: string | number | undefined) =>
      id === undefined ? null : (rewardMs.get(rewardKey(config.id, String(id))) ?? null);
    return linesOf(text).map((line) => {
      const record = rolloutSchema.parse(line);
      return rolloutOf(record, rewardOf(record.id));
    });
  });
  const told = optional(folder, 'summary.json', (text) => jobSummarySchema.parse(JSON.parse(text)));
  const sends = (told?.weights.publishes ?? 0) * config.lanes.length;
  const first = steps[0];
  return {
    id: config.id,
    config,
    // A run of one job without its stages on record began with its first step, as far as anybody can tell.
    arrivesMs: Number.isFinite(askedMs) ? askedMs : Math.max(0, (first?.endMs ?? 0) - (first?.stepMs ?? 0)),
    endMs: steps.at(-1)?.endMs ?? 0,
    steps,
    rollouts,
    tokensDecoded: told?.tokens.decoded ?? null,
    weightBytes: sends === 0 ? 0 : (told?.weights.bytes_broadcast ?? 0) / sends,
  };
}

function rolloutOf(record: z.infer<typeof rolloutSchema>, rewardMs: number | null): RunRollout {
  const { step, prompt_token_ids: prompt, token_ids: tokens, fate, episode } = record;
  const own = {
    step,
    isTrained: fate === 'trained',
    isFiltered: fate === 'filtered',
    isAborted: fate === 'aborted',
  };
  const whole = { ...own, promptTokens: prompt.length, tokens: tokens.length, rewardMs };
  if (episode === undefined || episode.turns.length === 0) return whole;
  const last = episode.turns.length - 1;
  const turns = episode.turns.map((turn, i): RecordedTurn => ({
    tokens: Math.max(1, turn.end - turn.start),
    waitMs: i === last ? 0 : (turn.environment_ms ?? 0),
    observationTokens: i === last ? 0 : turn.observation_token_ids.length,
  }));
  return {
    ...whole,
    promptTokens: prompt.length + episode.opening_token_ids.length,
    tokens: turns.reduce((sum, turn) => sum + turn.tokens, 0),
    turns,
    // What the environment says to the last turn comes before the reward.
    rewardMs: (rewardMs ?? 0) + (at(episode.turns, last).environment_ms ?? 0),
  };
}

function linesOf(text: string): unknown[] {
  return text
    .split('\n')
    .filter((line) => line !== '')
    .map((line): unknown => JSON.parse(line));
}

function optional<T>(folder: string, name: string, read: (text: string) => T): T | null {
  try {
    return checked(folder, name, read);
  } catch (error) {
    if (error instanceof UserError) return null;
    throw error;
  }
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
