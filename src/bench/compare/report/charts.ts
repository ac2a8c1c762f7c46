import { msText, numberText, percentText } from '../../../telemetry/format.js';
import type { Quantiles } from '../../../telemetry/quantiles.js';
import { escapeHtml } from '../../../telemetry/report/html.js';
import { logScale } from '../../../telemetry/report/scale.js';
import { MEASURES, type Measure } from '../measures.js';
import type { CompareResult, CompareRow, MeasureKey } from '../result.js';
import { reachText } from '../words.js';
import { type Bar, barChart, percent } from './bars.js';

const JOBS_SHOWN_MAX = 24;
/** Shorter waits are drawn as this long: nobody waited. */
const SMALLEST_MS = 0.1;

const MEANINGS: Readonly<Record<MeasureKey, string>> = {
  goodput: 'Tokens that reached a gradient, over the makespan. More is better.',
  makespan_s: 'From the first job’s coming to the last one’s end. Less is better.',
  slowdown:
    'A job’s time over its time alone on the same lanes; geometric mean of the jobs. 1 is as if alone.',
  jain: 'Jain’s index over the jobs’ speed against alone: 1 when all are slowed down alike, 1/n when one gets all.',
  busy: 'Share of the lanes’ time in which a device worked. More is not better by itself: work can be wasted.',
  wasted: 'Share of the tokens computed that were aborted, expired, filtered or computed again.',
  token_p99_ms:
    'p99 of the time between two tokens of a sequence; training, waits without a slot and moves included. Of all jobs, the worst one’s.',
  weight_bytes: 'Weights that crossed the host, a run. A copy on the device sends none.',
};

/** Measures whose axis is the whole of something. */
const WHOLE: ReadonlySet<MeasureKey> = new Set(['jain', 'busy']);

/** One chart for each measure, a bar for each policy. */
export function measureCharts({ rows, differences, policies }: CompareResult): string {
  const whole = rows.filter(({ job }) => job === null);
  const charts = MEASURES.map((measure) => {
    const bars = whole.map((row): Bar => {
      const isNoise = differences.some(
        ({ measure: key, policy, against, verdict }) =>
          key === measure.key && policy === row.policy && against === policies[0] && verdict === 'noise',
      );
      return {
        ...barOf(row.policy, row, measure),
        ...(isNoise ? { note: 'inside the noise' } : {}),
      };
    });
    return barChart({
      title: capitalized(measure.name),
      small: measure.unit,
      meaning: MEANINGS[measure.key],
      bars,
      ...(WHOLE.has(measure.key) ? { max: 1 } : {}),
    });
  });
  return `<div class="row half">${charts.join('\n')}</div>`;
}

/** Slowdown of each job, policy by policy. */
export function slowdownCharts({ policies, jobs, rows, solo }: CompareResult): string {
  const measure = MEASURES.find(({ key }) => key === 'slowdown');
  if (measure === undefined) return '';
  const shown = jobs.slice(0, JOBS_SHOWN_MAX);
  const max = Math.max(
    ...rows.map(({ job, slowdown, ci95 }) =>
      job === null ? 0 : Math.max(slowdown ?? 0, ci95.slowdown?.[1] ?? 0),
    ),
  );
  const charts = shown.map((job) => {
    const alone = solo.find((each) => each.job === job)?.seconds ?? null;
    const bars = policies.flatMap((policy) => {
      const row = rows.find((each) => each.policy === policy && each.job === job);
      return row === undefined ? [] : [barOf(policy, row, measure)];
    });
    const meaning = `Alone: ${alone === null ? 'did not end' : `${numberText(alone)} s`}.`;
    return barChart({ title: job, small: '× its time alone', meaning, bars, max, colour: 'version' });
  });
  const left = jobs.length - shown.length;
  const note = left > 0 ? `<p class="hint">${numberText(left)} more jobs are in the table below.</p>` : '';
  return `<div class="row half">${charts.join('\n')}</div>${note}`;
}

