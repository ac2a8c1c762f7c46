import { METRICS } from '../metrics.js';
import { escapeHtml } from './html.js';

const DEFINITIONS: readonly (readonly [term: string, meaning: string])[] = [
  [
    'rollout',
    'One answer of the model to one prompt, from its first token to its last, with a reward at the end.',
  ],
  ['step', 'One update of the weights, from a batch of scored rollouts.'],
  ['lane', 'One GPU device and the one thread that owns it.'],
  ['slice', 'A bounded piece of GPU work: one submission, predicted to take at most the slice budget.'],
  [
    'time to yield',
    'From the moment a stage of higher priority asks for the device until its first dispatch could start, because the ' +
      'last slice of generation had finished. The host clock includes the host’s delay in noticing; the device clock, ' +
      'where there is one, does not.',
  ],
  [
    'law',
    'Time to yield ≤ the time in which the lane read the request + the predicted work allowed in flight + the largest ' +
      'single dispatch + 200 µs: nothing that was submitted can be recalled. The right-hand side is the bound, and each ' +
      'preemption has its own. Whatever takes longer is counted as a violation and listed with the slice it waited for; ' +
      'on a busy host or a software adapter that can be the host’s doing.',
  ],
  [
    'starved',
    'Generation had work, and stages of higher priority kept the device for over a second without a break.',
  ],
  ['time to resume', 'From the device being given back until the first new token of generation.'],
  ['tokens recomputed', 'Tokens computed a second time because a preemption cost an engine its KV cache.'],
  ['tokens a second', 'Decoded tokens over wall time, with training, waiting and weight updates included.'],
  ['version', 'The number of the weights a token was sampled under. Staleness is counted in versions.'],
  [
    'p50, p90, p99',
    'Exact quantiles of all samples by nearest rank: always a value that was measured. With fewer than 100 samples ' +
      'p99 is the largest.',
  ],
];

/** What the words and numbers mean, and the configuration that made them. */
export function aboutSection(config: string): string {
  const terms = DEFINITIONS.map(([term, meaning]) => `<dt>${term}</dt><dd>${meaning}</dd>`).join('');
  const metrics = METRICS.map(
    ({ name, unit, meaning }) =>
      `<tr><th><code>${name}</code></th><td>${unit}</td><td class="why always">${escapeHtml(meaning)}</td></tr>`,
  ).join('');
  return `<h2>What the words mean</h2><div class="card"><dl>${terms}</dl></div>
<h2>How to get these numbers again</h2>
<p>The configuration as it was resolved, every default included. Saved as config.toml beside this page, it is what
<code>offbeat run config.toml</code> takes.</p>
<div class="card"><details open><summary>config.toml</summary><pre>${escapeHtml(config)}</pre></details>
<details><summary>What metrics.jsonl holds, step by step</summary><table><tbody>${metrics}</tbody></table></details></div>`;
}
