import { join } from 'node:path';
import { formatConfig } from '../run/config.js';
import { runScenario } from '../run/runner.js';
import { formatScenario } from '../run/scenario.js';
import { POLICIES } from '../scheduler/policies/index.js';
import { scenarioSummaryText } from '../telemetry/scenario-summary.js';
import { summaryText } from '../telemetry/summary.js';
import { EXIT_OK } from './exit-codes.js';
import { interruptible } from './interrupt.js';
import { note, result } from './output.js';
import { policyOf, scenarioOf, type ScenarioFlags } from './scenario-input.js';

export interface RunFlags extends ScenarioFlags {
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
    } else note(`interrupted before a job arrived: nothing was trained, and there is no summary`);
    return EXIT_OK;
  });
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
