import { existsSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import { SafetensorsFile } from '#src/model/safetensors.js';

const count = z.int().nonnegative();
const summarySchema = z.looseObject({
  adapter: z.strictObject({
    vendor: z.string(),
    architecture: z.string(),
    description: z.string().min(1),
    software: z.boolean(),
  }),
  steps: count,
  tokens: z.strictObject({
    decoded: count,
    trained: count,
    aborted: count,
    expired: count,
    filtered: count,
    in_flight: count,
  }),
  preemption: z.looseObject({
    count,
    law_violations: count,
    tokens_recomputed: count,
    kv: z.strictObject({ held: count, spilled: count, dropped: count }),
  }),
  lanes: z.strictObject({ rebuilt: count, steps_repeated: count }),
  wall_seconds: z.number().positive(),
});
const rolloutSchema = z.looseObject({
  id: z.int().positive(),
  step: z.int().positive(),
  task_key: z.string(),
  sample_index: count,
  token_ids: z.array(count),
  logprobs: z.array(z.number().max(0)),
  raw_logprobs: z.array(z.number().max(0)),
  weight_versions: z.array(z.strictObject({ version: count, start: count, end: count })),
  lanes: z.array(count),
  failure: z.looseObject({ reason: z.string() }).nullable(),
  fate: z.enum(['trained', 'aborted', 'expired', 'filtered', 'in_flight']),
});

export type SoakSummary = z.infer<typeof summarySchema>;
export type SoakRollout = z.infer<typeof rolloutSchema>;

/** What a run left behind, as somebody else would read it. */
export interface FolderContents {
  readonly summary: SoakSummary;
  readonly rollouts: readonly SoakRollout[];
  readonly metricLines: number;
  /** The file of the trained weights as it is, after every number in it was found finite; null when there is none. */
  readonly weights: Buffer | null;
}

/** @throws Error that names the file which is missing, torn, of another form, or holds a number that is not finite. */
export async function readFolder(folder: string): Promise<FolderContents> {
  const text = (name: string): Promise<string> => readFile(join(folder, name), 'utf8');
  const report = await text('report.html');
  if (!report.trimEnd().endsWith('</html>')) throw new Error('report.html has no end');
  const rollouts = linesOf('rollouts.jsonl', await text('rollouts.jsonl'));
  return {
    summary: parsed('summary.json', summarySchema, JSON.parse(await text('summary.json'))),
    rollouts: rollouts.map((line) => parsed('rollouts.jsonl', rolloutSchema, line)),
    metricLines: linesOf('metrics.jsonl', await text('metrics.jsonl')).length,
    weights: await readWeights(join(folder, 'model', 'model.safetensors')),
  };
}

function parsed<T>(name: string, schema: z.ZodType<T>, value: unknown): T {
  const { data, error } = schema.safeParse(value);
  if (data === undefined)
    throw new Error(`${name}: ${error === undefined ? 'empty' : z.prettifyError(error)}`);
  return data;
}

function linesOf(name: string, text: string): unknown[] {
  if (text !== '' && !text.endsWith('\n')) throw new Error(`${name}: its last line is not finished`);
  return text
    .split('\n')
    .slice(0, -1)
    .map((line): unknown => JSON.parse(line));
}

async function readWeights(path: string): Promise<Buffer | null> {
  if (!existsSync(path)) return null;
  const file = await SafetensorsFile.open(path);
  try {
    // Reading refuses what is not finite.
    for (const name of file.tensors.keys()) await file.read(name);
  } finally {
    await file.close();
  }
  return readFile(path);
}
