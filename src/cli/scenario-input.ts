import { resolve } from 'node:path';
import { UserError } from '../lib/errors.js';
import { isPolicyPath, loadPolicy } from '../run/policy-file.js';
import { type LoadedScenario, loadScenario, type Scenario } from '../run/scenario.js';
import type { Policy } from '../scheduler/plan.js';
import { POLICIES, policyNamed } from '../scheduler/policies/index.js';

export interface ScenarioFlags {
  readonly set?: readonly string[];
  /** A name, or a file; it counts before what config and `set` say. */
  readonly policy?: string;
}

/**
 * A scenario with the policy that the command line names.
 *
 * @throws UserError as `loadScenario`, and for a policy there is not.
 */
export function scenarioOf(file: string | undefined, { set = [], policy }: ScenarioFlags): LoadedScenario {
  const input = { ...(file === undefined ? {} : { file }), set };
  if (policy === undefined) return loadScenario(input);
  if (isPolicyPath(policy)) {
    const { kind, scenario } = loadScenario(input);
    return { kind, scenario: { ...scenario, scheduler: { ...scenario.scheduler, policy: resolve(policy) } } };
  }
  if (!POLICIES.has(policy)) {
    const names = [...POLICIES.keys()].join(', ');
    throw new UserError(
      `--policy ${policy}: no policy of that name: use one of ${names}, or a file such as ./my-policy.ts`,
    );
  }
  return loadScenario({ ...input, set: [...set, `scheduler.policy=${JSON.stringify(policy)}`] });
}

/** @throws UserError when the module is no policy, or an option is not one of its own. */
export async function policyOf({
  scheduler: { policy, options },
}: Scenario): Promise<{ readonly name: string; readonly plan: Policy }> {
  if (!isPolicyPath(policy)) return { name: policy, plan: policyNamed(policy, options) };
  const definition = await loadPolicy(policy);
  return { name: definition.name, plan: definition.create(options) };
}
