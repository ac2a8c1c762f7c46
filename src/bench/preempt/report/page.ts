import { cautiousPercentText, msText, numberText, secondsText } from '../../../telemetry/format.js';
import { escapeHtml } from '../../../telemetry/report/html.js';
import { headerHtml, pageHtml, tile } from '../../../telemetry/report/page.js';
import type { PreemptCell, PreemptResult } from '../result.js';
import { cellName, defaultCell, MODES, obeyedShareOf } from './cells.js';
import type { Chart } from './chart.js';
import { definitions } from './definitions.js';
import { paretoChart } from './pareto-chart.js';
import { phaseChart } from './phase-chart.js';
import { predictionChart } from './prediction-chart.js';
import { promisesCard } from './promises.js';
import { BENCH_SCRIPT } from './script.js';
import { BENCH_STYLE } from './style.js';
import { signedPercentText, tables } from './tables.js';
import { violationsCard } from './violations.js';
import { wasteCard } from './waste.js';
import { yieldChart } from './yield-chart.js';

/**
 * The measurement as one self-contained HTML page: it loads nothing and works from a disk. Every list in it is bounded,
 * so it stays well under 1.5 MB however many preemptions were measured.
 */
export function preemptReportHtml(result: PreemptResult, startedAt: Date): string {
  const charts = {
    yields: yieldChart(result),
    pareto: paretoChart(result),
    phase: phaseChart(result),
    prediction: predictionChart(result),
  };
  const body = `${header(result, startedAt)}
<h2>Does it keep its word?</h2>
<p>${verdictText(result)}</p>
${promisesCard(result)}
<h2>How long does high priority wait?</h2>
<p>The law: time to yield ≤ detection + in-flight budget + largest dispatch + 200 µs, on every single preemption. Whatever
breaks it is counted and listed below.</p>
${htmlOf(charts.yields)}
<h2>What does a short wait cost?</h2>
<p>It is easy to yield at once by hardly running at all. So no wait is shown without the throughput that low priority kept
in the very same cell.</p>
${htmlOf(charts.pareto)}
<h2>Does it matter when high priority asks?</h2>
<p>Requests come at random moments, so they find low priority at every point of its step.</p>
${htmlOf(charts.phase)}
<h2>Are the predictions right?</h2>
<p>Before a slice is submitted, a cost model says how long it will take; the bound is kept by believing it.</p>
${htmlOf(charts.prediction)}
<h2>What was wasted?</h2>
<p>Device time that came to nothing, in each cell.</p>
${wasteCard(result.cells)}
<h2>When the law was broken</h2>
<p>Counted over all cells that claim it, the worst explained by the slice that high priority had to wait for.</p>
${violationsCard(result)}
<h2>Every number</h2>
<p>One row a cell; the default cell stands out.${leftOutText(result)}</p>
${tables(result.cells)}
${definitions(result)}
<footer>Written by offbeat bench preempt. The raw samples are beside this page, in result.json.</footer>`;
  const drawn = Object.values(charts).filter((chart) => chart !== null);
  const data = { charts: Object.fromEntries(drawn.map((chart) => [chart.id, marksOf(chart)])) };
  return pageHtml({ title: 'Preemption · Offbeat', body, data, script: BENCH_SCRIPT, style: BENCH_STYLE });
}

/** As the script wants them; no screen shows a ten-thousandth of a chart. */
function marksOf({ marks }: Chart): (readonly [x: number, y: number, text: string])[] {
  const short = (share: number): number => Math.round(share * 10_000) / 10_000;
  return marks.map(({ x, y, text }) => [short(x), short(y), text]);
}

function htmlOf(chart: Chart | null): string {
  return chart?.html ?? '<div class="card">Nothing was measured that could be drawn here.</div>';
}

function header(result: PreemptResult, startedAt: Date): string {
  const { adapter, host, cells, wall_s } = result;
  const n = cells.reduce((sum, cell) => sum + cell.n, 0);
  return headerHtml({
    kind: 'Offbeat, bench preempt',
    title: 'How fast, and at what price, generation gives the device back',
    adapter,
    startedAt,
    badges: [
      `${host.cpu_model}, ${host.cpus} cores`,
      `${numberText(n)} preemptions in ${cells.length} cells, ${secondsText(wall_s)}`,
      `seed ${result.seed}`,
    ],
    warnings: result.interrupted ? ['interrupted: what was measured until then'] : [],
    lead: `Offbeat lets a small language model write answers on a GPU in the moments when training leaves it idle. That is only
welcome if training gets the device back at once when it wants it, and nothing that was submitted to a GPU can be called back.
So this page measures one thing many times: a training step (high priority) asks for the device while generation (low
priority) is using it. <b>How long does the step wait, and how much generation is lost for it?</b> Each way of sharing is one
cell, measured in turns with the others on the same machine.`,
    tiles: tiles(result),
  });
}

function tiles({ cells, host_jitter: jitter, host_jitter_ms, unchunked }: PreemptResult): string[] {
  const cell = defaultCell(cells);
  const obeyed = obeyedShareOf(cells);
  const over = cells.reduce((sum, { law_violations }) => sum + law_violations, 0);
  return [
    tile(
      'Time to yield, p99',
      msText(cell?.yield_ms.p99 ?? null),
      cell === null ? 'no default cell' : boundText(cell),
    ),
    tile(
      'Obey the law',
      obeyed === null ? '–' : cautiousPercentText(obeyed),
      `${numberText(over)} over, in all cells that claim it`,
    ),
    tile(
      'Throughput kept',
      cell === null ? '–' : cautiousPercentText(cell.lp_retained),
      `of ${numberText(unchunked.lp_tokens_per_s)} tokens/s uncut, in the time left`,
    ),
    tile(
      'Training step',
      cell === null ? '–' : signedPercentText(cell.hp_slowdown),
      'against one alone on the device, p50',
    ),
    tile('Back at work', msText(cell?.resume_ms ?? null), 'release to first new token, p50'),
    tile('Host jitter, p99', msText(host_jitter_ms), `p50 ${msText(jitter.p50)}, on an empty device`),
  ];
}

function boundText({ yield_ms, bound_ms }: PreemptCell): string {
  return `p50 ${msText(yield_ms.p50)}, bound ${msText(bound_ms)}`;
}

/** Cells that were asked for and are not here are named. */
function leftOutText({ left_out }: PreemptResult): string {
  return left_out.length === 0 ? '' : ` For want of time left out: ${escapeHtml(left_out.join('; '))}.`;
}

/** The result in two sentences: Offbeat's default beside what others do. */
function verdictText({ cells }: PreemptResult): string {
  const cell = defaultCell(cells);
  if (cell === null) return 'The default cell was not measured.';
  const own = `With its default budgets (${cellName(cell)}) a training step waited ${msText(cell.yield_ms.p99)} at p99 while generation kept ${cautiousPercentText(cell.lp_retained)} of its throughput.`;
  const others = (['drain', 'abort-retry', 'no-preemption'] as const).flatMap((mode) => {
    const other = cells.find((each) => each.mode === mode && each.n > 0);
    if (other === undefined) return [];
    return [
      `${MODES[mode].name}: ${msText(other.yield_ms.p99)} and ${cautiousPercentText(other.lp_retained)}`,
    ];
  });
  const beside = others.length === 0 ? '' : ` What others do, measured here: ${others.join('; ')}.`;
  return escapeHtml((own + beside).replaceAll(/ (?=%|(?:ms|µs|s)\b)/g, '\u00a0'));
}
