import { readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { z } from 'zod';
import { errorText, UserError } from '../lib/errors.js';
import type { Random } from '../lib/prng.js';

/** Numbers a trace file may hold, and a list in a scenario. */
const SAMPLES_MAX = 1_000_000;
const MUST =
  'a number from 0, a list of them, or a table { kind = "uniform", low, high }, { kind = "lognormal", median, sigma, max } or { kind = "trace", file, field }';

const amount = z.number(MUST).min(0, MUST).max(1e15, MUST);

/**
 * How lengths, waits and the like are spread: always the same number, one of a list (each as likely), uniform,
 * or lognormal cut off at `max`, which is how lengths of completions and waits for tools are spread in agentic work.
 * A trace takes one field of each line of a JSONL file as its list.
 */
export const distributionSchema = z.union(
  [
    amount,
    z.array(amount, MUST).min(1, MUST).max(SAMPLES_MAX, MUST),
    z.strictObject({ kind: z.literal('uniform'), low: amount, high: amount }),
    z.strictObject({ kind: z.literal('lognormal'), median: amount, sigma: amount, max: amount }),
    z.strictObject({ kind: z.literal('trace'), file: z.string(), field: z.string() }),
  ],
  MUST,
);

export type WrittenDistribution =
  Distribution | { readonly kind: 'trace'; readonly file: string; readonly field: string };

/** One whose numbers are all at hand. */
export type Distribution =
  | number
  | readonly number[]
  | { readonly kind: 'uniform'; readonly low: number; readonly high: number }
  | { readonly kind: 'lognormal'; readonly median: number; readonly sigma: number; readonly max: number };

/** One draw. A constant takes none of the generator's numbers. */
export function draw(distribution: Distribution, random: Random): number {
  if (typeof distribution === 'number') return distribution;
  if (!('kind' in distribution)) return random.pick(distribution);
  if (distribution.kind === 'uniform') {
    return distribution.low + (distribution.high - distribution.low) * random.uniform();
  }
  return Math.min(distribution.max, distribution.median * Math.exp(distribution.sigma * random.normal()));
}

/** A draw rounded to a whole number that is at least `min`. */
export function drawCount(distribution: Distribution, min: number, random: Random): number {
  return Math.max(min, Math.round(draw(distribution, random)));
}

/** The largest number it can give. */
export function largest(distribution: Distribution): number {
  if (typeof distribution === 'number') return distribution;
  if (!('kind' in distribution)) return distribution.reduce((most, value) => Math.max(most, value), 0);
  return distribution.kind === 'uniform' ? distribution.high : distribution.max;
}

/**
 * Reads a trace; any other distribution is as it was.
 *
 * @param folder where a relative path begins
 * @throws UserError for a file that cannot be read, or a line whose field is no number from 0.
 */
export function loaded(distribution: WrittenDistribution, folder: string): Distribution {
  if (typeof distribution === 'number' || !('kind' in distribution)) return distribution;
  if (distribution.kind !== 'trace') return distribution;
  const { file, field } = distribution;
  let text: string;
  try {
    text = readFileSync(resolve(folder, file), 'utf8');
  } catch (error) {
    throw new UserError(`cannot read the trace ${file}: ${errorText(error)}; correct its path`);
  }
  const samples = text.split('\n').flatMap((line, index) => {
    return line.trim() === '' ? [] : [numberOf(line, field, `${file}:${index + 1}`)];
  });
  if (samples.length === 0 || samples.length > SAMPLES_MAX) {
    throw new UserError(`the trace ${file} has ${samples.length} lines: use 1 to ${SAMPLES_MAX}`);
  }
  return samples;
}

function numberOf(line: string, field: string, where: string): number {
  let record: unknown;
  try {
    record = JSON.parse(line);
  } catch (error) {
    throw new UserError(`${where} is no JSON: ${errorText(error)}; write one JSON object a line`);
  }
  const parsed = z.record(z.string(), z.unknown()).safeParse(record);
  const value = parsed.success ? parsed.data[field] : undefined;
  if (typeof value === 'number' && value >= 0) return value;
  throw new UserError(`${where}: ${field} is ${JSON.stringify(value) ?? 'missing'}, must be a number from 0`);
}
