import { escapeHtml } from '../../../telemetry/report/html.js';

/** One bar of a chart, or one range when it begins somewhere else than at 0. */
export interface Bar {
  readonly name: string;
  /** Null draws nothing. */
  readonly value: number | null;
  /** A thin line over the bar. */
  readonly interval: readonly [low: number, high: number] | null;
  readonly text: string;
  /** Beneath the text, in small. */
  readonly note?: string;
}

export interface BarChart {
  readonly title: string;
  readonly small: string;
  readonly meaning: string;
  readonly bars: readonly Bar[];
  /** Where the axis ends at least; 0 when left out. */
  readonly max?: number;
  readonly colour?: string;
}

/** Bars from 0, one below the other, each with its interval and its number. */
export function barChart({ title, small, meaning, bars, max = 0, colour = 'engine' }: BarChart): string {
  const ends = bars.flatMap(({ value, interval }) => [value ?? 0, interval?.[1] ?? 0]);
  const end = Math.max(max, ...ends) || 1;
  const rows = bars.map(({ name, value, interval, text, note = '' }) => {
    const fill =
      value === null ? '' : `<b style="width:${percent(value / end)};background:var(--${colour})"></b>`;
    const line = interval === null ? '' : whisker(interval[0] / end, interval[1] / end);
    const small = note === '' ? '' : `<small>${escapeHtml(note)}</small>`;
    return `<span class="name">${escapeHtml(name)}</span><span class="track">${fill}${line}</span><span class="of">${escapeHtml(text)}${small}</span>`;
  });
  return `<figure class="chart"><figcaption><b>${escapeHtml(title)}</b> <small>${escapeHtml(small)}</small></figcaption>
<div class="bars">${rows.join('')}</div><p>${escapeHtml(meaning)}</p></figure>`;
}

/** From low to high, as shares of the track; the part below 0 is cut off. */
export function whisker(low: number, high: number): string {
  const [left, right] = [Math.max(0, low), Math.min(1, Math.max(0, high))];
  return right <= left ? '' : `<i style="left:${percent(left)};width:${percent(right - left)}"></i>`;
}

export function percent(share: number): string {
  return `${Math.round(Math.max(0, Math.min(1, share)) * 10_000) / 100}%`;
}
