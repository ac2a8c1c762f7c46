import { aligned } from '../../telemetry/aligned.js';
import { numberText, secondsText } from '../../telemetry/format.js';
import { MEASURES } from './measures.js';
import type { CompareResult, CompareRow } from './result.js';
import { aheadText, differenceText, valueText } from './words.js';

/** Jobs that a terminal is shown; the report and the file have all. */
const JOBS_SHOWN_MAX = 12;
/** What the lines of differences tell; the report has the rest. */
const TOLD = new Set(['goodput', 'makespan_s', 'slowdown', 'jain']);

/** The result as a page of text: what was run, a line a policy and job, what the differences come to. */
export function compareTable(result: CompareResult): string {
  const heads = [
    ['policy', ...MEASURES.map(({ name }) => name), 'yield'],
    ['', ...MEASURES.map(({ unit }) => unit), 'p99 ms'],
  ];
  const shown = new Set(result.jobs.slice(0, JOBS_SHOWN_MAX));
  const rows = result.rows.filter(({ job }) => job === null || shown.has(job));
  const lines = [
    ...headLines(result),
    '',
    ...aligned([...heads, ...rows.map(cells)]),
    '',
    ...waitLines(result),
    ...differenceLines(result),
    '',
    ...footLines(result),
  ];
  return `${lines.join('\n')}\n`;
}

function headLines(result: CompareResult): string[] {
  const { scenario, lanes, jobs, machine, mode, seeds, solo } = result;
  const software = machine.software ? ' (software: timings are not those of a GPU)' : '';
  const alone = solo.slice(0, JOBS_SHOWN_MAX).map(({ job, seconds }) => `${job} ${numberText(seconds)} s`);
  const more = solo.length > JOBS_SHOWN_MAX ? `, and ${solo.length - JOBS_SHOWN_MAX} more` : '';
  const head = [
    ['scenario', `${scenario}: ${counted(jobs.length, 'job')}, ${counted(lanes, 'lane')}`],
    [mode, `${machine.description}${software}`],
    [
      'repeats',
      `${seeds.length}, seeds ${seeds.join(', ')}; in mixed order, in ${secondsText(result.wall_s)}`,
    ],
    ['alone', `${alone.join(', ')}${more}`],
  ];
  return head.map(([name = '', text = '']) => `${name.padEnd(13)}${text}`);
}

function cells(row: CompareRow): string[] {
  const name = row.job === null ? row.policy : `  ${row.job}`;
  // What a job shares with all of its run is said once.
  const values = MEASURES.map((measure) =>
    measure.key === 'jain' && row.job !== null ? '' : valueText(row, measure),
  );
  return [name, ...values, row.yield_ms === null ? '' : numberText(row.yield_ms.p99)];
}

function waitLines({ rows }: CompareResult): string[] {
  const whole = rows.filter(({ job }) => job === null);
  const stages = [...new Set(whole.flatMap(({ queue_wait_ms: waits }) => Object.keys(waits)))];
  if (stages.length === 0) return [];
  const table = whole.map(({ policy, queue_wait_ms: waits }) => {
    const byStage = new Map(Object.entries(waits));
    return [
      policy,
      ...stages.map((stage) => {
        const wait = byStage.get(stage);
        return wait === undefined ? '–' : `${numberText(wait.p50)}/${numberText(wait.p99)}`;
      }),
    ];
  });
  return [...aligned([['queue wait', ...stages], ['', ...stages.map(() => 'p50/p99 ms')], ...table]), ''];
}

/** Each policy against the first. */
function differenceLines(result: CompareResult): string[] {
  const { policies, differences } = result;
  const [first = '', ...others] = policies;
  const ahead = aheadText(result);
  const width = Math.max(...others.map((policy) => policy.length)) + 2;
  return [
    `against ${first}, paired by repeat, 95 % confidence:`,
    ...others.flatMap((policy) => {
      const own = differences.filter(
        (each) => each.policy === policy && each.against === first && TOLD.has(each.measure),
      );
      return own.map(
        (each, index) => `  ${(index === 0 ? policy : '').padEnd(width)}${differenceText(each)}`,
      );
    }),
    ...(ahead === null ? [] : [`highest goodput: ${ahead}`]),
  ];
}

function footLines({ notes, interrupted, repeats, seeds, jobs }: CompareResult): string[] {
  return [
    'goodput: tokens that reached a gradient, over the makespan; of a job, from its coming to its end. slowdown: time over',
    'time alone on the same lanes; of all jobs, the geometric mean. Jain: over the jobs’ speed against alone, 1 is even.',
    'busy: share of the lanes’ time in which a device worked. wasted: share of the tokens computed that came to nothing.',
    '±: 95 % confidence interval of the mean over repeats (Student’s t); left out where it is too small to show.',
    ...(seeds.length === 1 ? ['One repeat: nothing is known of the noise.'] : []),
    ...(jobs.length > JOBS_SHOWN_MAX ? [`${jobs.length - JOBS_SHOWN_MAX} jobs are left out here.`] : []),
    ...notes.map((note) => `${note}.`),
    ...(interrupted ? [`interrupted: ${seeds.length} of ${repeats} repeats are complete.`] : []),
  ];
}

function counted(count: number, noun: string): string {
  return `${count} ${noun}${count === 1 ? '' : 's'}`;
}
