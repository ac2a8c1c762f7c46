import { numberText, percentText } from '../../../telemetry/format.js';
import { quantiles } from '../../../telemetry/quantiles.js';
import { place } from '../../../telemetry/report/plot.js';
import { logScale, type Scale } from '../../../telemetry/report/scale.js';
import type { PreemptCell, PreemptResult } from '../result.js';
import { evenly } from '../segment.js';
import { budgetColour, budgetColours, cellName, claimsLaw, usText } from './cells.js';
import { chart, type Chart, dots, keyEntry, line } from './chart.js';

const DOTS_MAX = 1500;
const SMALLEST_US = 1;
/** The band around the diagonal. */
const FACTOR = 2;

interface Slice {
  readonly cell: PreemptCell;
  readonly predictedUs: number;
  readonly realUs: number;
}

/** How long slices took against what the cost model said they would. Null without any slice of a cell with a law. */
export function predictionChart(result: PreemptResult): Chart | null {
  const slices = result.cells.filter(claimsLaw).flatMap(slicesOf);
  const times = slices.flatMap(({ predictedUs, realUs }) => [predictedUs, realUs]);
  if (times.length === 0) return null;
  const [low, high] = times.reduce(
    ([a, b], us) => [Math.min(a, us), Math.max(b, us)],
    [Infinity, SMALLEST_US],
  );
  // The same on both axes, so that the diagonal is where the prediction was right.
  const scale = logScale(low, high);
  const colours = budgetColours(result);
  const shown = evenly(slices, DOTS_MAX);
  const perColour = [...colours.values()].map((colour) =>
    dots(
      shown
        .filter(({ cell }) => budgetColour(colours, cell) === colour)
        .map(({ predictedUs, realUs }) => ({ x: scale.at(predictedUs), y: scale.at(realUs) })),
      colour,
      'fine',
    ),
  );
  return chart({
    id: 'prediction',
    title: 'Did slices take as long as predicted?',
    small: 'real time of a low-priority slice, logarithmic',
    key: [
      ...[...colours].map(([us, colour]) => keyEntry('dot', colour, `slices of ${usText(us)}`)),
      keyEntry('line', 'ink', 'as predicted'),
      keyEntry('area', 'ink', 'within a factor of two'),
    ],
    x: scale,
    y: scale,
    xText: usText,
    yText: usText,
    xName: 'predicted time, logarithmic',
    drawing: [
      band(scale),
      line(
        [
          { x: 0, y: 0 },
          { x: 1, y: 1 },
        ],
        'ink',
        'thin',
      ),
      ...perColour,
    ].join(''),
    meaning: meaning(slices, shown.length),
    marks: evenly(shown, 400).map(({ cell, predictedUs, realUs }) => ({
      x: scale.at(predictedUs),
      y: scale.at(realUs),
      text: `${cellName(cell)}: predicted ${usText(predictedUs)}, took ${usText(realUs)}`,
    })),
  });
}

function slicesOf(cell: PreemptCell): Slice[] {
  const { slice_predicted_us: predicted, slice_real_us: real } = cell.samples;
  return predicted.flatMap((predictedUs, index): Slice[] => {
    const realUs = real[index];
    if (realUs === undefined || predictedUs <= 0) return [];
    return [{ cell, predictedUs: Math.max(SMALLEST_US, predictedUs), realUs: Math.max(SMALLEST_US, realUs) }];
  });
}

/** The area within a factor of two of the diagonal, cut off at the edges of the drawing. */
function band(scale: Scale): string {
  const wide = Math.min(1, scale.at(scale.min * FACTOR));
  const corners: readonly (readonly [x: number, y: number])[] = [
    [0, 0],
    [wide, 0],
    [1, 1 - wide],
    [1, 1],
    [1 - wide, 1],
    [0, wide],
  ];
  return `<path class="area band" d="M${corners.map(([x, y]) => place(x, y)).join('L')}Z"/>`;
}

function meaning(slices: readonly Slice[], shown: number): string {
  const ratios = quantiles(slices.map(({ predictedUs, realUs }) => realUs / predictedUs));
  const near = slices.filter(({ predictedUs, realUs }) => {
    const ratio = realUs / predictedUs;
    return ratio <= FACTOR && ratio >= 1 / FACTOR;
  });
  const part =
    shown < slices.length ? ` ${numberText(shown)} of ${numberText(slices.length)} are drawn.` : '';
  return (
    `Predictions are what the law rests on: a dot above the band is a slice that took more than twice its prediction. ` +
    `${percentText(near.length / slices.length)} were within a factor of two; real over predicted time was ` +
    `${numberText(ratios.p50)} at p50 and ${numberText(ratios.p99)} at p99.${part}`
  );
}
