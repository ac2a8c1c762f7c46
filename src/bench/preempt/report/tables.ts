import { cautiousPercentText, numberText, percentText, secondsText } from '../../../telemetry/format.js';
import { escapeHtml } from '../../../telemetry/report/html.js';
import type { PreemptCell, YieldQuantiles } from '../result.js';
import { budgetText, cellName, claimsLaw, defaultCell, obeyedShare } from './cells.js';

type Column = readonly [head: string, text: (cell: PreemptCell) => string];

/** Columns under one heading, which gives their unit where they have one. */
interface Group {
  readonly name: string;
  readonly columns: readonly Column[];
}

interface Table {
  readonly title: string;
  readonly note: string;
  readonly groups: readonly Group[];
}

/** A change against a baseline: with its sign. */
export function signedPercentText(share: number): string {
  if (!Number.isFinite(share)) return '–';
  return `${share < 0 ? '−' : '+'}${percentText(Math.abs(share))}`;
}

function shareText(share: number | null): string {
  return share === null || !Number.isFinite(share) ? '–' : percentText(share);
}

type Part = 'p50' | 'p90' | 'p99' | 'p999' | 'max';
const PARTS: readonly Part[] = ['p50', 'p90', 'p99', 'p999', 'max'];

/** Milliseconds without their unit, which stands in the heading. */
function quantileColumns(
  of: (cell: PreemptCell) => YieldQuantiles,
  parts: readonly Part[] = PARTS,
): Column[] {
  return parts.map((part) => [part === 'p999' ? 'p99.9' : part, (cell) => numberText(of(cell)[part])]);
}

/** Every number of every cell, in tables that share their rows and fit a page. */
const TABLES: readonly Table[] = [
  {
    title: 'Time to yield, and the law',
    note: 'From the request until high priority could start. Over: preemptions above their own bound; beyond jitter: those of them that the host’s p99 jitter does not explain.',
    groups: [
      {
        name: 'budgets',
        columns: [
          ['slice', ({ slice_budget_us: us }) => budgetText(us)],
          ['in flight', ({ in_flight_budget_us: us }) => budgetText(us, 'one slice')],
        ],
      },
      {
        name: '',
        columns: [
          ['hint', ({ hint }) => (hint ? 'yes' : 'no')],
          ['n', ({ n }) => numberText(n)],
        ],
      },
      { name: 'time to yield, ms', columns: quantileColumns(({ yield_ms }) => yield_ms) },
      { name: '', columns: [['clock', ({ yield_clock }) => yield_clock]] },
      {
        name: 'law',
        columns: [
          ['bound, ms', ({ bound_ms }) => numberText(bound_ms)],
          ['over', (cell) => (claimsLaw(cell) ? numberText(cell.law_violations) : '–')],
          [
            'beyond jitter',
            (cell) => (claimsLaw(cell) ? numberText(cell.law_violations_beyond_jitter) : '–'),
          ],
          ['obeyed', (cell) => (claimsLaw(cell) ? obeyedText(cell) : 'none')],
        ],
      },
    ],
  },
  {
    title: 'What it cost, and whom',
    note: 'Never a latency without the throughput of the same cell. High priority’s steps are timed from request to result, and low priority from their release to its first new token.',
    groups: [
      {
        name: 'low priority',
        columns: [
          ['kept', ({ lp_retained }) => shareText(lp_retained)],
          ['tokens/s', ({ lp_tokens_per_s }) => numberText(lp_tokens_per_s)],
        ],
      },
      {
        name: 'high priority',
        columns: [
          ['slower', ({ hp_slowdown }) => signedPercentText(hp_slowdown)],
          ['of the time', ({ hp_duty }) => shareText(hp_duty)],
        ],
      },
      { name: 'its steps, ms', columns: quantileColumns(({ hp_ms }) => hp_ms) },
      {
        name: 'low priority resumes after, ms',
        columns: [['n', ({ resume }) => numberText(resume.n)], ...quantileColumns(({ resume }) => resume)],
      },
    ],
  },
  {
    title: 'What was wasted',
    note: 'Device time that came to nothing, and tokens whose work was, over the whole cell.',
    groups: [
      {
        name: 'device time, ms',
        columns: [
          ['recompute', ({ wasted }) => numberText(wasted.recompute_ms)],
          ['discarded', ({ wasted }) => numberText(wasted.discarded_ms)],
          ['idle', ({ wasted }) => numberText(wasted.idle_ms)],
          ['idle for a hint', ({ wasted }) => numberText(wasted.hint_idle_ms)],
        ],
      },
      {
        name: 'tokens',
        columns: [
          ['recomputed', ({ tokens_recomputed }) => numberText(tokens_recomputed)],
          ['discarded', ({ tokens_discarded }) => numberText(tokens_discarded)],
        ],
      },
      { name: '', columns: [['cell ran', ({ wall_s }) => secondsText(wall_s)]] },
    ],
  },
  {
    title: 'The host’s part',
    note: 'The time to yield as the host saw it, and the part of it before the lane had read the request. Unrecorded requests are in no number.',
    groups: [
      {
        name: 'time to yield, host clock, ms',
        columns: quantileColumns(({ yield_host_ms }) => yield_host_ms),
      },
      { name: 'detection, ms', columns: quantileColumns(({ detection_ms }) => detection_ms) },
      {
        name: 'lane',
        columns: [
          ['host CPU', ({ host_cpu }) => shareText(host_cpu)],
          ['unrecorded', ({ requests_unrecorded }) => numberText(requests_unrecorded)],
        ],
      },
    ],
  },
];

export function tables(cells: readonly PreemptCell[]): string {
  if (cells.length === 0) return '<div class="card">No cell was measured.</div>';
  return TABLES.map((table) => tableCard(table, cells)).join('\n');
}

function tableCard({ title, note, groups }: Table, cells: readonly PreemptCell[]): string {
  const usual = defaultCell(cells);
  const names = groups.map(
    ({ name, columns }) => `<th class="group" colspan="${columns.length}">${name}</th>`,
  );
  const heads = groups.flatMap(({ columns }) =>
    columns.map(([head], index) => `<th class="number${edge(index)}">${head}</th>`),
  );
  const rows = cells.map((cell) => {
    const values = groups.flatMap(({ columns }) =>
      columns.map(([, text], index) => `<td class="number${edge(index)}">${escapeHtml(text(cell))}</td>`),
    );
    return `<tr${cell === usual ? ' class="usual"' : ''}><th>${escapeHtml(cellName(cell))}</th>${values.join('')}</tr>`;
  });
  return `<div class="card wide"><b>${title}</b><p class="hint">${note}</p>
<table><thead><tr><th></th>${names.join('')}</tr><tr><th>cell</th>${heads.join('')}</tr></thead>
<tbody>${rows.join('\n')}</tbody></table></div>`;
}

/** The first column of a group stands a little apart. */
function edge(index: number): string {
  return index === 0 ? ' edge' : '';
}

function obeyedText(cell: PreemptCell): string {
  const share = obeyedShare(cell);
  return share === null ? '–' : cautiousPercentText(share);
}
