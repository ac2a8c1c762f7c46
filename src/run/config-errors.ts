import { z } from 'zod';
import { UserError } from '../lib/errors.js';
import { shown } from '../model/files.js';
import type { ConfigSource } from './config-source.js';

const SUGGESTIONS_MAX = 3;

/** A value as a message shows it. */
export function valueText(value: unknown): string {
  if (value === undefined) return 'missing';
  if (typeof value === 'number') return String(value);
  if (value instanceof Date) return value.toISOString();
  return shown(value);
}

/** A key as TOML writes it; places in a list count from 1, as people do. */
export function keyText(path: readonly PropertyKey[]): string {
  return path.reduce<string>((text, part) => {
    if (typeof part === 'number') return `${text}[${part + 1}]`;
    const name = /^[\w-]+$/.test(String(part)) ? String(part) : shown(String(part));
    return text === '' ? name : `${text}.${name}`;
  }, '');
}

/** The one line for the first thing wrong with a configuration. */
export function configError(source: ConfigSource, schema: z.ZodObject, issue: z.core.$ZodIssue): UserError {
  if (issue.code === 'unrecognized_keys') {
    const [key = ''] = issue.keys;
    const path = [...issue.path, key];
    const remedy = suggestion(schema, path);
    return new UserError(`${source.origin(path)}: ${keyText(path)} is not a known key: ${remedy}`);
  }
  const { path, message } = issue;
  const override = source.overrideOf(path);
  if (override !== undefined) return new UserError(`--set ${override}: must be ${message}`);
  const value = memberAt(source.tables, path);
  return new UserError(`${source.origin(path)}: ${keyText(path)} is ${valueText(value)}, must be ${message}`);
}

function memberAt(value: unknown, path: readonly PropertyKey[]): unknown {
  return path.reduce<unknown>((inner, part) => {
    if (typeof inner !== 'object' || inner === null) return undefined;
    return Object.getOwnPropertyDescriptor(inner, part)?.value;
  }, value);
}

/** What an unknown key was probably meant to be, or else what its section knows. */
function suggestion(schema: z.ZodObject, path: readonly PropertyKey[]): string {
  const known = knownKeys(schema);
  const wanted = path.map(String);
  const near = known
    .map((key) => ({ key, distance: keyDistance(wanted, key) }))
    .filter(({ key, distance }) => distance <= Math.max(2, (key.at(-1) ?? '').length / 3));
  const least = Math.min(...near.map(({ distance }) => distance));
  const nearest = near.filter(({ distance }) => distance === least).slice(0, SUGGESTIONS_MAX);
  if (nearest.length > 0) {
    const names = nearest.map(({ key }) =>
      keyText(key.map((part, depth) => (part === '*' ? (path[depth] ?? part) : part))),
    );
    return `did you mean ${names.join(' or ')}?`;
  }
  const parent = wanted.slice(0, -1);
  const siblings = known.filter(
    (key) => key.length === wanted.length && parent.every((part, depth) => isSame(part, key[depth])),
  );
  return `known here: ${siblings.map((key) => key.at(-1)).join(', ')}`;
}

/** Every key and section of a schema; `*` stands for the places of a list. */
function knownKeys(schema: unknown, prefix: readonly string[] = []): string[][] {
  const inner = unwrap(schema);
  if (inner instanceof z.ZodArray) return knownKeys(inner.element, [...prefix, '*']);
  if (!(inner instanceof z.ZodObject)) return [];
  return Object.entries(inner.shape).flatMap(([key, member]) => [
    [...prefix, key],
    ...knownKeys(member, [...prefix, key]),
  ]);
}

function unwrap(schema: unknown): unknown {
  return schema instanceof z.ZodPrefault || schema instanceof z.ZodDefault ? unwrap(schema.unwrap()) : schema;
}

function isSame(written: string, known: string | undefined): boolean {
  return known === '*' ? /^\d+$/.test(written) : written === known;
}

/** How far a key is from a known one; a right name in the wrong section is one step away. */
function keyDistance(wanted: readonly string[], known: readonly string[]): number {
  const inSection =
    wanted.length === known.length && wanted.slice(0, -1).every((part, depth) => isSame(part, known[depth]));
  return editDistance(wanted.at(-1) ?? '', known.at(-1) ?? '') + (inSection ? 0 : 1);
}

/**
 * Letters to insert, delete, replace or swap with their neighbour to get from one word to the other (Damerau, 1964;
 * the restricted kind, which edits no place twice).
 */
export function editDistance(from: string, to: string): number {
  let before: number[] = [];
  let last = Array.from({ length: to.length + 1 }, (_, column) => column);
  for (let row = 1; row <= from.length; row++) {
    const next = [row];
    for (let column = 1; column <= to.length; column++) {
      const isEqual = from[row - 1] === to[column - 1];
      const isSwapped = from[row - 1] === to[column - 2] && from[row - 2] === to[column - 1];
      next.push(
        Math.min(
          (last[column] ?? 0) + 1,
          (next[column - 1] ?? 0) + 1,
          (last[column - 1] ?? 0) + (isEqual ? 0 : 1),
          isSwapped && row > 1 && column > 1 ? (before[column - 2] ?? 0) + 1 : Infinity,
        ),
      );
    }
    before = last;
    last = next;
  }
  return last[to.length] ?? 0;
}
