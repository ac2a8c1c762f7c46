import { aligned } from '../telemetry/aligned.js';
import { numberText, msText, percentText, secondsText } from '../telemetry/format.js';
import type { Comparison } from './against.js';
import type { SimJobSummary, SimSummary } from './summary.js';

const MISSING = '–';
const JOBS_MAX = 40;
/** A machine to itself stays below. */
const UNSTEADY_MIN = 1.5;

type Column = readonly [head: string, of: (job: SimJobSummary) => string];

export const JOB_COLUMNS: readonly Column[] = [
  ['job', ({ id, is_given_up: isGivenUp }) => (isGivenUp ? `${id} (given up)` : id)],
  ['arrives', ({ arrived_s: s }) => timeText(s)],
  ['makespan', ({ makespan_s: s }) => timeText(s)],
  ['slowdown', ({ slowdown }) => (slowdown === null ? MISSING : `${slowdown.toFixed(2)}x`)],
  ['steps', ({ steps }) => numberText(steps)],
  ['rollouts', ({ rollouts }) => numberText(rollouts)],
  ['tokens', ({ tokens }) => numberText(tokens.decoded)],
  ['tokens/s', ({ tokens_per_second: rate }) => numberText(rate)],
  ['goodput', ({ goodput }) => (goodput === null ? MISSING : percentText(goodput))],
  ['wait p50', ({ queue_wait_ms: { p50 } }) => msText(p50)],
  ['wait p99', ({ queue_wait_ms: { p99 } }) => msText(p99)],
  ['token p99', ({ token_latency_ms: { p99 } }) => msText(p99)],
];

/** What the columns mean, a line each. */
export const JOB_COLUMNS_HINT =
  'slowdown: makespan over the same job alone; goodput: share of tokens trained on; wait: from asking for a stage to its grant; token: between two of a sequence';

/** The summary for a terminal. */
export function simTable(summary: SimSummary): string {
  const jobs = summary.jobs.slice(0, JOBS_MAX);
  const rows = [
    JOB_COLUMNS.map(([head]) => head),
    ...jobs.map((job) => JOB_COLUMNS.map(([, of]) => of(job))),
  ];
  const more = summary.jobs.length - jobs.length;
  return [
    ...aligned(rows),
    ...(more > 0 ? [`and ${numberText(more)} jobs more: --json has them all`] : []),
    JOB_COLUMNS_HINT,
    '',
    ...simFacts(summary).map(([name, text]) => `${name.padEnd(14)}${text}`),
    '',
  ].join('\n');
}

/** What is said of the simulation as a whole: names and texts. */
export function simFacts(summary: SimSummary): readonly (readonly [name: string, text: string])[] {
  const { lanes, costs, time_to_yield_ms: yields } = summary;
  const shares = `training ${percentText(lanes.training)}, generation ${percentText(lanes.generation)}, idle ${percentText(lanes.idle)}`;
  const lost = lanes.lost > 0 || summary.stages_repeated > 0;
  return [
    ['makespan', makespanText(summary)],
    ['lanes', `${numberText(lanes.count)}: ${shares}`],
    ['policy', `${summary.policy}: ${numberText(summary.cycles)} cycles, ${violationsText(summary)}`],
    ...(yields.n > 0
      ? [['yields', `${numberText(yields.n)}: p50 ${msText(yields.p50)}, p99 ${msText(yields.p99)}`] as const]
      : []),
    ...(lost
      ? [['faults', `lanes lost ${lanes.lost}, stages taken again ${summary.stages_repeated}`] as const]
      : []),
    ['costs', `${costs.name}: ${costs.source}`],
    ['seed', String(summary.seed)],
    ...summary.assumptions.map((text) => ['assumed', text] as const),
  ];
}

/** Predicted against measured, for a terminal. */
export function comparisonTable(comparison: Comparison): string {
  const { measuredMs, predictedMs, error, jobs, paceSpread: spread } = comparison;
  const row = (name: string, measured: number, predicted: number, miss: number): string[] => {
    const sign = miss < 0 ? '−' : '+';
    return [name, msText(measured), msText(predicted), `${sign}${percentText(Math.abs(miss))}`];
  };
  const table = aligned([
    ['', 'measured', 'predicted', 'error'],
    row('makespan', measuredMs, predictedMs, error),
    ...jobs.map((job) => row(`job ${job.id}`, job.measuredMs, job.predictedMs, job.error)),
  ]);
  const unsteady =
    spread > UNSTEADY_MIN
      ? [`the machine was not steady: training took up to ${spread.toFixed(1)} times as long per token`]
      : [];
  return `${[...table, ...unsteady].join('\n')}\n`;
}

function makespanText({ ended, makespan_s: makespan, ended_s: endedS, jobs }: SimSummary): string {
  if (makespan !== null) return `${timeText(makespan)} simulated`;
  const unfinished = jobs.filter((job) => job.makespan_s === null).length;
  const why = ended === 'stuck' ? 'nothing was left to happen: the policy is stuck' : 'the time was up';
  return `none: ${numberText(unfinished)} of ${numberText(jobs.length)} jobs unfinished after ${timeText(endedS)} (${why})`;
}

function violationsText({ violations, first_violation: first }: SimSummary): string {
  return violations === 0
    ? 'no invariant broken'
    : `${numberText(violations)} plans refused (first: ${first})`;
}

function timeText(s: number | null): string {
  if (s === null) return MISSING;
  return s > 0 && s < 1 ? msText(s * 1000) : secondsText(s);
}
