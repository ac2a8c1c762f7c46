import { UserError } from '../../lib/errors.js';
import type { Policy } from '../plan.js';
import { priority } from './priority.js';

/** Every policy by the name a config gives it. */
export const POLICIES: ReadonlyMap<string, Policy> = new Map([['priority', priority]]);

/** @throws UserError when there is none of that name. */
export function policyNamed(name: string): Policy {
  const policy = POLICIES.get(name);
  if (policy === undefined) {
    throw new UserError(`scheduler.policy is "${name}": use one of ${[...POLICIES.keys()].join(', ')}`);
  }
  return policy;
}
