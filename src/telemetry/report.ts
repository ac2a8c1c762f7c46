import { cautiousPercentText, msText, numberText, percentText, scoreText, secondsText } from './format.js';
import type { MetricsRecord } from './metrics.js';
import { aboutSection } from './report/about.js';
import { accountsSection } from './report/accounts.js';
import { handoverSection } from './report/handover.js';
import { learningSection, type HeldoutPoint } from './report/learning.js';
import { headerHtml, pageHtml, tile } from './report/page.js';
import { SCRIPT } from './report/script.js';
import { sharingSection } from './report/sharing.js';
import { timelineData } from './report/timeline-data.js';
import type { RunRecords } from './run-records.js';
import type { Summary } from './summary.js';

export type { HeldoutPoint } from './report/learning.js';

export interface ReportInput {
  readonly summary: Summary;
  readonly metrics: readonly MetricsRecord[];
  readonly heldout: readonly HeldoutPoint[];
  readonly records: RunRecords;
  /** When the run ended, on lib/clock. */
  readonly endMs: number;
  readonly startedAt: Date;
  /** config.toml as resolved. */
  readonly config: string;
}

/**
 * One run as one self-contained HTML page: it loads nothing, works from a disk, and stays under about 1.5 MB because
 * every list in it is bounded. Charts are drawn here; a small script adds the timeline and values under the pointer.
 */
export function reportHtml(input: ReportInput): string {
  const { summary, metrics, heldout, records, endMs, config } = input;
  const timeline = timelineData(records, endMs);
  const learning = learningSection(summary, metrics, heldout);
  const title = `${summary.model}, seed ${summary.seed}`;
  const body = `${header(input, title)}
${learning.html}
${sharingSection(records, timeline, endMs)}
${handoverSection(summary, records, endMs)}
${accountsSection(summary)}
${aboutSection(config)}
<footer>Written by Offbeat. The raw numbers are beside this page: summary.json, metrics.jsonl, rollouts.jsonl, and
trace.json, which opens in ui.perfetto.dev.</footer>`;
  const data = { charts: learning.readouts, timeline };
  return pageHtml({ title: `${title} · Offbeat run`, body, data, script: SCRIPT });
}

function header({ summary, startedAt, records }: ReportInput, title: string): string {
  const lanes = records.lanes.length;
  const starvedSeconds = summary.starved_seconds;
  const { rebuilt } = summary.lanes;
  return headerHtml({
    kind: 'Offbeat run',
    title,
    adapter: summary.adapter,
    startedAt,
    badges: [
      ...(lanes > 1 ? [`${lanes} lanes`] : []),
      ...(rebuilt > 0 ? [`lost lanes rebuilt: ${rebuilt}`] : []),
    ],
    warnings: starvedSeconds > 0 ? [`generation starved for ${secondsText(starvedSeconds)}`] : [],
    lead: `A small language model answered prompts, each answer was scored, and the scores became better weights, over
and over. Answering and training share one device: whenever training needs it, answering stops at the next edge, keeps
its place, and goes on afterwards with the very tokens it would have written. This page shows whether the model
learned, and what the sharing cost.`,
    tiles: tiles(summary),
  });
}

function tiles(summary: Summary): string[] {
  const { reward, tokens, preemption } = summary;
  const yields = preemption.time_to_yield_ms;
  const goodput = tokens.decoded === 0 ? null : tokens.trained / tokens.decoded;
  return [
    tile(
      'Reward',
      `${scoreText(reward.first5)} → ${scoreText(reward.last5)}`,
      'mean of first 5 → last 5 steps',
    ),
    tile(
      'Held-out',
      `${scoreText(reward.heldout_before)} → ${scoreText(reward.heldout_after)}`,
      'prompts never trained on, before → after',
    ),
    tile('Steps', numberText(summary.steps), `in ${secondsText(summary.wall_seconds)}`),
    tile(
      'Tokens a second',
      numberText(summary.tokens_per_second),
      `${numberText(tokens.decoded)} decoded in all`,
    ),
    tile('Goodput', goodput === null ? '–' : percentText(goodput), 'of all tokens reached a gradient'),
    tile(
      'Time to yield, p99',
      msText(yields.p99),
      preemption.law_obeyed_share === null
        ? 'no preemption'
        : `p50 ${msText(yields.p50)}; law obeyed by ${cautiousPercentText(preemption.law_obeyed_share)}`,
    ),
  ];
}
