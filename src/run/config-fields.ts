import { z } from 'zod';
import type { Json } from '../tasks/task.js';

/**
 * The kinds of value a configuration or a command line holds. Each carries one phrase that completes "KEY is VALUE,
 * must be …" whatever is wrong, so that every complaint names the whole range.
 */

/** A whole number from `min` to `max`, both included. */
export function wholeNumber(min: number, max: number) {
  const must = `a whole number from ${min} to ${max}`;
  return z.int(must).min(min, must).max(max, must);
}

/** An even whole number from `min` to `max`, both included. */
export function evenNumber(min: number, max: number) {
  const must = `an even whole number from ${min} to ${max}`;
  return z.int(must).min(min, must).max(max, must).multipleOf(2, must);
}

/** A number from `min` to `max`, both included. */
export function numberFromTo(min: number, max: number) {
  const must = `a number from ${min} to ${max}`;
  return z.number(must).min(min, must).max(max, must);
}

/** A number above `min` and at most `max`. */
export function numberAbove(min: number, max: number) {
  const must = `a number above ${min} and at most ${max}`;
  return z.number(must).gt(min, must).max(max, must);
}

/** A number from `min`, included, to `end`, not included. */
export function numberBelow(min: number, end: number) {
  const must = `a number from ${min} to below ${end}`;
  return z.number(must).min(min, must).lt(end, must);
}

/** One of a few words. */
export function oneOf<const Words extends readonly [string, ...string[]]>(...words: Words) {
  return z.enum(words, words.map((word) => `"${word}"`).join(' or '));
}

export function text() {
  return z.string('a text in quotes');
}

export function trueOrFalse() {
  return z.boolean('true or false');
}

/** What a task may be told: plain data, since it crosses threads. TOML's dates and infinities are not. */
export function plainValue() {
  return z.custom<Json>(
    isJson,
    'plain data: texts, finite numbers, true, false, and lists or tables of them',
  );
}

function isJson(value: unknown): boolean {
  if (Array.isArray(value)) return value.every(isJson);
  if (typeof value !== 'object' || value === null) {
    return (
      value === null || typeof value === 'string' || typeof value === 'boolean' || Number.isFinite(value)
    );
  }
  const prototype: unknown = Object.getPrototypeOf(value);
  return (prototype === null || prototype === Object.prototype) && Object.values(value).every(isJson);
}

/** A section: all its keys known. Left out, it is a section of defaults. */
export function section<Shape extends z.ZodRawShape>(shape: Shape) {
  return z.strictObject(shape, 'a table of keys');
}

/** Seeds are exact in a double, and whole. */
export const seed = wholeNumber(0, Number.MAX_SAFE_INTEGER);

/** A token id; the model's own vocabulary is checked where the model is known. */
export const tokenId = wholeNumber(0, 2 ** 24);

/** The longest completion or context anyone asks for, in tokens. */
export const TOKENS_MAX = 2 ** 20;

/** The filters of vLLM's SamplingParams, by its names and with its meanings. Temperature stands apart: see its users. */
export const samplingFilters = {
  /** Only the k likeliest tokens; 0, or -1 as vLLM also writes it, keeps all. */
  top_k: wholeNumber(-1, 2 ** 24).transform((k) => Math.max(k, 0)),
  /** Only the likeliest tokens whose probabilities add up to p; 1 keeps all. */
  top_p: numberAbove(0, 1),
  /** Only tokens at least so likely in proportion to the likeliest; 0 keeps all. */
  min_p: numberFromTo(0, 1),
};

/** Above this a distribution is flat for every purpose. */
export const TEMPERATURE_MAX = 100;
