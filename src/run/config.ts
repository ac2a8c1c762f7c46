import { isAbsolute, resolve } from 'node:path';
import { stringify } from 'smol-toml';
import type { z } from 'zod';
import { assert } from '../lib/assert.js';
import { UserError } from '../lib/errors.js';
import { camelKeys, snakeKeys, type CamelKeys } from './config-case.js';
import { pretrainConflict, runConflict, type Conflict } from './config-checks.js';
import { configError, keyText, valueText } from './config-errors.js';
import { pretrainSchema, runSchema, type PretrainTables, type RunTables } from './config-schema.js';
import { readConfigSource, type ConfigSource } from './config-source.js';

/** What `offbeat run` does, checked and complete: every key of `config-schema.ts`, in camel case. Paths are absolute. */
export type RunConfig = CamelKeys<RunTables>;

/** What `offbeat pretrain` does, checked and complete. Paths are absolute. */
export type PretrainConfig = CamelKeys<PretrainTables>;

export interface ConfigInput {
  /** A TOML file; relative paths in it begin at its folder. */
  readonly file?: string;
  /**
   * `key=value` with a dotted key, as `--set` takes them; the last one of a key counts. A value that is one of TOML's
   * is read as such, anything else is a text. Relative paths begin at the current folder.
   */
  readonly set?: readonly string[];
}

/**
 * The one place where the configuration of a run is checked; later code trusts it.
 *
 * @throws UserError when the file cannot be read or is not TOML, a key is unknown, a value is out of range, or two
 * keys do not go together.
 */
export function resolveConfig(input: ConfigInput = {}): RunConfig {
  const source = readConfigSource(input.file, input.set ?? []);
  const tables = check(source, runSchema);
  refuse(source, tables, runConflict(tables));
  const { model, task } = tables;
  return camelKeys({
    ...tables,
    model: { path: resolve(source.folder(['model', 'path']), model.path) },
    task: { ...task, name: taskName(source, task.name) },
  });
}

/**
 * The one place where the configuration of a pre-training is checked; later code trusts it.
 *
 * @throws UserError as `resolveConfig`, and for a key without a default that is missing.
 */
export function resolvePretrainConfig(input: ConfigInput): PretrainConfig {
  const source = readConfigSource(input.file, input.set ?? []);
  const tables = check(source, pretrainSchema);
  refuse(source, tables, pretrainConflict(tables));
  return camelKeys({ ...tables, task: { ...tables.task, name: taskName(source, tables.task.name) } });
}

/** The configuration as TOML with every key in it; read again it gives the same configuration. */
export function formatConfig(config: RunConfig | PretrainConfig): string {
  return `${stringify(snakeKeys(config)).trimEnd()}\n`;
}

/** The source's tables as the schema has them. @throws UserError for the first thing that it refuses. */
export function check<Schema extends z.ZodObject>(source: ConfigSource, schema: Schema): z.output<Schema> {
  const parsed = schema.safeParse(source.tables);
  if (parsed.success) return parsed.data;
  const { issues } = parsed.error;
  // A misspelt key is also missing under its right name, and the misspelling is what to mend.
  const issue = issues.find(({ code }) => code === 'unrecognized_keys') ?? issues[0];
  assert(issue !== undefined, 'a configuration is refused for a reason');
  throw configError(source, schema, issue);
}

function refuse(source: ConfigSource, tables: object, conflict: Conflict | undefined): void {
  if (conflict === undefined) return;
  const { keys, why } = conflict;
  // Whoever typed one of them just now is best told so, even when the other is a default.
  const origin = source.origin(keys.find((path) => source.overrideOf(path) !== undefined) ?? keys[0]);
  const both = keys.map((path) => `${keyText(path)} is ${valueText(valueAt(tables, path))}`).join(' and ');
  throw new UserError(`${origin}: ${both}: ${why}`);
}

function valueAt(tables: object, path: readonly PropertyKey[]): unknown {
  return path.reduce<unknown>(
    (inner, part) => (typeof inner === 'object' && inner !== null ? Reflect.get(inner, part) : undefined),
    tables,
  );
}

/** A task's name as it is; a module's path made absolute. */
export function taskName(source: ConfigSource, name: string): string {
  const isPath = /^\.{1,2}[\\/]/.test(name) || isAbsolute(name);
  return isPath ? resolve(source.folder(['task', 'name']), name) : name;
}
