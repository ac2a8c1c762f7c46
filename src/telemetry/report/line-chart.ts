import { numberText } from '../format.js';
import { escapeHtml } from './html.js';
import { place, plot, round, tickLabels, VIEW } from './plot.js';
import { linearScale, tightScale, type Scale } from './scale.js';
import { thin, type Point } from './thin.js';

export interface Series {
  readonly name: string;
  readonly points: readonly Point[];
  /** A colour variable of the style sheet, without its dashes. */
  readonly colour: string;
  /** Single marks instead of a line. */
  readonly marks?: boolean;
}

export interface LineChart {
  readonly id: string;
  readonly title: string;
  readonly unit: string;
  /** What it shows, in one sentence. */
  readonly meaning: string;
  readonly series: readonly Series[];
  /** A shaded area from the first list to the second, which share their x. */
  readonly band?: { readonly name: string; readonly low: readonly Point[]; readonly high: readonly Point[] };
  readonly tall?: boolean;
}

/** What the page needs to read values off a chart under the pointer. */
export interface ChartReadout {
  readonly from: number;
  readonly to: number;
  readonly series: readonly {
    readonly name: string;
    readonly xs: readonly number[];
    readonly ys: readonly number[];
  }[];
}

const POINTS_MAX = 600;

/** The chart over optimizer steps as HTML, and its data for the readout; null when there is nothing to draw. */
export function lineChart(
  chart: LineChart,
): { readonly html: string; readonly readout: ChartReadout } | null {
  const series = chart.series
    .map((one) => ({ ...one, points: thin(finite(one.points), POINTS_MAX) }))
    .filter((one) => one.points.length > 0);
  if (series.length === 0) return null;
  const low = thin(finite(chart.band?.low ?? []), POINTS_MAX);
  const high = thin(finite(chart.band?.high ?? []), POINTS_MAX);
  const all = [...series.map((one) => one.points), low, high].flat();
  const x = tightScale(...extent(all.map((point) => point[0])), chart.tall ? 10 : 5);
  const y = linearScale(...extent(all.map((point) => point[1])), chart.tall ? 5 : 3);
  const drawing = [
    ...y.ticks.map((tick) => gridLine(y.at(tick))),
    areaPath(low, high, x, y),
    ...series.map((one) => seriesPath(one, x, y)),
  ].join('');
  const edges = [
    { name: 'worst', points: low },
    { name: 'best', points: high },
  ].filter(({ points }) => points.length > 0);
  const label = `${chart.title}: ${chart.meaning}`;
  return {
    html: `<figure class="chart${chart.tall ? ' tall' : ''}">
<figcaption><b>${escapeHtml(chart.title)}</b> <small>${escapeHtml(chart.unit)}</small>${legend(chart)}</figcaption>
${plot({ id: chart.id, label, drawing, x: tickLabels(x, numberText), y: tickLabels(y, numberText), xName: 'step' })}
<p>${escapeHtml(chart.meaning)}</p>
</figure>`,
    readout: { from: x.min, to: x.max, series: [...series, ...edges].map(readoutOf) },
  };
}

function legend(chart: LineChart): string {
  if (chart.series.length < 2 && !chart.band) return '';
  const entries = chart.series.map(
    ({ name, colour, marks }) =>
      `<span><i class="${marks ? 'dot' : 'line'}" style="background:var(--${colour})"></i>${escapeHtml(name)}</span>`,
  );
  if (chart.band) entries.push(`<span><i class="area"></i>${escapeHtml(chart.band.name)}</span>`);
  return `<span class="legend">${entries.join('')}</span>`;
}

function gridLine(at: number): string {
  const y = round(VIEW * (1 - at));
  return `<path class="grid" d="M0 ${y}H${VIEW}"/>`;
}

function seriesPath({ points, colour, marks }: Series, x: Scale, y: Scale): string {
  const style = `style="stroke:var(--${colour})"`;
  // A line of no length with round ends is a dot that stays round however the drawing is stretched.
  if (marks)
    return `<path class="dots" ${style} d="${points.map((point) => `M${placeOf(point, x, y)}h0`).join('')}"/>`;
  if (points.length === 1) return seriesPath({ name: '', points, colour, marks: true }, x, y);
  return `<path class="line" ${style} d="M${points.map((point) => placeOf(point, x, y)).join('L')}"/>`;
}

function areaPath(low: readonly Point[], high: readonly Point[], x: Scale, y: Scale): string {
  if (low.length === 0 || high.length === 0) return '';
  const outline = [...high, ...low.toReversed()].map((point) => placeOf(point, x, y));
  return `<path class="area" d="M${outline.join('L')}Z"/>`;
}

function placeOf([px, py]: Point, x: Scale, y: Scale): string {
  return place(x.at(px), y.at(py));
}

function readoutOf({ name, points }: Pick<Series, 'name' | 'points'>): ChartReadout['series'][number] {
  return { name, xs: points.map(([x]) => x), ys: points.map(([, y]) => Number(y.toPrecision(6))) };
}

function finite(points: readonly Point[]): Point[] {
  return points.filter(([, y]) => Number.isFinite(y));
}

function extent(values: readonly number[]): [number, number] {
  return values.reduce(
    ([low, high], value) => [Math.min(low, value), Math.max(high, value)],
    [Infinity, -Infinity],
  );
}
