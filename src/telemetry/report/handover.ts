import { cautiousPercentText, msText, numberText, percentText, secondsText } from '../format.js';
import { lawBreach } from '../preemption-summary.js';
import { quantiles, type Quantiles } from '../quantiles.js';
import { lawfulYieldMs, type PreemptionRecord } from '../records.js';
import type { RunRecords } from '../run-records.js';
import type { Summary } from '../summary.js';
import { distributionChart } from './distribution-chart.js';
import { escapeHtml } from './html.js';

/** What of a run the section is about. */
type Handover = Pick<Summary, 'preemption' | 'tokens_per_second'>;

/** How fast the device changed hands, how the law held, and where it did not. */
export function handoverSection(summary: Handover, records: RunRecords, endMs: number): string {
  return `<h2>How fast the device changed hands</h2>
<p>${yieldText(summary)}</p>
${distributions(summary, records)}
${breaches(summary, records)}
${starved(records, endMs)}`;
}

function yieldText({ preemption, tokens_per_second: rate }: Handover): string {
  const { time_to_yield_ms: yields, count } = preemption;
  if (count === 0 || yields.p50 === null) return 'Training never had to take the device from generation.';
  return (
    `Training took the device from generation ${numberText(count)} times. Half of the time it could start within ` +
    `${msText(yields.p50)}; the longest wait was ${msText(yields.max)}. Over the same run ` +
    `${numberText(rate)} tokens a second were generated, and ${numberText(preemption.tokens_recomputed)} tokens ` +
    `had to be computed twice. ${obeyedText(preemption)}`
  );
}

function obeyedText({
  count,
  law_violations: over,
  law_obeyed_share: obeyed,
}: Summary['preemption']): string {
  if (obeyed === null) return '';
  if (over === 0) return `All ${numberText(count)} obeyed the law.`;
  return `${cautiousPercentText(obeyed)} obeyed the law; ${numberText(over)} did not.`;
}

function distributions({ preemption }: Handover, records: RunRecords): string {
  const samples = records.preemptions.items.map(lawfulYieldMs);
  const resumes = records.resumesMs();
  const { law_violations: over, count, bound_ms: bound } = preemption;
  const yields = distributionChart({
    id: 'yield',
    title: 'Time to yield',
    meaning:
      'From the request for the device until the last slice of generation had finished, by whichever clock knew first. ' +
      'The law allows each preemption the time to detect it, the work allowed in flight, the largest single dispatch and ' +
      `200 µs; the line is the median of that. ${numberText(over)} of ${numberText(count)} were over their own bound.`,
    samples,
    quantiles: quantiles(samples),
    colour: 'yield',
    ...(bound === null ? {} : { bound: { ms: bound, name: 'median bound' } }),
  });
  const resume = distributionChart({
    id: 'resume',
    title: 'Time to resume',
    meaning:
      'From the moment training gave the device back until generation’s first new token reached the host.',
    samples: resumes,
    quantiles: quantiles(resumes),
    colour: 'engine',
  });
  if (yields === null) return '';
  return `<div class="row half">${yields}${resume ?? ''}</div>
${quantileTable(preemption, records)}`;
}

