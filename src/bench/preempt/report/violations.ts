import { cautiousPercentText, msText, numberText } from '../../../telemetry/format.js';
import { escapeHtml } from '../../../telemetry/report/html.js';
import type { PreemptCell, PreemptResult, Violation } from '../result.js';
import { cellName, claimsLaw, obeyedShareOf, usText } from './cells.js';

const SHOWN_MAX = 20;

interface Blamed {
  readonly cell: PreemptCell;
  readonly violation: Violation;
}

/** Every breach of the law counted, the worst explained. */
export function violationsCard({ cells, host_jitter_ms }: PreemptResult): string {
  const lawful = cells.filter(claimsLaw);
  const n = lawful.reduce((sum, cell) => sum + cell.n, 0);
  const over = lawful.reduce((sum, cell) => sum + cell.law_violations, 0);
  const beyond = lawful.reduce((sum, cell) => sum + cell.law_violations_beyond_jitter, 0);
  const share = obeyedShareOf(lawful);
  if (share === null) return '<div class="card">No cell that claims the law was measured.</div>';
  if (over === 0) {
    return `<div class="card"><span class="verdict">none</span> All ${numberText(n)} preemptions of the ${lawful.length} cells that claim the law kept it.</div>`;
  }
  const blamed = lawful
    .flatMap((cell) => cell.violations.map((violation): Blamed => ({ cell, violation })))
    .toSorted((a, b) => overMs(b.violation) - overMs(a.violation));
  const shown = blamed.slice(0, SHOWN_MAX);
  return `<div class="card wide"><p><b>${numberText(over)} of ${numberText(n)} preemptions took longer than the law allows</b>;
${cautiousPercentText(share)} kept it. ${numberText(beyond)} were over by more than ${msText(host_jitter_ms)}, which is what this host takes by itself
at p99 to begin work on an empty device.</p>
${perKernel(blamed)}
<table><thead><tr><th>cell</th><th class="number">took</th><th class="number">allowed</th><th>waited for</th>
<th class="number">predicted</th><th class="number">real</th><th>why</th></tr></thead>
<tbody>${shown.map(row).join('\n')}</tbody></table>
<p class="hint">${shown.length < over ? `The ${shown.length} furthest over their bound; result.json has up to 20 of each cell.` : 'All of them, furthest over the bound first.'}</p></div>`;
}

function row({ cell, violation }: Blamed): string {
  const { yield_ms, bound_ms, kernel, predicted_us, real_us } = violation;
  const isSlice = hasSlice(violation);
  const times = [usText(predicted_us), usText(real_us)].map((text) => (isSlice ? text : '–'));
  const cells = [
    cellName(cell),
    msText(yield_ms),
    msText(bound_ms),
    isSlice ? (kernel ?? '–') : 'no slice',
    ...times,
  ];
  const [name = '', took = '', allowed = '', waited = '', predicted = '', real = ''] = cells.map(escapeHtml);
  return `<tr><th>${name}</th><td class="number">${took}</td><td class="number">${allowed}</td><td><code>${waited}</code></td>
<td class="number">${predicted}</td><td class="number">${real}</td><td class="why always">${why(violation)}</td></tr>`;
}

/** The likeliest reason, from what is known of the slice that was waited for. */
function why(violation: Violation): string {
  const { predicted_us: predicted, real_us: real } = violation;
  if (!hasSlice(violation) || predicted === null || real === null)
    return 'the host or the adapter was late, not a slice';
  const lateMs = (real - predicted) / 1000;
  if (lateMs >= 0.8 * overMs(violation)) {
    return predicted > 0
      ? `a slice took ${numberText(real / predicted)} times its prediction`
      : 'a slice that no prediction knew of';
  }
  return 'several slices, or the host, were late; this one most';
}

function hasSlice({ kernel, real_us }: Violation): boolean {
  return kernel !== null && real_us !== null && real_us > 0;
}

function overMs({ yield_ms, bound_ms }: Violation): number {
  return yield_ms - bound_ms;
}

/** How often each kernel is named among the violations that are kept. */
function perKernel(blamed: readonly Blamed[]): string {
  const counts = new Map<string, number>();
  for (const { violation } of blamed) {
    const name = hasSlice(violation) ? (violation.kernel ?? '') : 'no slice';
    counts.set(name, (counts.get(name) ?? 0) + 1);
  }
  const most = [...counts].toSorted(([, a], [, b]) => b - a).slice(0, 6);
  const words = most
    .map(([name, count]) => `<code>${escapeHtml(name)}</code> ${numberText(count)}`)
    .join(', ');
  return `<p class="hint">Blamed most often, of the ${numberText(blamed.length)} kept: ${words}.</p>`;
}
