import { msText, percentText, secondsText } from '../../../telemetry/format.js';
import { escapeHtml } from '../../../telemetry/report/html.js';
import type { PreemptCell } from '../result.js';
import { cellName } from './cells.js';

interface Part {
  readonly name: string;
  readonly meaning: string;
  readonly colour: string;
  readonly ms: (wasted: PreemptCell['wasted']) => number;
}

const PARTS: readonly Part[] = [
  {
    name: 'recompute',
    meaning: 'tokens computed a second time',
    colour: 'yield',
    ms: ({ recompute_ms }) => recompute_ms,
  },
  {
    name: 'discarded',
    meaning: 'tokens thrown away',
    colour: 'trainer',
    ms: ({ discarded_ms }) => discarded_ms,
  },
  {
    name: 'idle',
    meaning: 'nothing ran although low priority had work',
    colour: 'soft',
    ms: ({ idle_ms, hint_idle_ms }) => Math.max(0, idle_ms - hint_idle_ms),
  },
  {
    name: 'idle for a hint',
    meaning: 'low priority held back because a hint said so',
    colour: 'version',
    ms: ({ hint_idle_ms }) => hint_idle_ms,
  },
];

/** Device time that came to nothing, one stacked bar a cell; all bars on one scale. */
export function wasteCard(cells: readonly PreemptCell[]): string {
  const most = Math.max(0, ...cells.map(wastedShare));
  const key = PARTS.map(
    ({ name, meaning, colour }) =>
      `<span><i style="background:var(--${colour})"></i>${name}: ${meaning}</span>`,
  ).join('');
  const scale =
    most > 0 ? `The longest bar is ${percentText(most)} of its cell’s time.` : 'Nothing was wasted.';
  return `<div class="card"><div class="legend">${key}</div>
${cells.map((cell) => wasteRow(cell, most)).join('\n')}
<p class="hint">Shares of each cell’s whole time, all on one scale. ${scale}</p></div>`;
}

function wasteRow(cell: PreemptCell, most: number): string {
  const wallMs = cell.wall_s * 1000;
  const parts = PARTS.map(({ name, colour, ms }) => ({ name, colour, ms: ms(cell.wasted) })).filter(
    ({ ms }) => ms > 0,
  );
  const bars = parts.map(({ colour, ms }) => {
    const width = most > 0 && wallMs > 0 ? (100 * ms) / wallMs / most : 0;
    return `<i style="width:${Math.round(100 * width) / 100}%;background:var(--${colour})"></i>`;
  });
  const words = parts.map(({ name, ms }) => `${name} ${msText(ms)}`).join(', ') || 'nothing';
  return `<div class="waste"><span>${escapeHtml(cellName(cell))}</span><div class="stack">${bars.join('')}</div>
<span class="of"><b>${percentText(wastedShare(cell))}</b> <small>${words} of ${secondsText(cell.wall_s)}</small></span></div>`;
}

function wastedShare({ wasted, wall_s }: PreemptCell): number {
  const ms = PARTS.reduce((sum, part) => sum + part.ms(wasted), 0);
  return wall_s > 0 ? ms / (wall_s * 1000) : 0;
}
