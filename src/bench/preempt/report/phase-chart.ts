import { msText, numberText, percentText } from '../../../telemetry/format.js';
import { quantiles } from '../../../telemetry/quantiles.js';
import { place, round, VIEW } from '../../../telemetry/report/plot.js';
import { logScale, type Scale } from '../../../telemetry/report/scale.js';
import type { PreemptCell, PreemptResult } from '../result.js';
import { evenly } from '../segment.js';
import { cellName, defaultCell } from './cells.js';
import { chart, type Chart, dots, keyEntry, type Mark } from './chart.js';

const BINS = 12;
const DOTS_MAX = 900;
const SMALLEST_MS = 0.005;
/** The part of the width in which preemptions between steps stand, and the gap beside it. */
const BETWEEN = 0.16;
const GAP = 0.05;

interface Sample {
  /** Null between steps. */
  readonly phase: number | null;
  readonly ms: number;
}

/** The median of the samples in one part of the step. */
interface Bin {
  readonly from: number;
  readonly to: number;
  readonly name: string;
  readonly medianMs: number;
  readonly n: number;
}

/** Time to yield by how far low priority was in its step. Null when the default cell has no sample. */
export function phaseChart(result: PreemptResult): Chart | null {
  const cell = defaultCell(result.cells);
  const drain = result.cells.find(({ mode, samples }) => mode === 'drain' && samples.yield_ms.length > 0);
  if (cell === null || cell.samples.yield_ms.length === 0) return null;
  const own = samplesOf(cell);
  const [bins, drainBins] = [binsOf(own), drain === undefined ? [] : binsOf(samplesOf(drain))];
  const bound = cell.bound_ms === null ? [] : [cell.bound_ms];
  const all = [...own.map(({ ms }) => ms), ...drainBins.map(({ medianMs }) => medianMs), ...bound];
  const [low, high] = all.reduce(([a, b], ms) => [Math.min(a, ms), Math.max(b, ms)], [Infinity, SMALLEST_MS]);
  const y = logScale(Math.max(SMALLEST_MS, low), high);
  const places = evenly(own, DOTS_MAX).map(({ phase, ms }, index) => ({
    x: across(phase, index),
    y: y.at(ms),
  }));
  const key = [
    keyEntry('dot', 'engine', 'one preemption'),
    keyEntry('line', 'engine', `median of each part, ${cellName(cell)}`),
    ...(drain === undefined ? [] : [keyEntry('line dotted', 'yield', `the same, ${cellName(drain)}`)]),
    ...bound.map((ms) => keyEntry('rule bound', 'good', `bound ${msText(ms)}`)),
  ];
  return chart({
    id: 'phase',
    title: 'Does it matter when?',
    small: 'time to yield, logarithmic',
    key,
    x: X,
    y,
    xText: (phase) => (phase < 0 ? 'between' : percentText(phase)),
    yText: msText,
    xName: 'how far low priority was in its step when high priority asked',
    drawing: [
      dots(places, 'engine', 'fine'),
      ...bound.map((ms) => `<path class="rule bound" d="M${place(0, y.at(ms))}H${VIEW}"/>`),
      medians(drainBins, y, 'yield', 'dotted'),
      medians(bins, y, 'engine', ''),
    ].join(''),
    meaning:
      'Where steps are cut, it should make no difference how far the step has come. Where they are not (drain), whoever asks ' +
      'early in a step waits for all the rest of it. On the left are requests that came between two steps.',
    marks: [
      ...bins.map((bin) => markOf(bin, y, cellName(cell))),
      ...(drain === undefined ? [] : drainBins.map((bin) => markOf(bin, y, cellName(drain)))),
    ],
  });
}

/** Between steps on the left, then the step from its beginning to its end. */
const X: Scale = {
  min: -1,
  max: 1,
  ticks: [-1, 0, 0.25, 0.5, 0.75, 1],
  at: (phase) => (phase < 0 ? BETWEEN / 2 : BETWEEN + GAP + (1 - BETWEEN - GAP) * phase),
};

/** Those between steps are spread over their part, evenly and always alike. */
function across(phase: number | null, index: number): number {
  return phase === null
    ? BETWEEN * (0.1 + 0.8 * ((index * 0.618034) % 1))
    : X.at(Math.min(1, Math.max(0, phase)));
}

function samplesOf({ samples }: PreemptCell): Sample[] {
  return samples.yield_ms.map((ms, index) => ({
    phase: samples.phase[index] ?? null,
    ms: Math.max(SMALLEST_MS, ms),
  }));
}

function binsOf(samples: readonly Sample[]): Bin[] {
  const between = samples.filter(({ phase }) => phase === null);
  const groups = Array.from({ length: BINS }, (_, bin) =>
    samples.filter(({ phase }) => phase !== null && Math.min(BINS - 1, Math.floor(phase * BINS)) === bin),
  );
  const bins = groups.map((group, bin) => ({
    from: X.at(bin / BINS),
    to: X.at((bin + 1) / BINS),
    name: `${percentText(bin / BINS)} to ${percentText((bin + 1) / BINS)}`,
    group,
  }));
  return [{ from: 0, to: BETWEEN, name: 'between steps', group: between }, ...bins].flatMap(
    ({ group, ...bin }) => {
      const { p50: medianMs, n } = quantiles(group.map(({ ms }) => ms));
      return medianMs === null ? [] : [{ ...bin, medianMs, n }];
    },
  );
}

/** Steps through the medians; those between steps stand apart. */
function medians(bins: readonly Bin[], y: Scale, colour: string, kind: string): string {
  const path = bins.map(({ from, to, medianMs }, index) => {
    const joins = index > 0 && bins[index - 1]?.to === from;
    const up = round(VIEW * (1 - y.at(medianMs)));
    return `${joins ? `V${up}` : `M${round(VIEW * from)} ${up}`}H${round(VIEW * to)}`;
  });
  return `<path class="line ${kind}" style="stroke:var(--${colour})" d="${path.join('')}"/>`;
}

function markOf({ from, to, name, medianMs, n }: Bin, y: Scale, cell: string): Mark {
  const text = `${cell}, ${name}: median of ${numberText(n)} is ${msText(medianMs)}`;
  return { x: (from + to) / 2, y: y.at(medianMs), text };
}
