import { z } from 'zod';

/** The options of a policy that has none. */
export const NO_OPTIONS = z.strictObject({});

/** A whole number; one phrase for everything that may be wrong with it, as in a configuration. */
export function wholeNumber(min: number, max: number) {
  const must = `a whole number from ${min} to ${max}`;
  return z.int(must).min(min, must).max(max, must);
}

/** What the policy left in its last plan; null where another policy, or none, has planned before. */
export function remembered<Memory>(schema: z.ZodType<Memory>, memory: unknown): Memory | null {
  const { success, data } = schema.safeParse(memory);
  return success ? data : null;
}
