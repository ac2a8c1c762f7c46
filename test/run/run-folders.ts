import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';
import { METRICS, type MetricsRecord } from '#src/telemetry/metrics.js';

/** What a run folder's files hold, spelt out here and not imported: readers outside depend on these very words. */
const count = z.int().nonnegative();
const quantiles = z.strictObject({
  n: count,
  p50: z.number().nullable(),
  p90: z.number().nullable(),
  p99: z.number().nullable(),
  max: z.number().nullable(),
});
const summarySchema = z.strictObject({
  adapter: z.strictObject({
    vendor: z.string(),
    architecture: z.string(),
    description: z.string().min(1),
    software: z.boolean(),
  }),
  model: z.string().min(1),
  seed: count,
  steps: count,
  reward: z.strictObject({
    first5: z.number().nullable(),
    last5: z.number().nullable(),
    heldout_before: z.number().nullable(),
    heldout_after: z.number().nullable(),
  }),
  tokens: z.strictObject({
    decoded: count,
    trained: count,
    aborted: count,
    expired: count,
    filtered: count,
    in_flight: count,
  }),
  tokens_per_second: z.number().nonnegative(),
  preemption: z.strictObject({
    count,
    time_to_yield_ms: quantiles,
    time_to_yield_device_ms: quantiles,
    bound_ms: z.number().positive().nullable(),
    law_violations: count,
    law_obeyed_share: z.number().min(0).max(1).nullable(),
    law_worst: z
      .strictObject({
        yield_ms: z.number(),
        bound_ms: z.number(),
        kernel: z.string().nullable(),
        predicted_us: z.number().nullable(),
        real_us: z.number().nullable(),
      })
      .nullable(),
    resume_ms: quantiles,
    tokens_recomputed: count,
    kv: z.strictObject({ held: count, spilled: count, dropped: count }),
    hint_idle_ms: z.number().nonnegative(),
    slice_budget_us: z.number().positive(),
    in_flight_budget_us: z.number().positive(),
    largest_dispatch_us: z.number().nonnegative(),
  }),
  weights: z.strictObject({
    publishes: count,
    bytes_sent: count,
    bytes_broadcast: count,
    seconds: z.number().nonnegative(),
  }),
  lanes: z.strictObject({ rebuilt: count, steps_repeated: count }),
  starved_seconds: z.number().nonnegative(),
  wall_seconds: z.number().positive(),
});

const metricsShape = Object.fromEntries(METRICS.map(({ name }) => [name, z.number().optional()]));
const metricsSchema: z.ZodType<MetricsRecord> = z.strictObject({
  step: z.int().positive(),
  time_s: z.number(),
  ...metricsShape,
});

/** Of tasks of several turns only. */
const episodeSchema = z.strictObject({
  opening: z.string(),
  opening_token_ids: z.array(count),
  turns: z.array(
    z.strictObject({
      start: count,
      end: count,
      text: z.string(),
      finish_reason: z.enum(['stop', 'length']).nullable(),
      observation: z.string(),
      observation_token_ids: z.array(count),
      reward: z.number().nullable(),
      environment_ms: z.number().nonnegative().nullable(),
    }),
  ),
  stop_condition: z.enum(['terminated', 'truncated', 'length', 'turns', 'error']).nullable(),
  truncated: z.boolean().nullable(),
  environment_ms: z.number().nonnegative().nullable(),
});

const rolloutSchema = z.strictObject({
  id: z.int().positive(),
  step: z.int().positive(),
  task_key: z.string(),
  sample_index: count,
  prompt: z.string(),
  text: z.string(),
  prompt_token_ids: z.array(count).min(1),
  token_ids: z.array(count),
  logprobs: z.array(z.number().max(0)),
  raw_logprobs: z.array(z.number().max(0)),
  lanes: z.array(count),
  weight_versions: z.array(z.strictObject({ version: count, start: count, end: count })),
  finish_reason: z.enum(['stop', 'length', 'abort']).nullable(),
  reward: z.number().nullable(),
  scores: z.record(z.string(), z.number()).nullable(),
  failure: z.strictObject({ reason: z.string(), message: z.string() }).nullable(),
  fate: z.enum(['trained', 'aborted', 'expired', 'filtered', 'in_flight']),
  episode: episodeSchema.optional(),
});

const eventSchema = z.looseObject({
  ph: z.enum(['M', 'X', 'b', 'e', 'i', 'C']),
  name: z.string(),
  pid: z.int(),
  tid: z.int(),
  ts: z.number().optional(),
  dur: z.number().nonnegative().optional(),
  args: z.record(z.string(), z.unknown()).optional(),
});
const traceSchema = z.looseObject({ traceEvents: z.array(eventSchema) });

export type RunSummary = z.infer<typeof summarySchema>;
export type RolloutLine = z.infer<typeof rolloutSchema>;
export type TraceEvent = z.infer<typeof eventSchema>;

/** One finished run's folder; each file is read once and parsed strictly. */
export class RunFiles {
  readonly #parsed = new Map<string, unknown>();

  constructor(readonly path: string) {}

  text(name: string): string {
    return readFileSync(join(this.path, name), 'utf8');
  }

  get summary(): RunSummary {
    return this.#once('summary', () => summarySchema.parse(JSON.parse(this.text('summary.json'))));
  }

  get metrics(): MetricsRecord[] {
    return this.#once('metrics', () => z.array(metricsSchema).parse(this.#lines('metrics.jsonl')));
  }

  get rollouts(): RolloutLine[] {
    return this.#once('rollouts', () => z.array(rolloutSchema).parse(this.#lines('rollouts.jsonl')));
  }

  get trace(): TraceEvent[] {
    return this.#once('trace', () => traceSchema.parse(JSON.parse(this.text('trace.json')))).traceEvents;
  }

  /** Spans and moments of the trace on the named track; a process is known by how its name begins. */
  track(process: string, thread: string): TraceEvent[] {
    const { trace } = this;
    const named = (kind: string, isIt: (name: string) => boolean): Set<string> =>
      new Set(
        trace
          .filter(({ ph, name, args }) => ph === 'M' && name === kind && isIt(String(args?.['name'])))
          .map(({ pid, tid }) => (kind === 'process_name' ? `${pid}` : `${pid}/${tid}`)),
      );
    const pids = named('process_name', (name) => name === process || name.startsWith(`${process} `));
    // Spans that overlap are spread over rows: "engine", "engine (2)".
    const tids = named('thread_name', (name) => name === thread || name.startsWith(`${thread} (`));
    return trace.filter(({ ph, pid, tid }) => ph !== 'M' && pids.has(`${pid}`) && tids.has(`${pid}/${tid}`));
  }

  /** A model file's bytes. */
  model(name: string): Buffer {
    return readFileSync(join(this.path, 'model', name));
  }

  #once<T>(name: string, read: () => T): T {
    if (!this.#parsed.has(name)) this.#parsed.set(name, read());
    // What was put in under this name came from this very function's `read`.
    return this.#parsed.get(name) as T;
  }

  #lines(name: string): unknown[] {
    const text = this.text(name);
    if (text !== '' && !text.endsWith('\n')) throw new Error(`${name}: its last line is not finished`);
    return text
      .split('\n')
      .slice(0, -1)
      .map((line): unknown => JSON.parse(line));
  }
}

/** Tokens of the rollouts with that fate. */
export function tokensOf(rollouts: readonly RolloutLine[], fate?: RolloutLine['fate']): number {
  return rollouts
    .filter((rollout) => fate === undefined || rollout.fate === fate)
    .reduce((sum, { token_ids }) => sum + token_ids.length, 0);
}
