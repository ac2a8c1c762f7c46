import { msText, percentText } from '../../../telemetry/format.js';
import { escapeHtml } from '../../../telemetry/report/html.js';
import { logScale, rootScale } from '../../../telemetry/report/scale.js';
import type { PreemptCell, PreemptResult } from '../result.js';
import { budgetColour, budgetColours, cellName, MODES, overhead, usText } from './cells.js';
import { chart, type Chart, dots, keyEntry, line, type Mark } from './chart.js';
import { type Labelled, type LabelPlace, type Obstacle, placeLabels } from './labels.js';

const SMALLEST_MS = 0.005;
/** A name can be read across a line, if need be. */
const LINE_WEIGHT = 0.2;

interface Point extends Mark {
  readonly cell: PreemptCell;
}

/** What a short wait costs: p99 time to yield against low-priority throughput lost. Null when nothing was measured. */
export function paretoChart(result: PreemptResult): Chart | null {
  const cells = result.cells.filter(
    ({ yield_ms, lp_retained }) => yield_ms.p99 !== null && Number.isFinite(lp_retained),
  );
  if (cells.length === 0) return null;
  const p99Of = (cell: PreemptCell): number => Math.max(SMALLEST_MS, cell.yield_ms.p99 ?? SMALLEST_MS);
  const x = rootScale(Math.max(0, ...cells.map(overhead)));
  const y = logScale(Math.min(...cells.map(p99Of)), Math.max(...cells.map(p99Of)));
  const points = cells.map((cell): Point => {
    const [at, up] = [x.at(overhead(cell)), y.at(p99Of(cell))];
    const costs = `${percentText(overhead(cell))} of low-priority throughput`;
    return { cell, x: at, y: up, text: `${cellName(cell)}: p99 ${msText(cell.yield_ms.p99)} for ${costs}` };
  });
  const colours = budgetColours(result);
  const swept = points.filter(({ cell }) => cell.mode === 'held');
  const others = points.filter(({ cell }) => cell.mode !== 'held');
  const key = [
    ...[...colours].map(([us, colour]) => keyEntry('dot', colour, `slices of ${usText(us)}`)),
    ...(swept.some(({ cell }) => cell.hint) ? [keyEntry('dot ring', 'ink', 'with a hint')] : []),
    keyEntry('dot', 'soft', 'baselines and other ways, by name'),
  ];
  return chart({
    id: 'pareto',
    title: 'What a short wait costs',
    small: 'p99 time to yield, logarithmic',
    key,
    x,
    y,
    xText: percentText,
    yText: msText,
    xName: 'low-priority throughput lost; small losses drawn wider',
    drawing: drawing(swept, others, colours),
    overlay: labels(others, [
      ...points.map(({ x, y }) => ({ x, y, weight: 1 })),
      ...alongLines(swept, colours),
    ]),
    meaning:
      'Every dot is a cell; further down and to the left is better. Along a line the slice budget stays and the amount ' +
      `allowed in flight grows: more in flight costs less throughput and makes high priority wait longer.${clampNote(cells)}`,
    marks: points.map((point) => ({ x: point.x, y: point.y, text: point.text })),
  });
}

/** The cells that one line joins: those of a slice budget, with a hint or without, by what may be in flight. */
function joinedBy(swept: readonly Point[], sliceUs: number, hint: boolean): readonly Point[] {
  const joined = swept.filter(({ cell }) => cell.slice_budget_us === sliceUs && cell.hint === hint);
  return joined.toSorted((a, b) => inFlightUs(a.cell) - inFlightUs(b.cell));
}

function drawing(
  swept: readonly Point[],
  others: readonly Point[],
  colours: ReadonlyMap<number, string>,
): string {
  const lines = [...colours].flatMap(([us, colour]) =>
    [false, true].map((hint) => line(joinedBy(swept, us, hint), colour, hint ? 'dotted' : '')),
  );
  const marks = [
    dots(others, 'soft'),
    ...swept.map((point) => dots([point], budgetColour(colours, point.cell))),
    dots(
      swept.filter(({ cell }) => cell.hint),
      'card',
      'hole',
    ),
  ];
  return [...lines, ...marks].join('');
}

/** Places along the lines, so that no name is written across one. */
function alongLines(swept: readonly Point[], colours: ReadonlyMap<number, string>): Obstacle[] {
  const joined = [...colours.keys()].flatMap((us) => [joinedBy(swept, us, false), joinedBy(swept, us, true)]);
  return joined.flatMap((points) =>
    points.slice(1).flatMap((to, index) => {
      const from = points[index] ?? to;
      const shares = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9];
      return shares.map((share) => ({
        x: from.x + share * (to.x - from.x),
        y: from.y + share * (to.y - from.y),
        weight: LINE_WEIGHT,
      }));
    }),
  );
}

function inFlightUs({ in_flight_budget_us: us }: PreemptCell): number {
  return us ?? Infinity;
}

/** Names beside the dots that no line joins; with their budgets only where one way was measured with several. */
function labels(others: readonly Point[], inTheWay: readonly Obstacle[]): string {
  const named = others.map((point) => {
    const alike = others.filter(({ cell }) => cell.mode === point.cell.mode).length > 1;
    return { x: point.x, y: point.y, text: alike ? cellName(point.cell) : MODES[point.cell.mode].name };
  });
  return LAYOUTS.map(({ kind, sizes }) => {
    const places = placeLabels(named, inTheWay, sizes);
    return named.map((point, index) => labelHtml(point, places[index], kind)).join('');
  }).join('');
}

/** The style sheet shows the labels of one of them: a telephone's, or those of anything wider. In pixels. */
const LAYOUTS = [
  { kind: 'narrow', sizes: [{ width: 285, height: 270 }] },
  {
    kind: 'wide',
    sizes: [500, 750, 1010].map((width) => ({ width, height: 340 })),
  },
];

function labelHtml({ x, y, text }: Labelled, place: LabelPlace | undefined, kind: string): string {
  const { right = 0, down = 0 } = place ?? {};
  const at = `left:calc(${share(x)}% + ${Math.round(right)}px);top:calc(${share(1 - y)}% + ${down}px)`;
  return `<span class="label ${kind}" style="${at}">${escapeHtml(text)}</span>`;
}

function share(value: number): number {
  return Math.round(value * 10_000) / 100;
}

function clampNote(cells: readonly PreemptCell[]): string {
  const below = cells.map(overhead).filter((lost) => lost < 0);
  if (below.length === 0) return '';
  const most = percentText(-Math.min(...below));
  const one = below.length === 1;
  return ` ${below.length} ${one ? 'cell' : 'cells'} measured up to ${most} more throughput than uncut work gave, which is noise; ${one ? 'it is' : 'they are'} drawn at 0 %.`;
}
