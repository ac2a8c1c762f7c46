import { at } from '../../../lib/assert.js';
import { numberText, secondsText } from '../../../telemetry/format.js';
import { escapeHtml } from '../../../telemetry/report/html.js';
import { tightScale } from '../../../telemetry/report/scale.js';
import type { Measured, Span, WorkKind } from '../measured.js';
import type { CompareResult } from '../result.js';
import { columnShares, SHADES, stripes } from './columns.js';

const COLUMNS = 600;
const LANES_SHOWN_MAX = 4;
const JOBS_SHOWN_MAX = 12;
const KINDS: readonly WorkKind[] = ['generation', 'training'];
const COLOURS = { generation: 'engine', training: 'trainer' } as const;

/** The first repeat of every policy, one below the other over the same seconds: a row for each job on each lane. */
export function timelinesCard({ policies, jobs, seeds }: CompareResult, runs: readonly Measured[]): string {
  const endMs = Math.max(1, ...runs.map((run) => run.endMs));
  const ids = jobs.slice(0, JOBS_SHOWN_MAX);
  const pictures = policies.map((policy, index) => picture(policy, at(runs, index), ids, endMs));
  return `<div class="card timelines">
<div class="legend"><span><i style="background:var(--trainer)"></i>training and its like: the job has the lane to itself</span>
<span><i style="background:var(--engine)"></i>generation; paler where it is less dense</span>
<span><i class="rule end"></i>the last job’s end</span></div>
${pictures.join('\n')}
${axis(endMs)}
<p class="hint">Repeat 1, seed ${at(seeds, 0)}. All pictures span the same ${secondsText(endMs / 1000)}.${runs.some((run) => run.lanes > 1) ? ' The number before a job is the lane’s.' : ''}${leftOut(jobs.length, runs)}</p></div>`;
}

function picture(policy: string, run: Measured, ids: readonly string[], endMs: number): string {
  const lanes = Array.from({ length: Math.min(run.lanes, LANES_SHOWN_MAX) }, (_, lane) => lane);
  const rows = lanes.flatMap((lane) =>
    ids.map((id) => {
      const spans = run.timeline.spans.filter((span) => span.lane === lane && span.job === id);
      return rowHtml(run.lanes > 1 ? `${lane} · ${id}` : id, spans, endMs);
    }),
  );
  const last = endOf(run);
  const mark = last === null ? '' : `<i class="end" style="left:${percent(Math.min(1, last / endMs))}"></i>`;
  const end = last === null ? 'did not end' : secondsText(last / 1000);
  return `<section><h3>${escapeHtml(policy)} <small>${end}</small></h3>
<div class="lanes" role="img" aria-label="${escapeHtml(`Timeline of ${policy}: ${end}`)}">${rows.join('')}<div class="marks">${mark}</div></div></section>`;
}

function rowHtml(name: string, spans: readonly Span[], endMs: number): string {
  const paths = KINDS.flatMap((kind) => {
    const own = spans.filter((span) => span.kind === kind);
    return own.length === 0 ? [] : [paint(own, kind, endMs)];
  });
  return `<span title="${escapeHtml(name)}">${escapeHtml(name)}</span><svg viewBox="0 0 ${COLUMNS} 1" preserveAspectRatio="none" aria-hidden="true">${paths.join('')}</svg>`;
}

/** One path for each shade, whatever the number of stretches. */
function paint(spans: readonly Span[], kind: WorkKind, endMs: number): string {
  const painted = stripes(columnShares(spans, endMs, COLUMNS));
  return Array.from({ length: SHADES }, (_, index) => {
    const own = painted.filter(({ shade }) => shade === index + 1);
    if (own.length === 0) return '';
    const path = own.map(({ from, to }) => `M${from} 0h${to - from}v1h${from - to}z`).join('');
    const opacity = kind === 'training' ? 0.4 + (0.6 * (index + 1)) / SHADES : (index + 1) / SHADES;
    return `<path style="fill:var(--${COLOURS[kind]});opacity:${Number(opacity.toFixed(2))}" d="${path}"/>`;
  }).join('');
}

/** When its last job was done; null if one never was. */
function endOf({ jobs }: Measured): number | null {
  const ends = jobs.flatMap(({ finishedMs }) => finishedMs ?? []);
  return ends.length < jobs.length ? null : Math.max(...ends);
}

function axis(endMs: number): string {
  const scale = tightScale(0, endMs / 1000, 6);
  const ticks = scale.ticks.map((tick) => {
    const at = scale.at(tick);
    // The outermost labels stay inside the card.
    const side = at < 0.03 ? 'first' : at > 0.97 ? 'last' : 'inner';
    return `<span class="${side}" style="left:${percent(at)}">${numberText(tick)} s</span>`;
  });
  return `<div class="lanes axis"><span></span><div>${ticks.join('')}</div></div>`;
}

function leftOut(jobs: number, runs: readonly Measured[]): string {
  const lanes = Math.max(...runs.map((run) => run.lanes));
  const dropped = runs.reduce((sum, { timeline }) => sum + timeline.dropped, 0);
  const parts = [
    ...(lanes > LANES_SHOWN_MAX ? [`${numberText(lanes - LANES_SHOWN_MAX)} more lanes`] : []),
    ...(jobs > JOBS_SHOWN_MAX ? [`${numberText(jobs - JOBS_SHOWN_MAX)} more jobs`] : []),
    ...(dropped > 0 ? [`${numberText(dropped)} stretches, for which the record had no room`] : []),
  ];
  return parts.length === 0 ? '' : ` Not drawn: ${parts.join('; ')}.`;
}

function percent(share: number): string {
  return `${Math.round(share * 10_000) / 100}%`;
}
