import { cautiousPercentText, msText, numberText, percentText } from '../../../telemetry/format.js';
import { escapeHtml } from '../../../telemetry/report/html.js';
import type { PreemptCell, PreemptResult } from '../result.js';
import { cellName, defaultCell, obeyedShare, overhead } from './cells.js';
import { signedPercentText } from './tables.js';

/** What Offbeat sets out to do, and whether it did; null where it was not measured. */
interface Promised {
  readonly what: string;
  readonly measured: string;
  readonly isKept: boolean | null;
}

const OBEYED_SHARE_MIN = 0.99;
const RETAINED_SHARE_MIN = 0.95;
/** After a release, beside one decode step. */
const RESUME_ALLOWANCE_MS = 2;
const GPU = { p99MsMax: 1, overheadMax: 0.02, slowdownMax: 0.01, hintedP50MsMax: 0.1 };

/** The project's targets against the default cell: those for a software adapter, or those for a GPU. */
export function promisesCard(result: PreemptResult): string {
  const cell = defaultCell(result.cells);
  if (cell === null)
    return '<div class="card">The default cell was not measured: nothing to hold the targets against.</div>';
  const promised = [...everywhere(cell, result), ...(result.adapter.software ? [] : onGpu(cell, result))];
  const rows = promised.map(
    ({ what, measured, isKept }) =>
      `<tr><th>${escapeHtml(what)}</th><td>${escapeHtml(measured)}</td><td class="number">${verdict(isKept)}</td></tr>`,
  );
  return `<div class="card promises"><table><thead><tr><th>target</th><th>measured, ${escapeHtml(cellName(cell))}</th><th class="number"></th></tr></thead>
<tbody>${rows.join('\n')}</tbody></table></div>`;
}

function verdict(isKept: boolean | null): string {
  if (isKept === null) return '<span class="soft">not measured</span>';
  return isKept ? '<span class="verdict">met</span>' : '<span class="verdict bad">missed</span>';
}

function everywhere(cell: PreemptCell, { host_jitter_ms, unchunked }: PreemptResult): Promised[] {
  const { yield_ms, bound_ms, lp_retained, tokens_recomputed, resume_ms } = cell;
  const obeyed = obeyedShare(cell);
  const resumeMax = unchunked.decode_step_ms + RESUME_ALLOWANCE_MS;
  const { p99 } = yield_ms;
  return [
    {
      what: 'p99 time to yield within the law, the host’s own p99 jitter subtracted',
      measured: `${msText(p99)} − ${msText(host_jitter_ms)}, against ${msText(bound_ms)}`,
      isKept: p99 === null || bound_ms === null ? null : p99 - host_jitter_ms <= bound_ms,
    },
    {
      what: `${percentText(OBEYED_SHARE_MIN)} of preemptions obey the law`,
      measured: obeyed === null ? '–' : cautiousPercentText(obeyed),
      isKept: obeyed === null ? null : obeyed >= OBEYED_SHARE_MIN,
    },
    {
      what: `low priority keeps ${percentText(RETAINED_SHARE_MIN)} of the throughput that high priority leaves it`,
      measured: cautiousPercentText(lp_retained),
      isKept: lp_retained >= RETAINED_SHARE_MIN,
    },
    {
      what: 'no token is computed twice when caches are held',
      measured: numberText(tokens_recomputed),
      isKept: tokens_recomputed === 0,
    },
    {
      what: `first new token within one decode step + ${msText(RESUME_ALLOWANCE_MS)} of the release, p50`,
      measured: `${msText(resume_ms)}, against ${msText(resumeMax)}`,
      isKept: resume_ms === null ? null : resume_ms <= resumeMax,
    },
  ];
}

function onGpu(cell: PreemptCell, { cells }: PreemptResult): Promised[] {
  const hinted = cells.find(
    ({ mode, hint, slice_budget_us: slice, in_flight_budget_us: inFlight }) =>
      mode === 'held' && hint && slice === cell.slice_budget_us && inFlight === cell.in_flight_budget_us,
  );
  const hintedMs = hinted?.yield_ms.p50 ?? null;
  const cheap = cells.filter((each) => each.mode === 'held' && overhead(each) <= GPU.overheadMax);
  const p99s = cheap.map(({ yield_ms }) => yield_ms.p99).filter((ms) => ms !== null);
  const best = p99s.length === 0 ? null : Math.min(...p99s);
  return [
    {
      what: `p99 time to yield of at most ${msText(GPU.p99MsMax)} at an overhead of at most ${percentText(GPU.overheadMax)}, in some cell`,
      measured: best === null ? 'no cell at that overhead' : msText(best),
      isKept: best !== null && best <= GPU.p99MsMax,
    },
    {
      what: `a high-priority step within ${percentText(GPU.slowdownMax)} of one alone`,
      measured: signedPercentText(cell.hp_slowdown),
      isKept: cell.hp_slowdown <= GPU.slowdownMax,
    },
    {
      what: `with a hint, p50 time to yield of at most ${msText(GPU.hintedP50MsMax)}`,
      measured: msText(hintedMs),
      isKept: hintedMs === null ? null : hintedMs <= GPU.hintedP50MsMax,
    },
  ];
}