function quantileTable(preemption: Summary['preemption'], records: RunRecords): string {
  const slices = records.slices.items;
  const { held, spilled, dropped } = preemption.kv;
  const rows: readonly (readonly [name: string, samples: readonly number[]])[] = [
    ['time to yield, host clock', records.timesToYieldMs()],
    ['time to yield, device clock', records.timesToYieldDeviceMs()],
    ['of it, detection', detections(records.preemptions.items)],
    ['time to resume', records.resumesMs()],
    [
      'first dispatch on a free device',
      records.undisturbed.items.map(({ requestedMs, begunMs }) => begunMs - requestedMs),
    ],
    ['a slice, as predicted', slices.map(({ predictedUs }) => predictedUs / 1000)],
    ['a slice, as measured', slices.map(({ startedMs, finishedMs }) => finishedMs - startedMs)],
  ];
  const idle =
    preemption.hint_idle_ms > 0
      ? ` Hints kept the device idle for ${msText(preemption.hint_idle_ms)} in all.`
      : '';
  return `<div class="card" style="margin-top:12px"><table><thead><tr><th></th><th class="number">n</th><th class="number">p50</th>
<th class="number">p90</th><th class="number">p99</th><th class="number">max</th></tr></thead><tbody>
${rows.map(([name, samples]) => (samples.length > 0 ? quantileRow(name, quantiles(samples)) : '')).join('')}</tbody></table>
<p class="hint">A slice may be predicted to take at most ${msText(preemption.slice_budget_us / 1000)}. Caches of preempted
sequences: ${numberText(held)} held, ${numberText(spilled)} spilled to the host, ${numberText(dropped)} dropped.${idle}</p></div>`;
}

function detections(preemptions: readonly PreemptionRecord[]): number[] {
  return preemptions.map(({ requestedMs, detectedMs }) => detectedMs - requestedMs);
}

function quantileRow(name: string, { n, p50, p90, p99, max }: Quantiles): string {
  const cells = [numberText(n), ...[p50, p90, p99, max].map(msText)];
  return `<tr><th>${name}</th>${cells.map((cell) => `<td class="number">${cell}</td>`).join('')}</tr>`;
}

/** The worst violations, each with the slice it waited for. */
function breaches({ preemption }: Handover, records: RunRecords): string {
  const { worst, violations } = records.law;
  if (violations === 0) return '';
  const rows = worst.map((record) => {
    const {
      yield_ms: yieldMs,
      bound_ms: bound,
      kernel,
      predicted_us: predicted,
      real_us: real,
    } = lawBreach(record);
    const isSlice = kernel !== null && real !== null && real > 0;
    const slice = isSlice
      ? [kernel, usText(predicted), usText(real)]
      : ['no slice: the host was late', '–', '–'];
    const cells = [
      secondsText((record.requestedMs - records.startMs) / 1000),
      msText(yieldMs),
      msText(bound),
    ];
    return `<tr>${cells.map((text) => `<td class="number">${text}</td>`).join('')}<td>${escapeHtml(slice[0] ?? '')}</td>
<td class="number">${slice[1] ?? ''}</td><td class="number">${slice[2] ?? ''}</td></tr>`;
  });
  return `<div class="card" style="margin-top:12px"><b>${numberText(violations)} of ${numberText(preemption.count)} preemptions broke the law</b>
<p class="hint">${worst.length < violations ? `The ${worst.length} worst, furthest` : 'Furthest'} over the bound first. Named is the longest dispatch of the slice
it waited for, with that slice’s time.</p>
<table><thead><tr><th class="number">at</th><th class="number">took</th><th class="number">allowed</th><th>waited for</th>
<th class="number">predicted</th><th class="number">real</th></tr></thead><tbody>${rows.join('')}</tbody></table></div>`;
}

function usText(us: number | null): string {
  return msText(us === null ? null : us / 1000);
}

/** Explicitly marked: generation that had work and got no device. */
function starved(records: RunRecords, endMs: number): string {
  const { starvedMs } = records;
  if (starvedMs === 0) return '';
  const times = records.starved.items.length + records.starved.dropped;
  const longestMs = quantiles(records.starved.items.map(({ fromMs, toMs }) => toMs - fromMs)).max ?? 0;
  const share = starvedMs / Math.max(1, (endMs - records.startMs) * Math.max(1, records.lanes.length));
  return `<div class="card" style="margin-top:12px"><span class="badge starved">starved</span>
<p class="hint">${numberText(times)} times generation had work and training kept the device for over a second without a break:
<b>${secondsText(starvedMs / 1000)}</b> in all (${percentText(share)} of the lanes’ time), ${secondsText(longestMs / 1000)} at the longest. A floor for
generation would give it a share of the device.</p></div>`;
}
