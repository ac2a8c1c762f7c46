import { msText } from '../format.js';
import type { Quantiles } from '../quantiles.js';
import { escapeHtml } from './html.js';
import { plot, round, tickLabels, VIEW } from './plot.js';
import { linearScale, logScale, type Scale } from './scale.js';

export interface DistributionChart {
  readonly id: string;
  readonly title: string;
  readonly meaning: string;
  /** Milliseconds. */
  readonly samples: readonly number[];
  readonly quantiles: Quantiles;
  readonly colour: string;
  /** A line to stay under, in milliseconds, and what it is. */
  readonly bound?: { readonly ms: number; readonly name: string };
}

const BINS = 40;
const CURVE_POINTS_MAX = 400;
/** Shorter times are drawn as this long: to the host, the device was free at once. */
const SMALLEST_MS = 0.01;

/**
 * Histogram and cumulative distribution on one pair of axes: both are shares of the samples, over a logarithmic time.
 * Null when there is no sample.
 */
export function distributionChart(chart: DistributionChart): string | null {
  const sorted = chart.samples.map((ms) => Math.max(SMALLEST_MS, ms)).sort((a, b) => a - b);
  const [low, high] = [sorted[0], sorted.at(-1)];
  if (low === undefined || high === undefined) return null;
  const boundMs = chart.bound && chart.bound.ms > 0 ? chart.bound.ms : null;
  const x = logScale(Math.min(low, boundMs ?? low), Math.max(high, boundMs ?? high));
  const y = linearScale(0, 1, 4);
  const { p50, p99, max } = chart.quantiles;
  const drawing = [
    ...y.ticks.map((tick) => `<path class="grid" d="M0 ${VIEW * (1 - y.at(tick))}H${VIEW}"/>`),
    bars(sorted, x, chart.colour),
    `<path class="line" style="stroke:var(--${chart.colour})" d="${curve(sorted, x)}"/>`,
    upright(p50, x, 'p50'),
    upright(p99, x, 'p99'),
    upright(boundMs, x, 'bound'),
  ].join('');
  const key = [
    `<span><i class="line" style="background:var(--${chart.colour})"></i>share that took at most this long</span>`,
    `<span><i class="bar" style="background:var(--${chart.colour})"></i>share in this bin</span>`,
    `<span><i class="rule p50"></i>p50 ${msText(p50)}</span>`,
    `<span><i class="rule p99"></i>p99 ${msText(p99)}</span>`,
    `<span>max ${msText(max)}</span>`,
    ...(chart.bound
      ? [`<span><i class="rule bound"></i>${escapeHtml(chart.bound.name)} ${msText(chart.bound.ms)}</span>`]
      : []),
  ];
  const label = `${chart.title}: p50 ${msText(p50)}, p99 ${msText(p99)}, max ${msText(max)}`;
  const axes = { x: tickLabels(x, msText), y: tickLabels(y, (share) => `${Math.round(100 * share)} %`) };
  return `<figure class="chart tall">
<figcaption><b>${escapeHtml(chart.title)}</b> <small>${chart.quantiles.n} times</small>
<span class="legend">${key.join('')}</span></figcaption>
${plot({ id: chart.id, label, drawing, ...axes, xName: 'time, logarithmic' })}
<p>${escapeHtml(chart.meaning)}</p>
</figure>`;
}

function bars(sorted: readonly number[], x: Scale, colour: string): string {
  const counts = new Array<number>(BINS).fill(0);
  for (const ms of sorted) {
    const bin = Math.min(BINS - 1, Math.floor(x.at(ms) * BINS));
    counts[bin] = (counts[bin] ?? 0) + 1;
  }
  const width = VIEW / BINS;
  return counts
    .map((count, bin) => {
      const height = (VIEW * count) / sorted.length;
      const box = `x="${bin * width}" width="${width}" y="${round(VIEW - height)}" height="${round(height)}"`;
      return count === 0 ? '' : `<rect class="bar" style="fill:var(--${colour})" ${box}/>`;
    })
    .join('');
}

/** The empirical distribution: a step up at each sample, or at every n-th of very many. */
function curve(sorted: readonly number[], x: Scale): string {
  const stride = Math.ceil(sorted.length / CURVE_POINTS_MAX);
  let path = `M0 ${VIEW}`;
  for (const [index, ms] of sorted.entries()) {
    if ((index + 1) % stride !== 0 && index !== sorted.length - 1) continue;
    path += `H${round(VIEW * x.at(ms))}V${round(VIEW * (1 - (index + 1) / sorted.length))}`;
  }
  return `${path}H${VIEW}`;
}

function upright(ms: number | null, x: Scale, kind: 'p50' | 'p99' | 'bound'): string {
  if (ms === null) return '';
  return `<path class="rule ${kind}" d="M${round(VIEW * x.at(Math.max(SMALLEST_MS, ms)))} 0V${VIEW}"/>`;
}
