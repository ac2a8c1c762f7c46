import { assert } from '../../lib/assert.js';
import { UserError } from '../../lib/errors.js';
import { isPolicyPath, loadPolicy } from '../../run/policy-file.js';
import type { Scenario } from '../../run/scenario.js';
import type { Policy } from '../../scheduler/plan.js';
import { POLICIES, policyNamed } from '../../scheduler/policies/index.js';
import { SOLO_POLICY } from './contest.js';

/** A policy by the name the user gave it, made anew for each run. */
export type PolicyMaker = (name: string) => Policy;

/**
 * Makes each policy of a comparison, and the one for the jobs alone. `scheduler.options` are the options of the
 * scenario's own policy; the others have their defaults.
 *
 * @param names registered names, or paths of modules of the user's own
 * @throws UserError for a name that nobody has, a module that cannot be loaded, and an option that is not understood;
 * all before anything runs.
 */
export async function policyMakers(names: readonly string[], scenario: Scenario): Promise<PolicyMaker> {
  const makers = new Map<string, () => Policy>();
  for (const name of names) makers.set(name, await makerOf(name, scenario));
  if (!makers.has(SOLO_POLICY)) makers.set(SOLO_POLICY, () => policyNamed(SOLO_POLICY));
  for (const make of makers.values()) make();
  return (name) => {
    const make = makers.get(name);
    assert(make !== undefined, `nobody asked for policy ${name}`);
    return make();
  };
}

async function makerOf(name: string, { scheduler }: Scenario): Promise<() => Policy> {
  const options = scheduler.policy === name ? scheduler.options : {};
  if (POLICIES.has(name)) return () => policyNamed(name, options);
  if (isPolicyPath(name)) {
    const definition = await loadPolicy(name);
    return () => definition.create(options);
  }
  const known = [...POLICIES.keys()].join(', ');
  throw new UserError(
    `--policies ${name}: no policy of that name: use some of ${known}, or a file such as ./my-policy.ts`,
  );
}
