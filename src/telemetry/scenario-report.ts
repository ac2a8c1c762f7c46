import { cautiousPercentText, msText, numberText, percentText, secondsText } from './format.js';
import type { MetricsRecord } from './metrics.js';
import { aboutSection } from './report/about.js';
import { accountsSection } from './report/accounts.js';
import { handoverSection } from './report/handover.js';
import { escapeHtml } from './report/html.js';
import { type HeldoutPoint, rewardChart } from './report/learning.js';
import { headerHtml, pageHtml, tile } from './report/page.js';
import { SCRIPT } from './report/script.js';
import { sharingSection } from './report/sharing.js';
import { timelineData } from './report/timeline-data.js';
import type { RunRecords } from './run-records.js';
import { JOB_HEADS, jobCells, type ScenarioSummary } from './scenario-summary.js';

export interface ScenarioReportInput {
  readonly summary: ScenarioSummary;
  readonly jobs: readonly {
    readonly id: string;
    readonly metrics: readonly MetricsRecord[];
    readonly heldout: readonly HeldoutPoint[];
  }[];
  /** Of all jobs. */
  readonly records: RunRecords;
  /** When the run ended, on lib/clock. */
  readonly endMs: number;
  readonly startedAt: Date;
  /** config.toml as resolved. */
  readonly config: string;
}

/** A run of several jobs as one self-contained HTML page: who had the lanes, how each job fared, what sharing cost. */
export function scenarioReportHtml(input: ScenarioReportInput): string {
  const { summary, jobs, records, endMs, config } = input;
  const timeline = timelineData(records, endMs);
  const charts = jobs.flatMap(({ id, metrics, heldout }) => {
    const chart = rewardChart(`reward-${id}`, id, metrics, heldout);
    return chart === null ? [] : [{ id: `reward-${id}`, ...chart }];
  });
  const title = `${summary.name}, ${summary.policy}, seed ${summary.seed}`;
  const body = `${header(input, title)}
<h2>How each job fared</h2>
${jobTable(summary)}
${sharingSection(records, timeline, endMs)}
${handoverSection(summary, records, endMs)}
<h2>Did they learn?</h2>
<div class="row">${charts.map(({ html }) => html).join('')}</div>
${accountsSection(summary)}
${aboutSection(config)}
<footer>Written by Offbeat. The raw numbers are beside this page: summary.json, trace.json, which opens in
ui.perfetto.dev, and in jobs/ID the metrics.jsonl and rollouts.jsonl of each job.</footer>`;
  const data = {
    charts: Object.fromEntries(charts.map(({ id, readout }) => [id, readout])),
    timeline,
  };
  return pageHtml({ title: `${title} · Offbeat run`, body, data, script: SCRIPT });
}

function header({ summary, startedAt, records }: ScenarioReportInput, title: string): string {
  const jobs = Object.keys(summary.jobs).length;
  const starvedSeconds = summary.starved_seconds;
  const { rebuilt } = summary.lanes;
  return headerHtml({
    kind: 'Offbeat run of several jobs',
    title,
    adapter: summary.adapter,
    startedAt,
    badges: [
      `${jobs} jobs`,
      ...(records.lanes.length > 1 ? [`${records.lanes.length} lanes`] : []),
      ...(rebuilt > 0 ? [`lost lanes rebuilt: ${rebuilt}`] : []),
    ],
    warnings: starvedSeconds > 0 ? [`generation starved for ${secondsText(starvedSeconds)}`] : [],
    lead: `Several training jobs shared the same lanes. Each generates answers, has them scored and learns from them, and
none knows of the others: the policy “${escapeHtml(summary.policy)}” decides whose engine is awake where and whose stage
comes next, and whenever training needs a device, generation stops at the next edge and keeps its place.`,
    tiles: tiles(summary),
  });
}

function tiles(summary: ScenarioSummary): string[] {
  const { tokens, preemption, busy } = summary;
  const yields = preemption.time_to_yield_ms;
  const meanBusy = busy.reduce((total, share) => total + share, 0) / Math.max(1, busy.length);
  return [
    tile('Makespan', secondsText(summary.makespan_s), 'until the last job was done'),
    tile('Goodput', `${numberText(summary.goodput)} /s`, 'tokens that reached a gradient'),
    tile(
      'Tokens a second',
      numberText(summary.tokens_per_second),
      `${numberText(tokens.decoded)} decoded in all`,
    ),
    tile('Busy', percentText(meanBusy), 'of the lanes’ time had a slice running'),
    tile(
      'Time to yield, p99',
      msText(yields.p99),
      preemption.law_obeyed_share === null
        ? 'no preemption'
        : `p50 ${msText(yields.p50)}; law obeyed by ${cautiousPercentText(preemption.law_obeyed_share)}`,
    ),
  ];
}

function jobTable({ jobs }: ScenarioSummary): string {
  const heads = [...JOB_HEADS, 'yield p99'];
  const rows = Object.entries(jobs).map(([id, job]) => {
    const cells = [...jobCells(job), msText(job.preemption.time_to_yield_ms.p99)];
    return `<tr><th>${escapeHtml(id)}</th>${cells.map((cell) => `<td class="number">${cell}</td>`).join('')}</tr>`;
  });
  return `<div class="card"><table><thead><tr><th></th>${heads.map((name) => `<th class="number">${name}</th>`).join('')}</tr></thead>
<tbody>${rows.join('')}</tbody></table></div>`;
}
