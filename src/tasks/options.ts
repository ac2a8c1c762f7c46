import type { z } from 'zod';
import { UserError } from '../lib/errors.js';
import type { Json } from './task.js';

/**
 * The options of one environment, checked once. Missing ones get the schema's defaults; null stands for none given.
 * Throws a `UserError` that names the option, its value and what would be right.
 */
export function parseOptions<S extends z.ZodObject>(
  environment: string,
  schema: S,
  options: Json,
): z.infer<S> {
  const given = options ?? {};
  const parsed = schema.safeParse(given);
  if (parsed.success) return parsed.data;
  const known = Object.keys(schema.shape).join(', ') || 'none';
  const [issue] = parsed.error.issues;
  if (issue?.code === 'unrecognized_keys') {
    const names = issue.keys.map((key) => `"${key}"`).join(', ');
    throw new UserError(`task ${environment}: unknown option ${names}; known options: ${known}`);
  }
  if (issue === undefined || issue.path.length === 0) {
    throw new UserError(
      `task ${environment}: options must be a table, not ${JSON.stringify(given)}; known: ${known}`,
    );
  }
  const value = issue.path.reduce<unknown>((inner, key) => memberOf(inner, key), given);
  const shown = value === undefined ? 'nothing' : JSON.stringify(value);
  throw new UserError(`task ${environment}: option ${issue.path.join('.')} = ${shown}: ${issue.message}`);
}

function memberOf(value: unknown, key: PropertyKey): unknown {
  if (typeof value !== 'object' || value === null) return undefined;
  return Object.getOwnPropertyDescriptor(value, key)?.value;
}
