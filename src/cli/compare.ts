import { basename, join, resolve } from 'node:path';
import { runContest, type Contest, type Order, type Runner } from '../bench/compare/contest.js';
import { resolveCompareOptions, type CompareOptions } from '../bench/compare/options.js';
import { policyMakers, type PolicyMaker } from '../bench/compare/policies.js';
import { LiveRunner } from '../bench/compare/live.js';
import { compareReportHtml } from '../bench/compare/report/page.js';
import { SimulatedRunner } from '../bench/compare/simulated.js';
import { summarize } from '../bench/compare/summarize.js';
import { compareTable } from '../bench/compare/table.js';
import { nowMs } from '../lib/clock.js';
import { UserError } from '../lib/errors.js';
import { isPolicyPath } from '../run/policy-file.js';
import { runScenario } from '../run/runner.js';
import { simSetup } from '../run/scenario-sim.js';
import { loadScenario, type Scenario } from '../run/scenario.js';
import { OutFolder } from '../telemetry/out-folder.js';
import { createProgress } from '../telemetry/progress.js';
import type { Progress } from '../telemetry/progress-line.js';
import { EXIT_OK } from './exit-codes.js';
import { listIn, numberIn } from './flags.js';
import { interruptible } from './interrupt.js';
import { result } from './output.js';
import { defaultOutFolder } from './run.js';
import { checkWritable, writeText } from './writable.js';

/** What was typed; numbers and lists are still texts. */
export interface CompareFlags {
  readonly policies: string;
  readonly repeats?: string;
  readonly live?: true;
  readonly simulated?: true;
  readonly set?: readonly string[];
  readonly json?: string;
  readonly out?: string;
}

/** `offbeat compare`: runs everything, prints the table, leaves result.json and report.html. */
export async function compare(file: string, flags: CompareFlags): Promise<number> {
  const { live, simulated, set = [] } = flags;
  const repeats = flags.repeats === undefined ? undefined : numberIn(flags.repeats);
  const options = resolveCompareOptions({ policies: listIn(flags.policies), repeats, live, simulated });
  const { scenario } = loadScenario({ file, set });
  const policyOf = await policyMakers(options.policies, scenario);
  const startedAt = new Date();
  const out = flags.out ?? defaultFolder(scenario.seed, startedAt);
  const runner = await runnerFor(options.mode, scenario, policyOf, out);
  if (flags.json !== undefined) await checkWritable(flags.json);
  const folder = await OutFolder.create(out);
  const contest = { scenario, policies: options.policies, repeats: options.repeats };
  try {
    return await interruptible((interrupted) =>
      measure({ contest, options, runner, folder, jsonFile: flags.json, startedAt }, interrupted),
    );
  } finally {
    await folder.close();
  }
}

/** @throws UserError for what the simulator cannot make of the scenario. */
async function runnerFor(
  mode: CompareOptions['mode'],
  scenario: Scenario,
  policyOf: PolicyMaker,
  folder: string,
): Promise<Runner> {
  if (mode === 'simulated') {
    // Told before anything runs.
    await simSetup(scenario);
    return new SimulatedRunner(policyOf);
  }
  return new LiveRunner(policyOf, (one, { policy, order, interrupted }) => {
    const outFolder = join(folder, 'runs', runName(order));
    const ran = { ...one, scheduler: { ...one.scheduler, ...schedulerOf(one, order.policy) } };
    return runScenario(ran, { policy, interrupted, outFolder, progress: SILENT });
  });
}

/** What the run's folder says it ran under: options are those of the scenario's own policy. */
function schedulerOf(
  { scheduler }: Scenario,
  policy: string,
): Pick<Scenario['scheduler'], 'policy' | 'options'> {
  if (scheduler.policy === policy) return scheduler;
  return { policy: isPolicyPath(policy) ? resolve(policy) : policy, options: {} };
}

/** What the runs of a contest say: the contest says which it is at. */
const SILENT: Progress = {
  phase: () => undefined,
  step: () => undefined,
  note: () => undefined,
  close: () => Promise.resolve(),
};

/** `2-gapRatio`, `2-alone-a`: by repeat and policy. */
function runName({ repeat, policy, solo }: Order): string {
  const what = solo === null ? policy : `alone-${solo}`;
  return `${repeat + 1}-${what.replaceAll(/[^\w.-]+/g, '-')}`;
}

interface Work {
  readonly contest: Contest;
  readonly options: CompareOptions;
  readonly runner: Runner;
  readonly folder: OutFolder;
  readonly jsonFile: string | undefined;
  readonly startedAt: Date;
}

async function measure(
  { contest, options, runner, folder, jsonFile, startedAt }: Work,
  interrupted: AbortSignal,
): Promise<number> {
  const progress = createProgress(process.stderr);
  const startMs = nowMs();
  try {
    const repeats = await runContest(contest, runner, interrupted, { onOrder: shown(progress) });
    const [first] = repeats;
    if (first === undefined) throw new UserError('interrupted before the first repeat was complete');
    const compared = summarize(contest, repeats, {
      mode: options.mode,
      machine: runner.machine,
      interrupted: interrupted.aborted,
      wallS: (nowMs() - startMs) / 1000,
    });
    await progress.close();
    const json = `${JSON.stringify(compared)}\n`;
    await folder.write('result.json', [json]);
    await folder.write('report.html', [compareReportHtml(compared, first.runs, startedAt)]);
    if (jsonFile !== undefined) await writeText(jsonFile, json);
    result(`${compareTable(compared)}report       ${folder.reportPath}\n`);
    return EXIT_OK;
  } catch (error) {
    await progress.close('failed');
    throw error;
  }
}

/** "run 7 of 21: repeat 2, gapRatio". */
function shown(progress: Progress): (order: Order, index: number, count: number) => void {
  return ({ repeat, policy, solo }, index, count) => {
    const what = solo === null ? policy : `${solo} alone`;
    progress.phase(`run ${index + 1} of ${count}: repeat ${repeat + 1}, ${what}`);
  };
}

/** `runs/compare-20260131-235959-seed1`, by the clock on the wall. */
function defaultFolder(seed: number, at: Date): string {
  return join('runs', `compare-${basename(defaultOutFolder(seed, at))}`);
}
