import { basename, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { measurePreemption } from '../bench/preempt/harness.js';
import { resolveBenchOptions, type BenchOptions } from '../bench/preempt/options.js';
import { preemptReportHtml } from '../bench/preempt/report/page.js';
import { preemptTable } from '../bench/preempt/table.js';
import { OutFolder } from '../telemetry/out-folder.js';
import { createProgress } from '../telemetry/progress.js';
import { EXIT_OK } from './exit-codes.js';
import { flagOf, listIn, numberIn } from './flags.js';
import { interruptible } from './interrupt.js';
import { result } from './output.js';
import { defaultOutFolder } from './run.js';
import { checkWritable, writeText } from './writable.js';

/** What was typed; numbers and lists are still texts. */
export interface BenchPreemptFlags {
  readonly quick?: true;
  readonly full?: true;
  readonly n?: string;
  readonly seed?: string;
  readonly model?: string;
  readonly adapter?: string;
  readonly sliceBudgets?: string;
  readonly inFlightBudgets?: string;
  readonly modes?: string;
  readonly json?: string;
  readonly out?: string;
}

const SHIPPED_MODEL = fileURLToPath(new URL('../../models/arithmetic-tiny', import.meta.url));

/** `offbeat bench preempt`: measures, prints the table, leaves result.json and report.html. */
export async function benchPreempt(flags: BenchPreemptFlags): Promise<number> {
  const options = resolveFlags(flags);
  const startedAt = new Date();
  if (flags.json !== undefined) await checkWritable(flags.json);
  const folder = await OutFolder.create(flags.out ?? defaultFolder(options.seed, startedAt));
  try {
    return await interruptible((interrupted) => measure(options, flags.json, folder, startedAt, interrupted));
  } finally {
    await folder.close();
  }
}

async function measure(
  options: BenchOptions,
  jsonFile: string | undefined,
  folder: OutFolder,
  startedAt: Date,
  interrupted: AbortSignal,
): Promise<number> {
  const progress = createProgress(process.stderr);
  try {
    const measured = await measurePreemption(
      options,
      { onPhase: (text) => progress.phase(text) },
      interrupted,
    );
    await progress.close();
    const json = `${JSON.stringify(measured, rounded)}\n`;
    await folder.write('result.json', [json]);
    await folder.write('report.html', [preemptReportHtml(measured, startedAt)]);
    if (jsonFile !== undefined) await writeText(jsonFile, json);
    result(`${preemptTable(measured)}report       ${folder.reportPath}\n`);
    return EXIT_OK;
  } catch (error) {
    await progress.close('failed');
    throw error;
  }
}

/** Nobody's clock tells more than a tenth of a microsecond, and raw samples are many. */
function rounded(_key: string, value: unknown): unknown {
  return typeof value === 'number' ? Math.round(value * 1e4) / 1e4 : value;
}

function resolveFlags(flags: BenchPreemptFlags): BenchOptions {
  const { quick, full, adapter, model = SHIPPED_MODEL } = flags;
  const { n, seed, sliceBudgets, inFlightBudgets, modes } = flags;
  const input = {
    model,
    adapter,
    quick,
    full,
    n: n === undefined ? n : numberIn(n),
    seed: seed === undefined ? seed : numberIn(seed),
    sliceBudgets: sliceBudgets === undefined ? sliceBudgets : listIn(sliceBudgets).map(numberIn),
    inFlightBudgets: inFlightBudgets === undefined ? inFlightBudgets : listIn(inFlightBudgets).map(numberIn),
    modes: modes === undefined ? modes : listIn(modes),
  };
  return resolveBenchOptions(input, flagOf);
}

/** `runs/bench-preempt-20260131-235959-seed1`, by the clock on the wall. */
function defaultFolder(seed: number, at: Date): string {
  return join('runs', `bench-preempt-${basename(defaultOutFolder(seed, at))}`);
}
