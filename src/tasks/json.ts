import type { Json } from './task.js';

const DEPTH_MAX = 64;

/** What keeps a value from being Json, as a path and a reason in words; undefined when nothing does. */
export function jsonFault(value: unknown, path = 'it', depth = 0): string | undefined {
  if (value === null || typeof value === 'string' || typeof value === 'boolean') return undefined;
  if (typeof value === 'number') return Number.isFinite(value) ? undefined : `${path} is ${value}`;
  if (typeof value !== 'object') return `${path} is of type ${typeof value}`;
  if (depth === DEPTH_MAX) return `it is nested more than ${DEPTH_MAX} levels deep`;
  if (!Array.isArray(value) && !isPlain(value)) return `${path} is no plain object`;
  const entries: [string, unknown][] = Array.isArray(value)
    ? Array.from(value, (item: unknown, index) => [String(index), item])
    : Object.entries(value);
  for (const [key, item] of entries) {
    const fault = jsonFault(item, `${path}.${key}`, depth + 1);
    if (fault !== undefined) return fault;
  }
  return undefined;
}

export function isJson(value: unknown): value is Json {
  return jsonFault(value) === undefined;
}

function isPlain(value: object): boolean {
  const prototype: unknown = Object.getPrototypeOf(value);
  return prototype === null || prototype === Object.prototype;
}
