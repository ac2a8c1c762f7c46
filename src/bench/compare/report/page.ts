import { numberText, secondsText } from '../../../telemetry/format.js';
import { escapeHtml } from '../../../telemetry/report/html.js';
import { headerHtml, pageHtml, tile } from '../../../telemetry/report/page.js';
import type { Measured } from '../measured.js';
import { MEASURES, type Measure } from '../measures.js';
import type { CompareResult, CompareRow } from '../result.js';
import { aheadText, reachText } from '../words.js';
import { measureCharts, slowdownCharts, stalenessCharts, waitCharts } from './charts.js';
import { definitions } from './definitions.js';
import { COMPARE_STYLE } from './style.js';
import { differencesTable, numbersTable, pairsTable } from './tables.js';
import { timelinesCard } from './timelines.js';

/** What the tiles at the top show. */
const TILES = ['goodput', 'makespan_s', 'slowdown', 'jain'];

/**
 * The comparison as one self-contained HTML page without a script. Every list in it is bounded.
 *
 * @param runs of the first repeat, by policy
 */
export function compareReportHtml(result: CompareResult, runs: readonly Measured[], startedAt: Date): string {
  const body = `${header(result, startedAt)}
<h2>Which differences are real?</h2>
<p>Each policy against ${escapeHtml(result.policies[0] ?? '')}, paired by repeat: both ran with the same seeds. A difference
whose 95 % confidence interval holds 0 is inside the noise.</p>
${says(result)}
${differencesTable(result)}
${pairsTable(result)}
<h2>Who had the lanes, and when?</h2>
<p>The same work under each policy, over the same seconds.</p>
${timelinesCard(result, runs)}
<h2>The policies by every number</h2>
<p>Bars are means over ${counted(result.seeds.length, 'repeat')}; the thin line is the 95 % confidence interval of the mean.
A bar that is inside the noise against ${escapeHtml(result.policies[0] ?? '')} says so.</p>
${measureCharts(result)}
<h2>What sharing cost each job</h2>
<p>A job’s time from its coming to its end, against the same job alone on the same lanes.</p>
${slowdownCharts(result)}
<h2>Who waited, and how long?</h2>
<p>The bar reaches from the median to p99, the tick stands at the longest. Logarithmic; all repeats together.</p>
${waitCharts(result)}
<h2>How old was what was trained on?</h2>
<p>Every token carries the version of the weights it was sampled under.</p>
${stalenessCharts(result)}
<h2>Every number</h2>
<p>One row a policy, and below it one a job. Tokens are means a run.</p>
${numbersTable(result)}
${definitions(result)}
<footer>Written by offbeat compare. The numbers are beside this page, in result.json.</footer>`;
  const title = `${result.scenario}: ${result.policies.join(', ')} · Offbeat`;
  return pageHtml({ title, body, data: {}, script: '', style: COMPARE_STYLE });
}

function header(result: CompareResult, startedAt: Date): string {
  const { scenario, policies, jobs, lanes, seeds, repeats, machine, mode, notes } = result;
  return headerHtml({
    kind: `Offbeat, compare, ${mode}`,
    title: `${scenario}: ${counted(policies.length, 'policy', 'policies')} compared`,
    adapter: machine,
    startedAt,
    badges: [
      `${counted(jobs.length, 'job')}, ${counted(lanes, 'lane')}`,
      `${counted(seeds.length, 'repeat')}, seeds ${seeds.join(', ')}`,
      `measured in ${secondsText(result.wall_s)}`,
    ],
    warnings: [
      ...(mode === 'simulated' ? ['simulated: as good as its cost model'] : []),
      ...(seeds.length === 1 ? ['one repeat: nothing is known of the noise'] : []),
      ...(result.interrupted ? [`interrupted: ${seeds.length} of ${repeats} repeats are complete`] : []),
      ...notes,
    ],
    lead: `Several jobs train on the same lanes, and a policy decides who has which lane when. This page runs the same jobs
with the same seeds under each policy, and each job once alone. <b>Who gets more done, who is fair, and what does it cost?</b>`,
    tiles: MEASURES.filter(({ key }) => TILES.includes(key)).map((measure) => bestTile(result, measure)),
  });
}

/** The policy that is best by a measure, however narrowly; the section below says whether that means anything. */
function bestTile({ rows }: CompareResult, measure: Measure): string {
  const { key, name, unit, text, better } = measure;
  const title = `${better === 'lower' ? 'Lowest' : 'Highest'} ${name}`;
  const whole = rows.filter(({ job }) => job === null);
  const [best] = whole.flatMap((row) => rated(row, measure)).sort((a, b) => a.rank - b.rank);
  if (best === undefined) return tile(title, '–', 'no policy brought every job to its end');
  const value = `${text(best.row[key])}${unit === 's' ? ' s' : ''}`;
  const reach = reachText(best.row.ci95[key], measure);
  const ties = whole.filter((row) => row[key] === best.row[key]).map(({ policy }) => policy);
  return tile(title, value, [ties.join(', '), reach === '' ? '' : `(${reach})`].join(' ').trim());
}

function rated(row: CompareRow, { key, better }: Measure): { row: CompareRow; rank: number }[] {
  const value = row[key];
  return value === null ? [] : [{ row, rank: better === 'higher' ? -value : value }];
}

/** Who is ahead, and whether that means anything. */
function says(result: CompareResult): string {
  const ahead = aheadText(result);
  return ahead === null ? '' : `<p class="says">Highest goodput: <b>${escapeHtml(ahead)}</b>.</p>`;
}

function counted(count: number, noun: string, plural = `${noun}s`): string {
  return `${numberText(count)} ${count === 1 ? noun : plural}`;
}
