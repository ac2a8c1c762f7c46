import type { CallAnswer } from './calls.js';
import { isJson, jsonFault } from './json.js';
import type { Json } from './task.js';

/** Longest observation: far more than any context holds. */
const OBSERVATION_CHARS_MAX = 65_536;
/** Longest state as JSON text: it is sent with every step and kept with every rollout. */
const STATE_CHARS_MAX = 1_048_576;

/** What `reset` returned, held against what it promised. The state comes out exactly as JSON keeps it. */
export function readReset(value: unknown): CallAnswer {
  const opening = readOpening('reset', value);
  return 'kind' in opening ? opening : { kind: 'reset', result: opening };
}

/** What `step` returned, held against what it promised. The state comes out exactly as JSON keeps it. */
export function readStep(value: unknown): CallAnswer {
  const opening = readOpening('step', value);
  if ('kind' in opening) return opening;
  const terminated = memberOf(value, 'terminated');
  const truncated = memberOf(value, 'truncated');
  if (typeof terminated !== 'boolean') return malformed('step', 'terminated must be true or false');
  if (typeof truncated !== 'boolean') return malformed('step', 'truncated must be true or false');
  const reward = memberOf(value, 'reward') ?? 0;
  if (typeof reward !== 'number' || !Number.isFinite(reward)) {
    return malformed('step', 'reward must be a finite number');
  }
  return { kind: 'step', result: { ...opening, reward, terminated, truncated } };
}

type Failed = Extract<CallAnswer, { kind: 'failed' }>;

interface Opening {
  readonly observation: string;
  readonly state: Json;
  readonly waitMs: number;
}

function readOpening(name: string, value: unknown): Opening | Failed {
  const observation = memberOf(value, 'observation');
  if (typeof observation !== 'string') return malformed(name, 'observation must be a text');
  if (observation.length > OBSERVATION_CHARS_MAX) {
    return malformed(name, `observation is longer than ${OBSERVATION_CHARS_MAX} characters`);
  }
  const state = memberOf(value, 'state');
  if (!isJson(state)) return malformed(name, `state must be plain JSON, but ${jsonFault(state, 'state')}`);
  const text = JSON.stringify(state);
  if (text.length > STATE_CHARS_MAX) {
    return malformed(name, `state is longer than ${STATE_CHARS_MAX} characters as JSON`);
  }
  const waitMs = memberOf(value, 'waitMs') ?? 0;
  if (typeof waitMs !== 'number' || !(waitMs >= 0 && waitMs < Infinity)) {
    return malformed(name, 'waitMs must be a number of milliseconds, 0 or more');
  }
  const kept: unknown = JSON.parse(text);
  return isJson(kept) ? { observation, state: kept, waitMs } : malformed(name, 'state must be plain JSON');
}

function malformed(name: string, what: string): Failed {
  return { kind: 'failed', reason: 'malformed', message: `${name}() returned what is no answer: ${what}` };
}

function memberOf(value: unknown, name: string): unknown {
  if (typeof value !== 'object' || value === null) return undefined;
  const member: unknown = Reflect.get(value, name);
  return member;
}