function barOf(name: string, row: CompareRow, measure: Measure): Bar {
  const { key, text } = measure;
  const reach = reachText(row.ci95[key], measure);
  const interval = reach === '' ? null : row.ci95[key];
  return { name, value: row[key], interval, text: `${text(row[key])} ${reach}`.trim() };
}

/** Waits for each stage and times to yield: p50 to p99 of each policy on a logarithmic axis. */
export function waitCharts({ rows }: CompareResult): string {
  const whole = rows.filter(({ job }) => job === null);
  const stages = [...new Set(whole.flatMap(({ queue_wait_ms: waits }) => Object.keys(waits)))];
  const charts = stages.map((stage) =>
    rangeChart(
      stage,
      'from asking for the lane to its grant',
      whole.map((row) => [row.policy, new Map(Object.entries(row.queue_wait_ms)).get(stage) ?? null]),
    ),
  );
  const yields = rangeChart(
    'Time to yield',
    'from a stage’s grant until generation had let go',
    whole.map((row) => [row.policy, row.yield_ms]),
  );
  return `<div class="row half">${[...charts, yields].join('\n')}</div>`;
}

function rangeChart(
  title: string,
  small: string,
  rows: readonly (readonly [name: string, times: Quantiles | null])[],
): string {
  const ends = rows.flatMap(([, times]) => [times?.p50 ?? [], times?.max ?? []].flat());
  const clamped = ends.map((ms) => Math.max(SMALLEST_MS, ms));
  const x = logScale(Math.min(SMALLEST_MS * 10, ...clamped), Math.max(SMALLEST_MS * 100, ...clamped));
  const place = (ms: number | null): number => x.at(Math.max(SMALLEST_MS, ms ?? 0));
  const lines = rows.map(([name, times]) => {
    const isEmpty = times === null || times.n === 0;
    const [low, high, most] = [
      place(times?.p50 ?? null),
      place(times?.p99 ?? null),
      place(times?.max ?? null),
    ];
    const drawn = isEmpty
      ? ''
      : `<b class="range" style="left:${percent(low)};width:${percent(high - low)}"></b><u style="left:${percent(most)}"></u>`;
    const text = isEmpty ? 'none' : `${msText(times.p50)} · ${msText(times.p99)}`;
    const note = isEmpty ? '' : `<small>n ${numberText(times.n)}, max ${msText(times.max)}</small>`;
    return `<span class="name">${escapeHtml(name)}</span><span class="track">${drawn}</span><span class="of">${text}${note}</span>`;
  });
  const ticks = x.ticks.map((tick) => `<span style="left:${percent(x.at(tick))}">${msText(tick)}</span>`);
  return `<figure class="chart"><figcaption><b>${escapeHtml(title)}</b> <small>${escapeHtml(small)}</small></figcaption>
<div class="bars">${lines.join('')}<span></span><span class="ticks">${ticks.join('')}</span><span></span></div></figure>`;
}

/** How old what was trained on was, one small histogram a policy. */
export function stalenessCharts({ rows, staleness_unit: unit }: CompareResult): string {
  const whole = rows.filter(({ job }) => job === null);
  const length = Math.max(0, ...whole.map(({ staleness }) => staleness.length));
  const charts = whole.map(({ policy, staleness }) => {
    const bars = Array.from({ length }, (_, versions): Bar => {
      const share = staleness[versions] ?? 0;
      return { name: `${versions} behind`, value: share, interval: null, text: percentText(share) };
    });
    const meaning = staleness.length === 0 ? 'Nothing was trained on.' : `Shares of the ${unit} trained on.`;
    return barChart({
      title: policy,
      small: 'versions behind the newest',
      meaning,
      bars,
      max: 1,
      colour: 'good',
    });
  });
  return `<div class="row">${charts.join('\n')}</div>`;
}

function capitalized(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1);
}
