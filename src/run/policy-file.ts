import { readFile } from 'node:fs/promises';
import { basename, extname, isAbsolute, resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import { z } from 'zod';
import { errorText, oneLine, UserError } from '../lib/errors.js';
import { cannotRead, systemCode } from '../model/files.js';
import type { Policy, PolicyDefinition } from '../scheduler/plan.js';
import { readOptions } from '../scheduler/policy-options.js';
import { guarded } from './policy-guard.js';
import { javascriptOf } from './policy-transpile.js';

const EXTENSIONS = ['.ts', '.js', '.mjs'];

/** True for the path of a module, such as "./my-policy.ts"; false for what can only be a policy's name. */
export function isPolicyPath(name: string): boolean {
  return /^\.{1,2}[\\/]/.test(name) || isAbsolute(name) || EXTENSIONS.includes(extname(name));
}

/**
 * Loads a policy of the user's own: a module whose default export is a `PolicyDefinition` or a bare `Policy`. In a
 * `.ts` file the types are left out and not checked; imports of 'offbeat' and 'zod' are this package's own.
 *
 * `create` takes the options as the user wrote them, and throws a UserError for the first that the policy does not take.
 * The policies it creates are guarded: one that throws, answers with no plan or reaches into the snapshot breaks
 * invariant 0, and the run goes on.
 *
 * @param path relative paths begin at the current folder
 * @throws UserError when there is no such file, it cannot be loaded, or what it exports is no policy.
 */
export async function loadPolicy(path: string): Promise<PolicyDefinition> {
  const file = resolve(path);
  if (!EXTENSIONS.includes(extname(file))) {
    throw new UserError(`policy ${path}: must be a file that ends in ${EXTENSIONS.join(', ')}`);
  }
  const exported = await importDefault(path, file);
  if (isPolicy(exported)) return withChecks(bareDefinition(basename(file, extname(file)), path, exported));
  const fault = faultOf(exported);
  if (fault !== null) throw new UserError(`policy ${path}: ${fault}`);
  if (!isDefinition(exported)) throw new Error('assertion failed: a definition without fault');
  return withChecks({ ...exported, create: (options) => guarded(created(path, exported, options)) });
}

/** `create` reads the options as the user wrote them, once. What a schema of the user's own says may be anything. */
function withChecks(definition: PolicyDefinition): PolicyDefinition {
  const { name, create } = definition;
  const refusal = ({ path, message }: z.core.$ZodIssue): string => {
    const key = ['scheduler', 'options', ...path].map(String).join('.');
    return `${key}: policy ${name} does not take it (${oneLine(message)}): mend it or leave it out`;
  };
  return { ...definition, create: (options) => create(readOptions(definition, options, refusal)) };
}

async function importDefault(path: string, file: string): Promise<unknown> {
  let text: string;
  try {
    text = await readFile(file, 'utf8');
  } catch (error) {
    if (systemCode(error) !== 'ENOENT') throw cannotRead(path, error);
    throw new UserError(
      `policy ${path}: not found: name a file that exists, or one of the policies by its name`,
    );
  }
  const url =
    extname(file) === '.ts'
      ? `data:text/javascript;base64,${Buffer.from(await javascriptOf(path, file, text)).toString('base64')}`
      : pathToFileURL(file).href;
  try {
    const module: unknown = await import(url);
    return memberOf(module, 'default');
  } catch (error) {
    // Node names the module by its address, which for a transpiled one is its whole text.
    const why = oneLine(errorText(error).replaceAll(url, path));
    throw new UserError(`policy ${path}: cannot be loaded (${why}): mend it`);
  }
}

function created(path: string, definition: PolicyDefinition, options: unknown): Policy {
  let policy: unknown;
  try {
    policy = definition.create(options);
  } catch (error) {
    throw new UserError(`policy ${path}: create() threw (${oneLine(error)}): mend it`);
  }
  if (isPolicy(policy)) return policy;
  throw new UserError(`policy ${path}: create() must return a function from snapshot to plan`);
}

/** Of a bare function nothing is known, so nothing is promised. */
function bareDefinition(name: string, path: string, policy: Policy): PolicyDefinition {
  return {
    name,
    after: null,
    summary: `from ${path}`,
    isWorkConserving: false,
    turnsMax: Infinity,
    options: z.strictObject({}),
    create: () => guarded(policy),
  };
}

/** What keeps an export from being a policy's definition, in words; null when nothing does. */
function faultOf(value: unknown): string | null {
  if (value === undefined) {
    return 'exports nothing as default: add `export default` before the policy, a function from snapshot to plan';
  }
  if (typeof value === 'function')
    return 'its default export is an async function or a generator: a policy answers at once, make it plain';
  const must: readonly (readonly [key: string, isFine: (member: unknown) => boolean, what: string])[] = [
    ['name', (member) => typeof member === 'string' && member !== '', 'a text that is not empty'],
    ['after', (member) => member === null || typeof member === 'string', 'a text or null'],
    ['summary', (member) => typeof member === 'string', 'a text'],
    ['isWorkConserving', (member) => typeof member === 'boolean', 'true or false'],
    ['turnsMax', (member) => typeof member === 'number' && member > 0, 'a number above 0, maybe Infinity'],
    ['options', (member) => typeof memberOf(member, 'safeParse') === 'function', 'a zod schema'],
    ['create', (member) => typeof member === 'function', 'a function from options to a policy'],
  ];
  const wrong = must.find(([key, isFine]) => !isFine(memberOf(value, key)));
  return wrong === undefined ? null : `${wrong[0]} of its default export must be ${wrong[2]}`;
}

function isDefinition(value: unknown): value is PolicyDefinition {
  return faultOf(value) === null;
}

function isPolicy(value: unknown): value is Policy {
  return typeof value === 'function' && value.constructor.name === 'Function';
}

function memberOf(value: unknown, name: string): unknown {
  if (typeof value !== 'object' || value === null) return undefined;
  const member: unknown = Reflect.get(value, name);
  return member;
}
