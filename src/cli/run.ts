import { join } from 'node:path';
import { resolveConfig } from '../run/config.js';
import { runJob } from '../run/runner.js';
import { summaryText } from '../telemetry/summary.js';
import { EXIT_OK } from './exit-codes.js';
import { interruptible } from './interrupt.js';
import { result } from './output.js';

export interface RunFlags {
  readonly set?: readonly string[];
  readonly out?: string;
}

/** `offbeat run`: trains, then prints the summary. */
export async function run(file: string | undefined, flags: RunFlags): Promise<number> {
  const config = resolveConfig({ ...(file === undefined ? {} : { file }), set: flags.set ?? [] });
  const outFolder = flags.out ?? defaultOutFolder(config.seed, new Date());
  return interruptible(async (interrupted) => {
    const summary = await runJob(config, { outFolder, interrupted });
    result(`${summaryText(summary)}${'report'.padEnd(14)}${join(outFolder, 'report.html')}\n`);
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
