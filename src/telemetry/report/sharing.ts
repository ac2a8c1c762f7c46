import { msText, numberText, percentText, secondsText } from '../format.js';
import { quantiles, type Quantiles } from '../quantiles.js';
import type { Busy, RunRecords } from '../run-records.js';
import { yieldBudgetMs, type Summary } from '../summary.js';
import { distributionChart } from './distribution-chart.js';
import { escapeHtml } from './html.js';
import type { TimelineData } from './timeline-data.js';

/** How the device was shared: the timeline, who used it, and how long yielding and resuming took. */
export function sharingSection(
  summary: Summary,
  records: RunRecords,
  timeline: TimelineData,
  endMs: number,
): string {
  return `<h2>Who had the device, and when</h2>
<p>One row for each resident of a lane. Orange is training, blue is generation. A pink mark above them is a moment
when training asked for the device; it is as wide as generation took to let go.</p>
${timelineCard(records, timeline)}
${shareCard(records, endMs)}
<h2>How fast the device changed hands</h2>
<p>${yieldText(summary)}</p>
${distributions(summary, records)}`;
}

function timelineCard(records: RunRecords, timeline: TimelineData): string {
  if (records.slices.items.length === 0) return '<div class="card">No slice was recorded.</div>';
  const views = timeline.views
    .map(({ label }, index) => `<button type="button" data-view="${index}">${escapeHtml(label)}</button>`)
    .join('');
  const dropped = records.slices.dropped;
  const note =
    dropped === 0
      ? ''
      : ` The last ${numberText(dropped)} slices are not drawn: the record was full by then.`;
  return `<div class="card"><div class="tools">
<button type="button" data-act="whole">Whole run</button>${views}
<button type="button" data-act="in" aria-label="zoom in">+</button>
<button type="button" data-act="out" aria-label="zoom out">−</button>
<button type="button" data-act="left" aria-label="earlier">←</button>
<button type="button" data-act="right" aria-label="later">→</button></div>
<div id="timeline"><canvas tabindex="0" role="img" aria-label="Lane timeline: slices of each resident over time,
with preemptions and weight versions. Arrow keys move and zoom, 0 shows the whole run."></canvas>
<output hidden></output></div>
<div class="legend"><span><i style="background:var(--trainer)"></i>training</span>
<span><i style="background:var(--engine)"></i>generation; paler where it is less dense</span>
<span><i style="background:var(--yield)"></i>time to yield, with a thin line until generation is back</span>
<span><i style="background:var(--version)"></i>new weights</span></div>
<p class="hint">Drag to move. Click the timeline, then use the wheel to zoom, or the arrow keys; pinch on a touch
screen. Without a grey track behind its row, an engine is asleep.${note}</p>
<noscript><p>The timeline needs JavaScript; everything else on this page does not.</p></noscript></div>`;
}

function shareCard(records: RunRecords, endMs: number): string {
  const wallMs = Math.max(1e-3, endMs - records.startMs);
  const nameOf = records.naming();
  const rows = records.lanes.map(({ lane }) => {
    const busy = records.busy(lane);
    const idleMs = Math.max(0, wallMs - busy.reduce((sum, one) => sum + one.busyMs, 0));
    const parts = busy.map(
      ({ resident, busyMs }) =>
        `<i style="width:${(100 * busyMs) / wallMs}%;background:var(--${resident})"></i>`,
    );
    const words = [
      ...busy.map((one) => shareText(one, nameOf(one.job, one.resident), wallMs)),
      `idle ${percentText(idleMs / wallMs)}`,
    ];
    return `<div><b>lane ${lane}</b><div class="stack">${parts.join('')}</div><small>${words.join(' · ')}</small></div>`;
  });
  return `<div class="card" style="margin-top:12px">${rows.join('')}
<p class="hint">Shares of ${secondsText(wallMs / 1000)} of wall time. Idle is time in which no slice ran on the lane.</p></div>`;
}

function shareText({ busyMs, slices, dispatches }: Busy, name: string, wallMs: number): string {
  const work = `${numberText(slices)} slices, ${numberText(dispatches)} dispatches`;
  return `${escapeHtml(name)} ${percentText(busyMs / wallMs)} (${work})`;
}

function yieldText({ preemption, tokens_per_second: rate }: Summary): string {
  const { time_to_yield_ms: yields, count } = preemption;
  if (count === 0 || yields.p50 === null) return 'Training never had to take the device from generation.';
  return (
    `Training took the device from generation ${numberText(count)} times. Half of the time it could start within ` +
    `${msText(yields.p50)}; the longest wait was ${msText(yields.max)}. Over the same run ` +
    `${numberText(rate)} tokens a second were generated, and ${numberText(preemption.tokens_recomputed)} tokens ` +
    `had to be computed twice.`
  );
}

function distributions(summary: Summary, records: RunRecords): string {
  const samples = records.timesToYieldMs();
  const resumes = records.resumesMs();
  const slices = records.slices.items;
  const budgetMs = yieldBudgetMs(summary.preemption);
  const over = samples.filter((ms) => ms > budgetMs).length;
  const device = records.preemptions.items.flatMap(({ requestedMs, yieldedDeviceMs }) =>
    yieldedDeviceMs === null ? [] : [yieldedDeviceMs - requestedMs],
  );
  const yields = distributionChart({
    id: 'yield',
    title: 'Time to yield',
    meaning:
      'From the request for the device until the last slice of generation had finished, by the host’s clock. ' +
      `The budget is the work allowed in flight plus the largest single dispatch, both as predicted; ${numberText(over)} of ` +
      `${numberText(samples.length)} were over it.`,
    samples,
    quantiles: quantiles(samples),
    colour: 'yield',
    budget: { ms: budgetMs, name: 'budget' },
  });
  const resume = distributionChart({
    id: 'resume',
    title: 'Time to resume',
    meaning:
      'From the moment training gave the device back until generation’s first new token reached the host.',
    samples: resumes,
    quantiles: quantiles(resumes),
    colour: 'engine',
  });
  if (yields === null) return '';
  return `<div class="row half">${yields}${resume ?? ''}</div>
<div class="card" style="margin-top:12px"><table><thead><tr><th></th><th class="number">n</th><th class="number">p50</th>
<th class="number">p90</th><th class="number">p99</th><th class="number">max</th></tr></thead><tbody>
${quantileRow('time to yield, host clock', quantiles(samples))}
${device.length > 0 ? quantileRow('time to yield, device clock', quantiles(device)) : ''}
${quantileRow('time to resume', quantiles(resumes))}
${quantileRow('a slice, as predicted', quantiles(slices.map((slice) => slice.predictedUs / 1000)))}
${quantileRow('a slice, as measured', quantiles(slices.map((slice) => slice.finishedMs - slice.startedMs)))}</tbody></table>
<p class="hint">A slice may be predicted to take at most ${msText(summary.preemption.slice_budget_us / 1000)}.</p></div>`;
}

function quantileRow(name: string, { n, p50, p90, p99, max }: Quantiles): string {
  const cells = [numberText(n), ...[p50, p90, p99, max].map(msText)];
  return `<tr><th>${name}</th>${cells.map((cell) => `<td class="number">${cell}</td>`).join('')}</tr>`;
}
