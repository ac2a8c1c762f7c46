import { join, resolve } from 'node:path';
import { UserError } from '../lib/errors.js';
import { createPolicy, isPolicyPath, loadPolicy } from '../run/policy-file.js';
import { runJob } from '../run/runner.js';
import { onlyRunnableJob } from '../run/scenario-runnable.js';
import { loadScenario, type Scenario } from '../run/scenario.js';
import { POLICIES } from '../scheduler/policies/index.js';
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
  const scenario = scenarioOf(file, flags);
  const { policy, options } = scenario.scheduler;
  // What is wrong with the user's own module is told before what the runner cannot do.
  if (isPolicyPath(policy)) createPolicy(await loadPolicy(policy), options);
  const { config } = onlyRunnableJob(scenario, file ?? 'configuration');
  const outFolder = flags.out ?? defaultOutFolder(config.seed, new Date());
  return interruptible(async (interrupted) => {
    const summary = await runJob(config, { outFolder, interrupted });
    result(`${summaryText(summary)}${'report'.padEnd(14)}${join(outFolder, 'report.html')}\n`);
    return EXIT_OK;
  });
}

function scenarioOf(file: string | undefined, { set = [], policy }: RunFlags): Scenario {
  const input = { ...(file === undefined ? {} : { file }), set };
  if (policy === undefined) return loadScenario(input).scenario;
  if (isPolicyPath(policy)) {
    const { scenario } = loadScenario(input);
    return { ...scenario, scheduler: { ...scenario.scheduler, policy: resolve(policy) } };
  }
  if (!POLICIES.has(policy)) {
    const names = [...POLICIES.keys()].join(', ');
    throw new UserError(
      `--policy ${policy}: no policy of that name: use one of ${names}, or a file such as ./my-policy.ts`,
    );
  }
  return loadScenario({ ...input, set: [...set, `scheduler.policy=${JSON.stringify(policy)}`] }).scenario;
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
