import { numberText } from '../../../telemetry/format.js';
import { escapeHtml } from '../../../telemetry/report/html.js';
import { MEASURES, measureOf } from '../measures.js';
import type { CompareDifference, CompareResult, CompareRow } from '../result.js';
import { differenceWords, valueText } from '../words.js';

/** Rows of every job that the page has room for; the file has all. */
const ROWS_MAX = 400;

/** Each policy against the first, by every measure. */
export function differencesTable({ policies, differences }: CompareResult): string {
  const [first = '', ...others] = policies;
  const heads = MEASURES.map(({ name }) => `<th>${name}</th>`).join('');
  const rows = others.map((policy) => {
    const cells = MEASURES.map(({ key }) => {
      const each = differences.find(
        ({ measure, policy: ours, against }) => measure === key && ours === policy && against === first,
      );
      return each === undefined ? '<td>–</td>' : differenceCell(each);
    });
    return `<tr><th>${escapeHtml(policy)}</th>${cells.join('')}</tr>`;
  });
  return `<div class="card wide"><table class="differences"><thead><tr><th>against ${escapeHtml(first)}</th>${heads}</tr></thead>
<tbody>${rows.join('')}</tbody></table></div>`;
}

/** Every policy against every other one by goodput; empty for two, who have met already. */
export function pairsTable({ policies, differences }: CompareResult): string {
  if (policies.length < 3) return '';
  const heads = policies.slice(0, -1).map((policy) => `<th>${escapeHtml(policy)}</th>`);
  const rows = policies.slice(1).map((policy, index) => {
    const cells = policies.slice(0, -1).map((against, column) => {
      const each = differences.find(
        (one) => one.measure === 'goodput' && one.policy === policy && one.against === against,
      );
      return each === undefined || column > index ? '<td></td>' : differenceCell(each);
    });
    return `<tr><th>${escapeHtml(policy)}</th>${cells.join('')}</tr>`;
  });
  return `<details><summary>Every pair, by goodput</summary><div class="card wide"><table class="differences">
<thead><tr><th>against</th>${heads.join('')}</tr></thead><tbody>${rows.join('')}</tbody></table></div></details>`;
}

/** Green for better, red for worse, plain for what nobody can tell. */
function differenceCell(each: CompareDifference): string {
  const { better } = measureOf(each.measure);
  const isClear = each.verdict === 'higher' || each.verdict === 'lower';
  const tone =
    !isClear || better === 'neither' ? 'plain' : each.verdict === better ? 'verdict' : 'verdict bad';
  const { size, range } = differenceWords(each);
  const small = range === '' ? '' : `<small>${escapeHtml(range)}</small>`;
  return `<td><span class="${tone}">${escapeHtml(size)}</span>${small}</td>`;
}

/** Everything of every policy and job. */
export function numbersTable({ rows }: CompareResult): string {
  const shown = rows.slice(0, ROWS_MAX);
  const heads = MEASURES.map(
    ({ name, unit }) => `<th class="number">${name}${unit === '' ? '' : `<br>${escapeHtml(unit)}`}</th>`,
  ).join('');
  const body = shown.map((row) => {
    const values = MEASURES.map(
      (measure) => `<td class="number">${escapeHtml(valueText(row, measure))}</td>`,
    );
    return `<tr${row.job === null ? ' class="usual"' : ''}><th>${rowName(row)}</th>${values.join('')}${tokenCells(row)}</tr>`;
  });
  const left = rows.length - shown.length;
  const note = left > 0 ? `<p class="hint">${numberText(left)} more rows are in result.json.</p>` : '';
  return `<div class="card wide"><table><thead><tr><th>policy, job</th>${heads}
<th class="number">decoded<br>tokens</th><th class="number">trained<br>tokens</th><th class="number">aborted<br>tokens</th>
<th class="number">expired<br>tokens</th><th class="number">filtered<br>tokens</th><th class="number">computed<br>again</th></tr></thead>
<tbody>${body.join('')}</tbody></table>${note}</div>`;
}

function rowName({ policy, job }: CompareRow): string {
  return job === null ? escapeHtml(policy) : `<span class="job">${escapeHtml(job)}</span>`;
}

function tokenCells({
  tokens_decoded: decoded,
  tokens_trained: trained,
  tokens_wasted: wasted,
}: CompareRow): string {
  const counts = [decoded, trained, wasted.aborted, wasted.expired, wasted.filtered, wasted.recomputed];
  return counts.map((count) => `<td class="number">${numberText(Math.round(count))}</td>`).join('');
}
