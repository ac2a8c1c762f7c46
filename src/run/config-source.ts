import { readFileSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import { parse, TomlError } from 'smol-toml';
import { oneLine, UserError } from '../lib/errors.js';
import { cannotRead, systemCode } from '../model/files.js';

export type Table = Readonly<Record<string, unknown>>;
export type Path = readonly PropertyKey[];

interface Override {
  /** As the user typed it, `key=value`, on one line. */
  readonly text: string;
  readonly path: readonly string[];
  readonly value: unknown;
}

/** What the user wrote, not checked yet, and where each part of it was written. */
export interface ConfigSource {
  readonly tables: Table;
  /** What to begin a message about this key with. */
  origin(path: Path): string;
  /** The `--set` that gave exactly this key its value; undefined when a file or nobody did. */
  overrideOf(path: Path): string | undefined;
  /** Where a relative path that this key holds begins. */
  folder(path: Path): string;
}

/** A table, and not a list or a date. */
export function isTable(value: unknown): value is Table {
  if (typeof value !== 'object' || value === null) return false;
  const prototype: unknown = Object.getPrototypeOf(value);
  return prototype === null || prototype === Object.prototype;
}

/** `lanes = 2` is short for `lanes.count = 2`: what a number in place of this table counts. */
const COUNTED_TABLES: ReadonlyMap<string, string> = new Map([['lanes', 'count']]);

function spelledOut({ text, path, value }: Override): Override {
  const counted = path.length === 1 ? COUNTED_TABLES.get(path[0] ?? '') : undefined;
  return {
    text,
    value,
    path: counted === undefined || typeof value !== 'number' ? path : [...path, counted],
  };
}

/** @param arrange what a file says in the shape in which overrides find it */
export function readConfigSource(
  file: string | undefined,
  set: readonly string[],
  arrange: (tables: Table) => Table = (tables) => tables,
): ConfigSource {
  const overrides = set.map(parseOverride).map(spelledOut);
  let tables = file === undefined ? {} : arrange(readToml(file));
  for (const [name, key] of COUNTED_TABLES) {
    if (typeof tables[name] === 'number') tables = { ...tables, [name]: { [key]: tables[name] } };
  }
  for (const { path, value } of overrides) tables = withMember(tables, path, value);
  const related = (path: Path) =>
    overrides.findLast((override) => startsWith(path, override.path) || startsWith(override.path, path));
  const exact = (path: Path) =>
    overrides.findLast((override) => startsWith(path, override.path) && path.length === override.path.length);
  return {
    tables,
    origin: (path) => {
      const override = path.length === 0 ? undefined : related(path);
      return override === undefined ? (file ?? 'configuration') : `--set ${override.text}`;
    },
    overrideOf: (path) => exact(path)?.text,
    folder: (path) => {
      const inFile = file !== undefined && related(path) === undefined;
      return inFile ? dirname(resolve(file)) : process.cwd();
    },
  };
}

function readToml(file: string): Table {
  let toml: string;
  try {
    toml = readFileSync(file, 'utf8');
  } catch (error) {
    if (systemCode(error) === 'ENOENT') {
      throw new UserError(`${file}: not found: name a TOML file that exists`);
    }
    if (systemCode(error) === 'EISDIR') throw new UserError(`${file}: is a folder: name a TOML file`);
    throw cannotRead(file, error);
  }
  try {
    return parse(toml);
  } catch (error) {
    if (!(error instanceof TomlError)) throw error;
    const what = oneLine(error.message.split('\n', 1)[0]).replace(/^Invalid TOML document: /, '');
    throw new UserError(`${file}:${error.line}:${error.column}: not valid TOML (${what}): mend this line`);
  }
}

function parseOverride(argument: string): Override {
  const end = argument.indexOf('=');
  const path = end > 0 ? parseKey(argument.slice(0, end).trim()) : undefined;
  const text = oneLine(argument);
  if (path === undefined) {
    throw new UserError(`--set ${text}: no key and value: write it as --set rollout.temperature=0.8`);
  }
  const value = argument.slice(end + 1).trim();
  const parsed = parseTable(`value = ${value}`);
  // More than one key means that the text held a line break: then it is no value of TOML's.
  const isValue = parsed !== undefined && Object.keys(parsed).length === 1;
  return { text, path, value: isValue ? parsed['value'] : value };
}

/** The parts of a dotted key, quoted ones included; undefined when it is none. */
function parseKey(key: string): readonly string[] | undefined {
  const path: string[] = [];
  let node: unknown = key.includes('\n') ? undefined : parseTable(`${key} = 0`);
  while (isTable(node)) {
    const [name, ...others] = Object.keys(node);
    if (name === undefined || others.length > 0) return undefined;
    path.push(name);
    node = node[name];
  }
  return node === 0 ? path : undefined;
}

function parseTable(toml: string): Table | undefined {
  try {
    return parse(toml);
  } catch (error) {
    if (error instanceof TomlError) return undefined;
    throw error;
  }
}

/** A copy of the table in which `path` holds `value`; what stands in the way of a table is replaced. */
function withMember(table: Table, path: readonly string[], value: unknown): Table {
  const [key, ...rest] = path;
  if (key === undefined) return table;
  if (rest.length === 0) return { ...table, [key]: value };
  const inner = table[key];
  return { ...table, [key]: withMember(isTable(inner) ? inner : {}, rest, value) };
}

function startsWith(path: Path, start: Path): boolean {
  return start.every((part, index) => path[index] === part);
}
