import { z } from 'zod';
import type { Random } from '../lib/prng.js';

/**
 * How long a tool takes: lognormal, so that most calls are near the median and a few take many times as long.
 * `max_ms` cuts the tail: a longer draw becomes `max_ms`.
 */
export interface Latency {
  readonly median_ms: number;
  /** Standard deviation of the logarithm; 0 makes every call take the median. */
  readonly sigma: number;
  readonly max_ms: number;
}

const MS_MAX = 600_000;

/** Options table of a task whose tool takes its time; what is left out takes the place's own default. */
export function latencySchema(defaults: Latency) {
  const milliseconds = z.number('must be a number of milliseconds');
  return z
    .strictObject({
      median_ms: milliseconds
        .positive('must be above 0')
        .max(MS_MAX, `must be at most ${MS_MAX}`)
        .default(defaults.median_ms),
      sigma: z
        .number('must be a number')
        .min(0, 'must be 0 to 3')
        .max(3, 'must be 0 to 3')
        .default(defaults.sigma),
      max_ms: milliseconds
        .positive('must be above 0')
        .max(MS_MAX, `must be at most ${MS_MAX}`)
        .default(defaults.max_ms),
    })
    .refine(({ median_ms, max_ms }) => median_ms <= max_ms, 'median_ms must be at most max_ms')
    .prefault({});
}

export function drawLatencyMs({ median_ms, sigma, max_ms }: Latency, random: Random): number {
  return Math.min(max_ms, median_ms * Math.exp(sigma * random.normal()));
}
