import { errorText, UserError } from '../lib/errors.js';
import type { Environment, EnvironmentFactory, EnvironmentRef } from './task.js';

/**
 * Imports the module a reference names and builds its environment; the same in every thread.
 * Throws a `UserError` when the module cannot be loaded, its factory fails, or what it made is no environment.
 */
export async function loadEnvironment({ module, options }: EnvironmentRef): Promise<Environment> {
  const factory = memberOf(await importModule(module), 'createEnvironment');
  if (!isFactory(factory)) {
    throw new UserError(`task module ${module}: exports no function named createEnvironment; add one`);
  }
  const environment: unknown = await build(module, () => factory(options));
  const fault = faultOf(environment);
  if (fault !== undefined) throw new UserError(`task module ${module}: createEnvironment(): ${fault}`);
  if (!isEnvironment(environment)) throw new Error('assertion failed: an environment without fault');
  return environment;
}

async function importModule(module: string): Promise<unknown> {
  try {
    const exports: unknown = await import(module);
    return exports;
  } catch (error) {
    throw new UserError(`task module ${module}: cannot be loaded: ${errorText(error)}`);
  }
}

async function build(module: string, make: () => unknown): Promise<unknown> {
  try {
    return await make();
  } catch (error) {
    if (error instanceof UserError) throw error;
    throw new UserError(`task module ${module}: createEnvironment() threw: ${errorText(error)}`);
  }
}

/** What keeps a value from being an environment, in words; undefined when nothing does. */
function faultOf(value: unknown): string | undefined {
  for (const name of ['id', 'version']) {
    const text = memberOf(value, name);
    if (typeof text !== 'string' || text === '') return `${name} must be a string that is not empty`;
  }
  if (typeof memberOf(value, 'tasks') !== 'function') return 'tasks must be a function';
  const rewards = memberOf(value, 'rewards');
  if (typeof rewards !== 'object' || rewards === null) return 'rewards must be an object';
  const entries = Object.entries(rewards);
  if (entries.length === 0) return 'rewards must hold at least one reward';
  for (const [name, reward] of entries) {
    if (typeof memberOf(reward, 'fn') !== 'function') return `rewards.${name}.fn must be a function`;
    if (!Number.isFinite(memberOf(reward, 'weight'))) return `rewards.${name}.weight must be a finite number`;
  }
  return faultOfTurns(value);
}

/** The same for the members that environments of several turns have. */
function faultOfTurns(value: unknown): string | undefined {
  const [reset, step, stops] = ['reset', 'step', 'stops'].map((name) => memberOf(value, name));
  for (const [name, member] of Object.entries({ reset, step })) {
    if (member !== undefined && typeof member !== 'function') return `${name} must be a function`;
  }
  if ((reset === undefined) !== (step === undefined)) {
    return `${step === undefined ? 'reset' : 'step'} comes alone: an environment of several turns has reset and step`;
  }
  if (stops === undefined) return undefined;
  if (step === undefined) return 'stops end turns, but there is no step';
  const isText = (stop: unknown): boolean => typeof stop === 'string' && stop !== '';
  return Array.isArray(stops) && stops.every(isText) ? undefined : 'stops must be texts that are not empty';
}

function isEnvironment(value: unknown): value is Environment {
  return faultOf(value) === undefined;
}

function isFactory(value: unknown): value is EnvironmentFactory {
  return typeof value === 'function';
}

function memberOf(value: unknown, name: string): unknown {
  if (typeof value !== 'object' || value === null) return undefined;
  const member: unknown = Reflect.get(value, name);
  return member;
}
