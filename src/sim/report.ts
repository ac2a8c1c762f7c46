import { numberText, percentText, secondsText } from '../telemetry/format.js';
import { escapeHtml } from '../telemetry/report/html.js';
import { headerHtml, pageHtml, tile } from '../telemetry/report/page.js';
import { SCRIPT } from '../telemetry/report/script.js';
import { timelineCard } from '../telemetry/report/sharing.js';
import { timelineData } from '../telemetry/report/timeline-data.js';
import type { RunRecords } from '../telemetry/run-records.js';
import type { SimSummary } from './summary.js';
import { JOB_COLUMNS, JOB_COLUMNS_HINT, simFacts } from './table.js';

const JOBS_MAX = 500;

export interface SimReportInput {
  readonly summary: SimSummary;
  readonly records: RunRecords;
  readonly endMs: number;
  readonly writtenAt: Date;
  /** config.toml as resolved. */
  readonly config: string;
}

/** A simulation as one self-contained HTML page like a live run's; every list in it is bounded. */
export function simReportHtml({ summary, records, endMs, writtenAt, config }: SimReportInput): string {
  const timeline = timelineData(records, endMs);
  const title = `${summary.scenario} under ${summary.policy}, seed ${summary.seed}`;
  const hidden = summary.lanes.count - records.lanes.length;
  const body = `${header(summary, writtenAt, title)}
<h2>What became of each job</h2>
${jobsCard(summary)}
<h2>Who had the device, and when</h2>
<p>One row for each resident of a lane. Orange is training, blue is generation; engines of several jobs on one lane share
its time. ${hidden > 0 ? `The first ${records.lanes.length} lanes are drawn, ${numberText(hidden)} more are not.` : ''}</p>
${timelineCard(records, timeline)}
<h2>What was simulated</h2>
${factsCard(summary)}
<h2>How to get these numbers again</h2>
<p>Saved as config.toml beside this page, it is what <code>offbeat simulate config.toml</code> takes.</p>
<div class="card"><details><summary>config.toml</summary><pre>${escapeHtml(config)}</pre></details></div>
<footer>Written by offbeat simulate. The numbers are beside this page: summary.json, and trace.json, which opens in
ui.perfetto.dev.</footer>`;
  return pageHtml({
    title: `${title} · Offbeat simulation`,
    body,
    data: { charts: {}, timeline },
    script: SCRIPT,
  });
}

function header(summary: SimSummary, startedAt: Date, title: string): string {
  const { lanes, jobs, makespan_s: makespan } = summary;
  const decoded = jobs.reduce((sum, { tokens }) => sum + tokens.decoded, 0);
  const trained = jobs.reduce((sum, { tokens }) => sum + tokens.trained, 0);
  return headerHtml({
    kind: 'Offbeat simulation',
    title,
    adapter: {
      vendor: '',
      architecture: '',
      description: `simulated: ${summary.costs.name}`,
      software: false,
    },
    startedAt,
    badges: [`${numberText(lanes.count)} lanes`, `${numberText(jobs.length)} jobs`],
    warnings: makespan === null ? ['not every job ended'] : [],
    lead: `The scheduler and the policy are those of a live run; lanes, clock and work are simulated. Costs:
${escapeHtml(summary.costs.source)}.`,
    tiles: [
      tile('Makespan', makespan === null ? '–' : secondsText(makespan), 'of simulated time'),
      tile('Lanes at work', percentText(lanes.training + lanes.generation), 'of all their time'),
      tile('Tokens', numberText(decoded), 'sampled in all'),
      tile(
        'Goodput',
        decoded === 0 ? '–' : percentText(trained / decoded),
        'of all tokens reached a gradient',
      ),
      tile('Cycles', numberText(summary.cycles), `${numberText(summary.violations)} plans refused`),
    ],
  });
}

function jobsCard({ jobs }: SimSummary): string {
  const cell = (text: string, column: number): string =>
    column === 0 ? `<th>${escapeHtml(text)}</th>` : `<td class="number">${escapeHtml(text)}</td>`;
  const heads = JOB_COLUMNS.map(([head]) => `<th class="number">${head}</th>`).join('');
  const rows = jobs
    .slice(0, JOBS_MAX)
    .map((job) => `<tr>${JOB_COLUMNS.map(([, of], column) => cell(of(job), column)).join('')}</tr>`);
  const more =
    jobs.length > JOBS_MAX ? ` ${numberText(jobs.length - JOBS_MAX)} jobs more are in summary.json.` : '';
  return `<div class="card"><table><thead><tr>${heads}</tr></thead><tbody>${rows.join('')}</tbody></table>
<p class="hint">${JOB_COLUMNS_HINT}.${more}</p></div>`;
}

function factsCard(summary: SimSummary): string {
  const rows = simFacts(summary).map(
    ([name, text]) => `<tr><th>${name}</th><td class="why always">${escapeHtml(text)}</td></tr>`,
  );
  return `<div class="card"><table><tbody>${rows.join('')}</tbody></table></div>`;
}
