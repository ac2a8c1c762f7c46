import { aligned } from '../../telemetry/aligned.js';
import { numberText, percentText } from '../../telemetry/format.js';
import type { PreemptCell, PreemptResult } from './result.js';

const MISSING = '–';

type Column = readonly [head: string, unit: string, of: (cell: PreemptCell) => string];

const COLUMNS: readonly Column[] = [
  ['mode', '', ({ mode, hint }) => (hint ? `${mode}, hint` : mode)],
  [
    'budgets',
    'µs',
    ({ slice_budget_us: slice, in_flight_budget_us: flight }) => `${budgetText(slice)}/${budgetText(flight)}`,
  ],
  ['n', '', ({ n }) => numberText(n)],
  ['yield', 'p50', ({ yield_ms: { p50 } }) => numberText(p50)],
  ['yield', 'p99', ({ yield_ms: { p99 } }) => numberText(p99)],
  ['yield', 'p99.9', ({ yield_ms: { p999 } }) => numberText(p999)],
  ['yield', 'max', ({ yield_ms: { max } }) => numberText(max)],
  ['law', '', ({ bound_ms: bound }) => numberText(bound)],
  ['over', '', (cell) => (cell.bound_ms === null ? MISSING : numberText(cell.law_violations))],
  ['obey', '', (cell) => (cell.bound_ms === null ? MISSING : shareText(1 - cell.law_violations / cell.n))],
  ['LP', 'kept', ({ lp_retained: share }) => shareText(share)],
  ['HP', 'slower', ({ hp_slowdown: share }) => signedText(share)],
  ['resume', '', ({ resume_ms: ms }) => numberText(ms)],
  ['waste %', 're/di/idle', wasteText],
  ['cpu', '', ({ host_cpu: share }) => (share === null ? MISSING : shareText(share))],
];
/** Names lean left, numbers right. */
const LEFT_COLUMNS = 2;

/** The result as a page of text: what was measured on what, one line a cell, what the words mean. */
export function preemptTable(result: PreemptResult): string {
  const rows = result.cells.map((cell) => COLUMNS.map(([, , of]) => of(cell)));
  const heads = [COLUMNS.map(([head]) => head), COLUMNS.map(([, unit]) => unit)];
  return [
    ...headLines(result),
    '',
    ...aligned([...heads, ...rows], LEFT_COLUMNS),
    '',
    ...footLines(result),
    '',
  ].join('\n');
}

function headLines({ adapter, host, host_jitter: jitter, ...result }: PreemptResult): string[] {
  const label = adapter.software ? ' (software: timings are not those of a GPU)' : '';
  const rate = numberText(result.unchunked.lp_tokens_per_s);
  const rows = [
    ['adapter', `${adapter.description || adapter.device}${label}; ${host.cpus} cores`],
    [
      'host jitter',
      `p50 ${numberText(jitter.p50)} ms, p99 ${numberText(jitter.p99)} ms: request → first dispatch begun, on an empty device`,
    ],
    ['LP', result.low_priority],
    ['', `alone and uncut ${rate} tokens/s, a step every ${numberText(result.unchunked.decode_step_ms)} ms`],
    ['HP', result.high_priority],
    ['', `alone ${numberText(result.solo.hp_ms.p50)} ms`],
  ];
  return rows.map(([name = '', value = '']) => `${name.padEnd(13)}${value}`);
}

function footLines({ cells, interrupted, left_out: leftOut, wall_s: wallS }: PreemptResult): string[] {
  const unrecorded = cells.reduce((sum, cell) => sum + cell.requests_unrecorded, 0);
  const clock = cells.some((cell) => cell.yield_clock === 'device') ? 'device' : 'host';
  return [
    `Times in ms. yield: request → HP's first dispatch could start (${clock} clock). law: detection + in-flight budget`,
    '+ largest dispatch + 0.2 ms, its median; over: above their own; obey: the share that is not. LP kept: tokens/s over',
    'those of LP alone, uncut, in the time HP left it. HP slower: median step over one alone. resume: release → first new',
    'token, median. waste %: device time recomputed, discarded, idle, over wall time. cpu: of the thread of the lane.',
    ...(unrecorded > 0 ? [`${unrecorded} requests left no record and are in no number above.`] : []),
    ...(leftOut.length > 0 ? [`no time was left for: ${leftOut.join('; ')}.`] : []),
    ...(interrupted ? [`interrupted after ${numberText(wallS)} s: see n.`] : []),
  ];
}

function budgetText(us: number | null): string {
  return us === null ? '∞' : String(us);
}

/** What is not quite all is not called 100 %. */
function shareText(share: number): string {
  const text = percentText(share).replace(' ', '');
  return share < 1 && text === '100%' ? '99.9%' : text;
}

function signedText(share: number): string {
  return share < 0 ? `-${shareText(-share)}` : `+${shareText(share)}`;
}

function wasteText({ wasted, wall_s: wallS }: PreemptCell): string {
  const parts = [wasted.recompute_ms, wasted.discarded_ms, wasted.idle_ms];
  return parts.map((ms) => String(Number((ms / (10 * wallS)).toFixed(1)))).join('/');
}
