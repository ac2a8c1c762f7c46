import { join } from 'node:path';
import { UserError } from '../lib/errors.js';
import { simSetup, type SimSetup, type SimWishes } from '../run/scenario-sim.js';
import { formatScenario, type Scenario } from '../run/scenario.js';
import { seed as seedField } from '../run/config-fields.js';
import type { Policy } from '../scheduler/plan.js';
import { compareWithRun } from '../sim/against.js';
import { aloneMs } from '../sim/alone.js';
import { calibrate } from '../sim/calibrate.js';
import { simReportHtml } from '../sim/report.js';
import { runRecordsOf } from '../sim/run-records.js';
import { simulate as simulateScenario } from '../sim/simulate.js';
import { simSummary, type SimSummary } from '../sim/summary.js';
import { SIM_LANES_MAX } from '../sim/tables.js';
import { comparisonTable, simTable } from '../sim/table.js';
import { OutFolder } from '../telemetry/out-folder.js';
import { runTrace } from '../telemetry/run-trace.js';
import type { SimOutcome } from '../sim/outcome.js';
import { EXIT_OK } from './exit-codes.js';
import { numberIn } from './flags.js';
import { note, result } from './output.js';
import { policyOf, scenarioOf, type ScenarioFlags } from './scenario-input.js';
import { writeText } from './writable.js';

/** What was typed; numbers are still texts. */
export interface SimulateFlags extends ScenarioFlags {
  readonly lanes?: string;
  readonly seed?: string;
  /** Folders of live runs. */
  readonly calibrate?: string;
  readonly against?: string;
  readonly out?: string;
  readonly json?: string;
}

/** Lanes that trace and report show; the numbers are always over all. */
const LANES_SHOWN_MAX = 16;
const SPANS_MAX = 60_000;
const RECORDS_MAX = 20_000;
const PLAN_EVENTS_MAX = 200_000;

/** `offbeat simulate`: prints the table; writes what `--json` and `--out` ask for. */
export async function simulate(file: string | undefined, flags: SimulateFlags): Promise<number> {
  if (flags.against !== undefined) return against(flags.against, file, flags);
  if (file === undefined) {
    throw new UserError(
      'simulate needs a scenario, such as examples/scenarios/four-agents.toml, or --against runs/…',
    );
  }
  const { scenario } = scenarioOf(file, flags);
  const policy = await policyOf(scenario);
  const setup = await simSetup(scenario, await wishesOf(flags));
  const folder = flags.out === undefined ? null : await OutFolder.create(flags.out);
  try {
    const outcome = await simulateScenario(setup.scenario, policy.plan, {
      ...setup.options,
      policyName: policy.name,
      lanesMax: folder === null ? 0 : LANES_SHOWN_MAX,
      spansMax: SPANS_MAX,
      recordsMax: RECORDS_MAX,
      planEventsMax: folder === null ? 0 : PLAN_EVENTS_MAX,
    });
    const summary = await summaryOf(scenario, setup, policy.plan, outcome);
    const json = `${JSON.stringify(summary, null, 2)}\n`;
    if (flags.json !== undefined) await writeText(flags.json, json);
    if (folder !== null) await writeFolder(folder, scenario, outcome, summary, json);
    result(simTable(summary));
    if (folder !== null) result(`${'report'.padEnd(14)}${folder.reportPath}\n`);
    return EXIT_OK;
  } finally {
    await folder?.close();
  }
}

async function summaryOf(
  { name }: Scenario,
  { scenario, options, assumptions }: SimSetup,
  policy: Policy,
  outcome: SimOutcome,
): Promise<SimSummary> {
  const alone = await aloneMs(scenario, policy, options, outcome);
  return simSummary(outcome, scenario, { name, assumptions, aloneMs: alone });
}

async function writeFolder(
  folder: OutFolder,
  scenario: Scenario,
  outcome: SimOutcome,
  summary: SimSummary,
  json: string,
): Promise<void> {
  const shown = Math.min(LANES_SHOWN_MAX, summary.lanes.count);
  const records = runRecordsOf(outcome, shown);
  const endMs = outcome.endedMs;
  const config = formatScenario(scenario);
  await folder.write('config.toml', [config]);
  await folder.write('summary.json', [json]);
  await folder.write('trace.json', runTrace(records, { endMs }).chunks());
  const html = simReportHtml({ summary, records, endMs, writtenAt: new Date(), config });
  await folder.write('report.html', [html]);
  if (shown < summary.lanes.count) {
    note(
      `trace and report show the first ${shown} of ${summary.lanes.count} lanes; all numbers are over all of them`,
    );
  }
}

/** A live run again, on the simulated clock, and how far off that is. */
async function against(run: string, file: string | undefined, flags: SimulateFlags): Promise<number> {
  const refused = (['lanes', 'seed', 'calibrate', 'out'] as const).find((name) => flags[name] !== undefined);
  if (file !== undefined || refused !== undefined) {
    const what = file === undefined ? `--${refused}` : `the scenario ${file}`;
    throw new UserError(`--against takes jobs, lanes and lengths from the run: leave out ${what}`);
  }
  const { scenario } = scenarioOf(join(run, 'config.toml'), flags);
  const { plan } = await policyOf(scenario);
  const comparison = await compareWithRun(run, await policyOfRun(run, flags.set), plan);
  if (flags.json !== undefined) await writeText(flags.json, `${JSON.stringify(comparison, null, 2)}\n`);
  result(comparisonTable(comparison));
  return EXIT_OK;
}

/** The one the run ran under, whatever the command line says. */
async function policyOfRun(run: string, set: readonly string[] = []): Promise<Policy> {
  const { scenario } = scenarioOf(join(run, 'config.toml'), { set });
  return (await policyOf(scenario)).plan;
}

async function wishesOf({ lanes, seed, calibrate: run }: SimulateFlags): Promise<SimWishes> {
  const wishes: { -readonly [Key in keyof SimWishes]: SimWishes[Key] } = {};
  if (lanes !== undefined) wishes.lanes = wholeIn('lanes', lanes, 1, SIM_LANES_MAX);
  if (seed !== undefined) wishes.seed = wholeIn('seed', seed, 0, seedField.maxValue ?? 0);
  if (run !== undefined) {
    const { costs, jobs } = await calibrate(run, await policyOfRun(run, []));
    wishes.costs = costs;
    wishes.computeScales = new Map(jobs.map(({ id, computeScale }) => [id, computeScale]));
  }
  return wishes;
}

function wholeIn(flag: string, text: string, min: number, max: number): number {
  const value = numberIn(text);
  if (typeof value === 'number' && Number.isSafeInteger(value) && value >= min && value <= max) return value;
  throw new UserError(`--${flag} ${text}: must be a whole number from ${min} to ${max}`);
}
