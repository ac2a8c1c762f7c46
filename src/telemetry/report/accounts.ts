import { bytesText, numberText, percentText, secondsText } from '../format.js';
import { tokensUnaccounted, type Summary, type TokenCounts } from '../summary.js';

/** Where the weights went and where the tokens went: two sums that must come out even. */
export function accountsSection(summary: Pick<Summary, 'weights' | 'tokens'>): string {
  return `<h2>Weights that moved</h2>
<p>An engine on the trainer’s lane gets new weights by a copy on the device: no byte crosses the host. Other lanes pull
them only while they are awake, and only the newest.</p>
${weightsCard(summary.weights)}
<h2>Where every token went</h2>
<p>Each token that was sampled is in exactly one row.</p>
${tokensCard(summary.tokens)}`;
}

function weightsCard(weights: Summary['weights']): string {
  const most = Math.max(1, weights.bytes_sent, weights.bytes_broadcast);
  const bar = (name: string, bytes: number, colour: string): string =>
    `<div class="bar"><span>${name} <b>${bytesText(bytes)}</b></span>
<div style="width:${(100 * bytes) / most}%;background:var(--${colour})"></div></div>`;
  const saved = weights.bytes_broadcast - weights.bytes_sent;
  const words =
    weights.bytes_broadcast === 0
      ? 'There was no engine to broadcast to.'
      : saved > 0
        ? `${percentText(saved / weights.bytes_broadcast)} of a broadcast was never sent.`
        : 'Nothing was saved over a broadcast.';
  return `<div class="card">${bar('sent across the host', weights.bytes_sent, 'version')}
${bar('a broadcast of every version to every engine', weights.bytes_broadcast, 'idle')}
<p class="hint">${words} ${numberText(weights.publishes)} versions, ${secondsText(weights.seconds)} spent moving weights.</p></div>`;
}

interface Destination {
  readonly name: string;
  readonly tokens: number;
  readonly colour: string;
  readonly why: string;
}

function tokensCard(tokens: TokenCounts): string {
  const rows: readonly Destination[] = [
    { name: 'trained', tokens: tokens.trained, colour: 'good', why: 'reached a gradient' },
    {
      name: 'aborted',
      tokens: tokens.aborted,
      colour: 'yield',
      why: 'their rollout was stopped before its end',
    },
    {
      name: 'expired',
      tokens: tokens.expired,
      colour: 'trainer',
      why: 'their rollout grew too stale to train on',
    },
    {
      name: 'filtered',
      tokens: tokens.filtered,
      colour: 'version',
      why: 'finished, but nothing to learn from',
    },
    {
      name: 'in flight',
      tokens: tokens.in_flight,
      colour: 'engine',
      why: 'unfinished or waiting when the run ended',
    },
  ];
  const share = (count: number): number => (tokens.decoded === 0 ? 0 : count / tokens.decoded);
  const stack = rows.map(({ tokens: count, colour }) =>
    count === 0 ? '' : `<i style="width:${100 * share(count)}%;background:var(--${colour})"></i>`,
  );
  const lines = rows.map(
    ({ name, tokens: count, colour, why }) =>
      `<tr><th><span class="legend"><span><i style="background:var(--${colour})"></i>${name}</span></span></th>
<td class="number">${numberText(count)}</td><td class="number">${percentText(share(count))}</td><td class="why">${why}</td></tr>`,
  );
  return `<div class="card"><div class="stack">${stack.join('')}</div>
<table><thead><tr><th></th><th class="number">tokens</th><th class="number">share</th><th></th></tr></thead><tbody>${lines.join('')}
<tr class="sum"><th>decoded</th><td class="number">${numberText(tokens.decoded)}</td><td class="number">${percentText(share(tokens.decoded))}</td>
<td class="why always">${verdict(tokens)}</td></tr></tbody></table></div>`;
}

function verdict(tokens: TokenCounts): string {
  const missing = tokensUnaccounted(tokens);
  return missing === 0
    ? '<span class="verdict">adds up exactly</span>'
    : `<span class="verdict bad">does not add up: ${numberText(missing)} unaccounted for</span>`;
}
