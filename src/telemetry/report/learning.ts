import { metricInfo, type MetricName, type MetricsRecord } from '../metrics.js';
import type { Summary } from '../summary.js';
import { lineChart, type ChartReadout } from './line-chart.js';
import type { Point } from './thin.js';

/** A held-out measurement: after that many optimizer steps, the mean reward on prompts never trained on. */
export interface HeldoutPoint {
  readonly step: number;
  readonly score: number;
}

/** A part of the page, and the values its charts can read out, by chart id. */
export interface Section {
  readonly html: string;
  readonly readouts: Readonly<Record<string, ChartReadout>>;
}

/** The small charts, in order, and the colour of each. */
const SMALL: readonly { readonly name: MetricName; readonly title: string; readonly colour: string }[] = [
  { name: 'actor/loss', title: 'Loss', colour: 'trainer' },
  { name: 'actor/kl', title: 'KL', colour: 'trainer' },
  { name: 'actor/entropy', title: 'Entropy', colour: 'trainer' },
  { name: 'actor/grad_norm', title: 'Gradient norm', colour: 'trainer' },
  { name: 'rollout/response_length/mean', title: 'Response length', colour: 'engine' },
  { name: 'tokens/per_second', title: 'Tokens a second', colour: 'engine' },
];

export function learningSection(
  summary: Summary,
  metrics: readonly MetricsRecord[],
  heldout: readonly HeldoutPoint[],
): Section {
  const reward = rewardChart('reward', 'Reward', metrics, heldout);
  const small = SMALL.map(({ name, title, colour }) => {
    const { unit, meaning } = metricInfo(name);
    const series = [{ name: title.toLowerCase(), points: pointsOf(metrics, name), colour }];
    return { name, chart: lineChart({ id: name, title, unit, meaning, series }) };
  });
  const charts = [{ name: 'reward', chart: reward }, ...small];
  const drawn = charts.flatMap(({ name, chart }) => (chart ? [{ name, chart }] : []));
  if (drawn.length === 0) {
    return { html: '<h2>Did it learn?</h2><p>The run ended before its first step.</p>', readouts: {} };
  }
  const smallHtml = small.map(({ chart }) => chart?.html ?? '').join('');
  return {
    html: `<h2>Did it learn?</h2><p>${verdict(summary)}</p>${reward?.html ?? ''}<div class="row">${smallHtml}</div>`,
    readouts: Object.fromEntries(drawn.map(({ name, chart }) => [name, chart.readout])),
  };
}

/** @param id of the chart on its page */
export function rewardChart(
  id: string,
  title: string,
  metrics: readonly MetricsRecord[],
  heldout: readonly HeldoutPoint[],
): ReturnType<typeof lineChart> {
  return lineChart({
    id,
    title,
    unit: 'by optimizer step',
    meaning:
      'Each point is the mean reward of the rollouts one step was trained on; the band reaches from the worst to the ' +
      'best of them. Held-out prompts are never trained on.',
    tall: true,
    series: [
      { name: 'mean', points: pointsOf(metrics, 'rollout/score/mean'), colour: 'engine' },
      {
        name: 'held-out',
        points: heldout.map(({ step, score }): Point => [step, score]),
        colour: 'good',
        marks: true,
      },
    ],
    band: {
      name: 'worst to best',
      low: pointsOf(metrics, 'rollout/score/min'),
      high: pointsOf(metrics, 'rollout/score/max'),
    },
  });
}

function verdict({ reward }: Summary): string {
  const { first5, last5, heldout_before: before, heldout_after: after } = reward;
  if (first5 === null || last5 === null) return 'Too few steps to say.';
  const change = last5 - first5;
  const seen = `The mean reward of the last five steps is ${Math.abs(change).toFixed(2)} ${change < 0 ? 'below' : 'above'} that of the first five.`;
  if (before === null || after === null) return seen;
  const heldoutChange = after - before;
  const moved = heldoutChange > 0 ? 'rose' : heldoutChange < 0 ? 'fell' : 'did not move';
  return `${seen} On prompts it never trained on, the reward ${moved}: ${before.toFixed(2)} before, ${after.toFixed(2)} after.`;
}

function pointsOf(metrics: readonly MetricsRecord[], name: MetricName): Point[] {
  return metrics.flatMap((record): Point[] => {
    const value = record[name];
    return value === undefined ? [] : [[record.step, value]];
  });
}
