import { z } from 'zod';
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
  const [issue] = parsed.error.issues;
  const path = issue?.code === 'unrecognized_keys' ? issue.path : [];
  const known = knownOptions(schema, path);
  if (issue?.code === 'unrecognized_keys') {
    const names = issue.keys.map((key) => `"${[...path, key].join('.')}"`).join(', ');
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

/** The options of the table at `path`, by their whole names. */
function knownOptions(schema: z.ZodObject, path: readonly PropertyKey[]): string {
  let table: unknown = schema;
  for (const key of path) {
    table = table instanceof z.ZodObject ? table.shape[String(key)] : undefined;
    while (table instanceof z.ZodDefault || table instanceof z.ZodPrefault) table = table.unwrap();
  }
  const names = table instanceof z.ZodObject ? Object.keys(table.shape) : [];
  return names.map((name) => [...path, name].join('.')).join(', ') || 'none';
}

function memberOf(value: unknown, key: PropertyKey): unknown {
  if (typeof value !== 'object' || value === null) return undefined;
  return Object.getOwnPropertyDescriptor(value, key)?.value;
}
