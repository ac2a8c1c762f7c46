import { join, resolve } from 'node:path';
import { UserError } from '../lib/errors.js';
import { formatConfig } from '../run/config.js';
import { createPolicy, isPolicyPath, loadPolicy } from '../run/policy-file.js';
import type { NamedPolicy } from '../run/conductor.js';
import { runScenario } from '../run/runner.js';
import { formatScenario, type LoadedScenario, loadScenario, type Scenario } from '../run/scenario.js';
import { POLICIES, policyNamed } from '../scheduler/policies/index.js';
import { scenarioSummaryText } from '../telemetry/scenario-summary.js';
import { summaryText } from '../telemetry/summary.js';
import { EXIT_OK } from './exit-codes.js';
import { interruptible } from './interrupt.js';
import { result } from './output.js';

export interface RunFlags {
  readonly set?: readonly string[];
  /** A name, or a file; it counts before what config and `set` say. */
  readonly policy?: string;
  readonly out?: string;
}

/** `offbeat run`: trains, then prints the summary. */
export async function run(file: string | undefined, flags: RunFlags): Promise<number> {
  const { kind, scenario } = scenarioOf(file, flags);
  const policy = await policyOf(scenario);
  const [{ config } = { config: null }] = scenario.jobs;
  // A run config names its policy, and has no place for more.
  const isPlain = kind === 'run' && POLICIES.has(policy.name) && config !== null;
  const configText = isPlain ? formatConfig(config) : formatScenario(scenario);
  const outFolder = flags.out ?? defaultOutFolder(config?.seed ?? scenario.seed, new Date());
  return interruptible(async (interrupted) => {
    const { summary, jobs } = await runScenario(scenario, { outFolder, interrupted, policy, configText });
    const [first] = jobs;
    if (summary !== null && first !== undefined) {
      const text = scenario.jobs.length === 1 ? summaryText(first.summary) : scenarioSummaryText(summary);
      result(`${text}${'report'.padEnd(14)}${join(outFolder, 'report.html')}\n`);
    }
    return EXIT_OK;
  });
}

async function policyOf({ scheduler: { policy, options } }: Scenario): Promise<NamedPolicy> {
  if (!isPolicyPath(policy)) return { name: policy, plan: policyNamed(policy, options) };
  const definition = await loadPolicy(policy);
  return { name: definition.name, plan: createPolicy(definition, options) };
}

function scenarioOf(file: string | undefined, { set = [], policy }: RunFlags): LoadedScenario {
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

/** `runs/20260131-235959-seed1`, by the clock on the wall. */
export function defaultOutFolder(seed: number, at: Date): string {
  const [year, ...rest] = [
    at.getFullYear(),
    at.getMonth() + 1,
    at.getDate(),
    at.getHours(),
    at.getMinutes(),
    at.getSeconds(),
  ];
  const [month, day, ...time] = rest.map((part) => String(part).padStart(2, '0'));
  return join('runs', `${year}${month}${day}-${time.join('')}-seed${seed}`);
}
