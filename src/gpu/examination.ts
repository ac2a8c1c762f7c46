import { z } from 'zod';

const adapterSummary = z.object({
  vendor: z.string(),
  architecture: z.string(),
  device: z.string(),
  description: z.string(),
  software: z.boolean(),
});

const finding = z.object({
  /** Null when the search found none. */
  adapter: adapterSummary.nullable(),
  /** Of the ways Dawn has to reach a GPU, the one that reaches this adapter. */
  backend: z.string().nullable(),
  limits: z.record(z.string(), z.number()),
  features: z.array(z.string()),
  /** Of the WGSL language, as opposed to the adapter's. */
  languageFeatures: z.array(z.string()),
  /** Null when a device opened, else why not. */
  deviceError: z.string().nullable(),
  /** Null when a shader computed what it should, else what went wrong. */
  computeError: z.string().nullable(),
  /** The step in which timestamps advance, in nanoseconds; null when they do not advance. */
  timestampStepNs: z.number().nullable(),
});

const line = finding.partial();

/** What an examination has found up to some moment: a driver may end the examining process at any step. */
export type Examination = z.infer<typeof line>;

/** Puts findings, one JSON object a line, together. A last line that was cut off is left out. */
export function parseExamination(text: string): Examination {
  let all: Examination = {};
  for (const json of text.split('\n').slice(0, -1)) all = { ...all, ...line.parse(JSON.parse(json)) };
  return all;
}

/**
 * The largest step that divides all differences between timestamps, in nanoseconds; null when they are all equal.
 * A clock that is rounded on purpose shows here: browsers round to 100 µs, Dawn to 65,536 ns.
 */
export function timestampStepNs(timestamps: BigUint64Array): number | null {
  const first = timestamps[0] ?? 0n;
  let step = 0n;
  for (const timestamp of timestamps) {
    let [a, b] = [step, timestamp > first ? timestamp - first : first - timestamp];
    while (b !== 0n) [a, b] = [b, a % b];
    step = a;
  }
  return step === 0n ? null : Number(step);
}
