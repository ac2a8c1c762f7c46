import { msText, numberText } from '../../../telemetry/format.js';
import { nearestRank } from '../../../telemetry/quantiles.js';
import { place, round, VIEW } from '../../../telemetry/report/plot.js';
import { logScale, tailScale, type Scale } from '../../../telemetry/report/scale.js';
import type { PreemptCell, PreemptResult } from '../result.js';
import { cellName, claimsLaw, defaultCell } from './cells.js';
import { chart, type Chart, dots, keyEntry, type Mark } from './chart.js';

const POINTS_MAX = 400;
const COLOURS = ['engine', 'good', 'version', 'trainer', 'yield', 'starved', 'ink', 'soft'];
/** Shorter times are drawn as this long: the device was free at once. */
const SMALLEST_MS = 0.005;
const READOUTS = [
  { q: 0.5, name: 'p50' },
  { q: 0.9, name: 'p90' },
  { q: 0.99, name: 'p99' },
  { q: 0.999, name: 'p99.9' },
];

interface Curve {
  readonly cell: PreemptCell;
  readonly name: string;
  readonly colour: string;
  readonly sorted: Float64Array;
}

/** How the times to yield are distributed, one curve a cell, each with its bound. Null when nothing was measured. */
export function yieldChart(result: PreemptResult): Chart | null {
  const curves = telling(result.cells).map((cell, index): Curve => ({
    cell,
    name: cellName(cell),
    colour: COLOURS[index % COLOURS.length] ?? 'ink',
    sorted: Float64Array.from(cell.samples.yield_ms, (ms) => Math.max(SMALLEST_MS, ms)).sort(),
  }));
  const bounds = curves.flatMap(({ cell }) => (cell.bound_ms === null ? [] : [cell.bound_ms]));
  const ends = [...curves.flatMap(({ sorted }) => [sorted[0], sorted.at(-1)]), ...bounds]
    .filter((ms) => ms !== undefined)
    .map((ms) => Math.max(SMALLEST_MS, ms));
  if (curves.length === 0) return null;
  const x = logScale(Math.min(...ends), Math.max(...ends));
  const y = tailScale(Math.max(...curves.map(({ sorted }) => sorted.length)));
  const p99s = curves.map(({ sorted, colour }) => {
    const ms = nearestRank(sorted, 0.99);
    return ms === null ? '' : dots([{ x: x.at(ms), y: y.at(0.99) }], colour);
  });
  const drawing = [
    ...curves.map(({ cell, colour }) => boundLine(cell, colour, x)),
    ...curves.map((curve) => curveLine(curve, x, y)),
    ...p99s,
  ];
  return chart({
    id: 'yield',
    title: 'How long high priority waited',
    small: 'share of preemptions that yielded within this time',
    key: [
      ...curves.map(keyOf),
      keyEntry('rule bound', 'soft', 'bound of the curve of its colour'),
      keyEntry('dot', 'soft', 'p99'),
    ],
    x,
    y,
    xText: msText,
    yText: tailText,
    xName: 'time to yield, logarithmic',
    drawing: drawing.join(''),
    meaning:
      'Further left is faster. Upwards each step is ten times rarer, so that the slowest are seen as well as the usual. A ' +
      'curve that reaches the top to the left of its bound keeps the law. Dotted curves are baselines, which have none.',
    marks: curves.flatMap((curve) => readouts(curve, x, y)),
  });
}

/** The few cells that show most: Offbeat's default, with a hint, at its tightest, and what others do. */
function telling(cells: readonly PreemptCell[]): readonly PreemptCell[] {
  const some = cells.filter(({ samples }) => samples.yield_ms.length > 0);
  const usual = defaultCell(some);
  const held = some.filter(({ mode }) => mode === 'held');
  const hinted = held.find(
    ({ hint, slice_budget_us: slice, in_flight_budget_us: inFlight }) =>
      hint && slice === usual?.slice_budget_us && inFlight === usual.in_flight_budget_us,
  );
  const tightest = held.filter(({ hint }) => !hint).toSorted((a, b) => tightness(a) - tightness(b))[0];
  const others = (['one-slice', 'drain', 'unlimited', 'no-preemption', 'second-device'] as const).map(
    (mode) => some.find((cell) => cell.mode === mode),
  );
  const chosen = [usual, hinted, tightest, ...others].filter((cell) => cell !== null && cell !== undefined);
  const distinct = [...new Set(chosen)];
  return (distinct.length > 0 ? distinct : some).slice(0, COLOURS.length);
}

/** By what may be in flight; of equals the one with the finer slices. */
function tightness({ in_flight_budget_us: inFlight, slice_budget_us: slice }: PreemptCell): number {
  return (inFlight ?? Infinity) + (slice ?? 0) / 1e9;
}

/** All the nines: 99.99 % is not 100 %. */
function tailText(share: number): string {
  return `${Number((100 * share).toFixed(4))} %`;
}

function keyOf({ cell, name, colour }: Curve): string {
  const { p99 } = cell.yield_ms;
  const bound = cell.bound_ms === null ? '' : `, bound ${msText(cell.bound_ms)}`;
  return keyEntry(claimsLaw(cell) ? 'line' : 'line dotted', colour, `${name}: p99 ${msText(p99)}${bound}`);
}

function boundLine({ bound_ms: ms }: PreemptCell, colour: string, x: Scale): string {
  if (ms === null) return '';
  const at = round(VIEW * x.at(Math.max(SMALLEST_MS, ms)));
  return `<path class="rule bound" style="stroke:var(--${colour})" d="M${at} 0V${VIEW}"/>`;
}

/** The empirical distribution, with as many of its steps as can be told apart. */
function curveLine({ cell, colour, sorted }: Curve, x: Scale, y: Scale): string {
  const kind = claimsLaw(cell) ? '' : 'dotted';
  let path = '';
  let last = -1;
  for (let point = 0; point <= POINTS_MAX; point++) {
    const share = 1 - (1 - y.max) ** (point / POINTS_MAX);
    const index = Math.min(sorted.length - 1, Math.floor(share * sorted.length));
    if (index === last) continue;
    last = index;
    const at = x.at(sorted[index] ?? 0);
    // The middle of the sample's own step: the last one is not drawn as if nothing could ever take longer.
    const up = y.at((index + 0.5) / sorted.length);
    path += path === '' ? `M${place(at, 0)}V${round(VIEW * (1 - up))}` : `L${place(at, up)}`;
  }
  return `<path class="line ${kind}" style="stroke:var(--${colour})" d="${path}"/>`;
}

function readouts({ name, sorted }: Curve, x: Scale, y: Scale): Mark[] {
  return READOUTS.flatMap(({ q, name: quantile }): Mark[] => {
    const ms = nearestRank(sorted, q);
    if (ms === null || q > y.max) return [];
    return [
      { x: x.at(ms), y: y.at(q), text: `${name}: ${quantile} ${msText(ms)} of ${numberText(sorted.length)}` },
    ];
  });
}
