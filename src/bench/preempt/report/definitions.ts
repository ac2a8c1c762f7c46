import { msText, numberText, percentText, secondsText } from '../../../telemetry/format.js';
import { escapeHtml } from '../../../telemetry/report/html.js';
import type { PreemptResult } from '../result.js';
import { MODES } from './cells.js';

type Term = readonly [term: string, meaning: string];

/** Each number with its clock and both its end points. */
const NUMBERS: readonly Term[] = [
  [
    'time to yield',
    'From the host’s request for a high-priority stage until its first dispatch could start, because the last low-priority ' +
      'slice had finished. By the device’s timestamps put on the host’s clock where the device has them (clock: device) ' +
      'or by the host seeing that slice finish (clock: host), whichever is earlier.',
  ],
  [
    'host yield',
    'The same by the host’s clock alone: it ends when the host has seen the last low-priority slice finish, so it ' +
      'includes the host’s delay in noticing.',
  ],
  [
    'detection',
    'From the request until the lane’s thread has read it. Host clock. A part of the time to yield.',
  ],
  [
    'law and bound',
    'Time to yield ≤ detection + in-flight budget + largest dispatch + 200 µs. Each preemption has its own bound; the ' +
      'table gives the median. What was submitted cannot be recalled, so the bound is kept by submitting little.',
  ],
  ['over, obeyed', 'Preemptions above their own bound, and the share of those that were not.'],
  [
    'host jitter',
    'The p99 time from a request to its first dispatch on a device with nothing else to do, measured in the same run: ' +
      'what host and adapter take by themselves.',
  ],
  [
    'LP kept',
    'Low-priority tokens a second of the time that high priority left, over the rate of the same work alone, uncut and ' +
      'unlimited. Host clock. What is missing to 100 % is the overhead in the chart of costs.',
  ],
  [
    'HP slower',
    'Median time of a high-priority step, from request to result on the host’s clock, over that of one alone on the device, ' +
      'minus 1. It contains the time to yield.',
  ],
  [
    'resume',
    'From the device being released until low priority’s first new token has reached the host. Host clock.',
  ],
  [
    'recompute, discarded, idle',
    'Device time, summed over the cell, for tokens computed a second time, for tokens thrown away, and in which nothing ran ' +
      'although low priority had work. The part of the idle time that a hint asked for is shown apart.',
  ],
  ['host CPU', 'Processor time of the low-priority lane’s thread over wall time.'],
  [
    'phase',
    'How many of its step’s operations low priority had handed over when the request was read; “between steps” when none.',
  ],
  [
    'slice, slice budget',
    'A bounded piece of GPU work: one submission, predicted to take at most the slice budget.',
  ],
  ['in-flight budget', 'The most predicted work that may be submitted and unfinished at any time.'],
  [
    'hint',
    'High priority says a little earlier that it will come, and low priority keeps less in flight from then on. The time to ' +
      'yield still begins with the request itself.',
  ],
  [
    'p50 … p99.9',
    'Exact quantiles by nearest rank: always a value that was measured. With fewer than 1,000 samples p99.9 is the largest.',
  ],
];

/** What was measured, on what, by which words, and how to get it again. */
export function definitions(result: PreemptResult): string {
  const modes = [...new Set(result.cells.map(({ mode }) => mode))];
  const modeTerms = modes.map((mode): Term => [MODES[mode].name, MODES[mode].meaning]);
  return `<h2>What was measured, and on what</h2><div class="card"><dl>${terms(setting(result))}</dl></div>
<h2>The ways to share a device</h2>
<p>A name such as “held 2 ms / 4 ms” gives the slice budget and the in-flight budget.</p>
<div class="card"><dl>${terms(modeTerms)}</dl></div>
<h2>What each number means</h2>
<p>Every time has two end points and a clock.</p>
<div class="card"><dl>${terms(NUMBERS)}</dl></div>
<h2>How to get these numbers again</h2>
<div class="card"><pre>offbeat bench preempt --seed ${result.seed}</pre>
<p class="hint">The same seed asks at the same moments. Add --quick for a pass within a minute, or --full for 10,000 preemptions a cell; these cells
have ${countsText(result)}. On the same machine medians repeat well; tails repeat only as well as the machine is quiet.</p></div>
<h2>How others stand</h2>
<p>For orientation only: XSched (OSDI 2025), which also bounds what is in flight, reaches about 0.11 ms at 1 % overhead with CUDA on a
GV100, by its own count and on its own workload. That is others’ hardware and a path without a WebGPU runtime; nothing on
this page was measured there.</p>`;
}

function setting({
  adapter,
  host,
  model,
  host_jitter: jitter,
  solo,
  unchunked,
  ...result
}: PreemptResult): Term[] {
  const names = [adapter.description, adapter.vendor, adapter.architecture, adapter.device].filter(
    (name) => name !== '',
  );
  const software = adapter.software
    ? ' This is a software adapter, a program on the processor: its timings are not those of a GPU, and it takes from the host the very cores that the host needs to notice anything.'
    : '';
  return [
    ['adapter', `${[...new Set(names)].join(', ')}.${software}`],
    ['host', `${host.cpu_model}, ${host.cpus} cores, Node ${host.node}`],
    ['model', model],
    ['low priority', result.low_priority],
    ['high priority', result.high_priority],
    [
      'high priority alone',
      `p50 ${msText(solo.hp_ms.p50)}, p99 ${msText(solo.hp_ms.p99)} from request to result, over ${numberText(solo.hp_ms.n)} steps`,
    ],
    [
      'low priority alone',
      `${numberText(unchunked.lp_tokens_per_s)} tokens/s uncut and unlimited; one decode step ${msText(unchunked.decode_step_ms)}`,
    ],
    [
      'host jitter',
      `p50 ${msText(jitter.p50)}, p99 ${msText(result.host_jitter_ms)}, max ${msText(jitter.max)} over ${numberText(jitter.n)} requests to an empty device`,
    ],
    [
      'took',
      `${secondsText(result.wall_s)} in all; high priority had the device for ${dutyText(result.cells)}`,
    ],
  ];
}

function dutyText(cells: PreemptResult['cells']): string {
  const wall = cells.reduce((sum, { wall_s }) => sum + wall_s, 0);
  const held = cells.reduce((sum, { wall_s, hp_duty }) => sum + wall_s * hp_duty, 0);
  return wall > 0 ? `${percentText(held / wall)} of the cells’ time` : '–';
}

function countsText({ cells }: PreemptResult): string {
  const counts = cells.map(({ n }) => n);
  if (counts.length === 0) return 'none';
  const [least, most] = [Math.min(...counts), Math.max(...counts)];
  return least === most ? `${numberText(least)} each` : `${numberText(least)} to ${numberText(most)}`;
}

function terms(list: readonly Term[]): string {
  return list
    .map(([term, meaning]) => `<dt>${escapeHtml(term)}</dt><dd>${escapeHtml(meaning)}</dd>`)
    .join('');
}
