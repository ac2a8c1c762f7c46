import { numberText, percentText, secondsText } from '../format.js';
import type { Busy, RunRecords } from '../run-records.js';
import { escapeHtml } from './html.js';
import type { TimelineData } from './timeline-data.js';

/** How the device was shared: the timeline, and who used it. */
export function sharingSection(records: RunRecords, timeline: TimelineData, endMs: number): string {
  return `<h2>Who had the device, and when</h2>
<p>One row for each resident of a lane. Orange is training, brown that of a critic, blue is generation. A pink mark above them is a moment
when training asked for the device; it is as wide as generation took to let go.</p>
${timelineCard(records, timeline)}
${shareCard(records, endMs)}`;
}

/** The timeline with its tools and its key; the page's data must hold it, too. */
export function timelineCard(records: RunRecords, timeline: TimelineData): string {
  if (records.slices.items.length === 0) return '<div class="card">No slice was recorded.</div>';
  const views = timeline.views
    .map(({ label }, index) => `<button type="button" data-view="${index}">${escapeHtml(label)}</button>`)
    .join('');
  const starvedKey =
    records.starvedMs === 0
      ? ''
      : '<span><i style="background:var(--starved)"></i>starved: generation had work and no device</span>';
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
<span><i style="background:var(--version)"></i>new weights</span>${starvedKey}</div>
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
