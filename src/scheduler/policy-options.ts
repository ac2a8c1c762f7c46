import type { z } from 'zod';
import { UserError } from '../lib/errors.js';
import type { PolicyDefinition } from './plan.js';

/**
 * `scheduler.options` as a policy's schema reads them.
 *
 * @param refusal what to tell the user of the first option that the policy does not take, in one line
 * @throws UserError with that line.
 */
export function readOptions<Options>(
  { options: schema }: Pick<PolicyDefinition<Options>, 'options'>,
  options: unknown,
  refusal: (issue: z.core.$ZodIssue) => string,
): Options {
  const { success, data, error } = schema.safeParse(options);
  if (success) return data;
  const [issue] = error.issues;
  if (issue === undefined) throw new Error('assertion failed: options refused without a reason');
  throw new UserError(refusal(issue));
}
