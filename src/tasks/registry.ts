import { existsSync } from 'node:fs';
import { isAbsolute, resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import { UserError } from '../lib/errors.js';
import { loadEnvironment } from './load-environment.js';
import type { Environment, EnvironmentRef, Json } from './task.js';

/** The environments that come with Offbeat, by name. */
const BUILT_IN: ReadonlyMap<string, string> = new Map([
  ['arithmetic', new URL('./arithmetic.js', import.meta.url).href],
  ['calculator', new URL('./calculator.js', import.meta.url).href],
  ['frozenLake', new URL('./frozen-lake.js', import.meta.url).href],
]);

export interface OpenedEnvironment {
  readonly environment: Environment;
  /** What pools and other threads need to build the same environment. */
  readonly ref: EnvironmentRef;
}

/**
 * The environment a configuration names: one of the built-in names, or the path of a module (`./my-task.js`, taken
 * from `directory`) that exports `createEnvironment(options)`. Options an environment does not know are errors of
 * its own making. Throws a `UserError` for an unknown name, an absent file, bad options or a module that is no task.
 */
export async function openEnvironment(
  name: string,
  options: Json,
  directory: string,
): Promise<OpenedEnvironment> {
  const ref = { module: moduleOf(name, directory), options };
  return { environment: await loadEnvironment(ref), ref };
}

function moduleOf(name: string, directory: string): string {
  const builtIn = BUILT_IN.get(name);
  if (builtIn !== undefined) return builtIn;
  if (!/^\.{1,2}[\\/]/.test(name) && !isAbsolute(name)) {
    const known = [...BUILT_IN.keys()].join(', ');
    throw new UserError(
      `unknown task "${name}"; known: ${known}, or the path of a module such as ./my-task.js`,
    );
  }
  const path = resolve(directory, name);
  if (!existsSync(path)) throw new UserError(`task module ${path} does not exist; check the path`);
  return pathToFileURL(path).href;
}
