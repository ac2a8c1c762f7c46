import { escapeHtml } from '../../../telemetry/report/html.js';
import { place, plot, tickLabels, VIEW } from '../../../telemetry/report/plot.js';
import type { Scale } from '../../../telemetry/report/scale.js';

/** A place in a chart that can be read out: shares of its width, and of its height from below. */
export interface Mark {
  readonly x: number;
  readonly y: number;
  readonly text: string;
}

/** A chart as HTML, and what the page's script reads out under the pointer. */
export interface Chart {
  readonly id: string;
  readonly html: string;
  readonly marks: readonly Mark[];
}

export interface ChartParts {
  readonly id: string;
  readonly title: string;
  readonly small: string;
  /** HTML of the key's entries. */
  readonly key: readonly string[];
  readonly x: Scale;
  readonly y: Scale;
  readonly xText: (value: number) => string;
  readonly yText: (value: number) => string;
  readonly xName: string;
  /** SVG in view-box units, over the grid. */
  readonly drawing: string;
  readonly overlay?: string;
  /** What it shows, for those who see it and those who do not. */
  readonly meaning: string;
  readonly marks: readonly Mark[];
}

export function chart(parts: ChartParts): Chart {
  const { id, title, x, y, xName, overlay, marks } = parts;
  const grid = [
    ...y.ticks.map((tick) => `<path class="grid" d="M${place(0, y.at(tick))}H${VIEW}"/>`),
    ...x.ticks.map((tick) => `<path class="grid" d="M${place(x.at(tick), 0)}V0"/>`),
  ];
  const drawn = plot({
    id,
    label: `${title}: ${parts.meaning}`,
    drawing: grid.join('') + parts.drawing,
    x: tickLabels(x, parts.xText),
    y: tickLabels(y, parts.yText),
    xName,
    ...(overlay === undefined ? {} : { overlay }),
  });
  const html = `<figure class="chart tall bench">
<figcaption><b>${escapeHtml(title)}</b> <small>${escapeHtml(parts.small)}</small><span class="legend">${parts.key.join('')}</span></figcaption>
${drawn}
<p>${escapeHtml(parts.meaning)}</p></figure>`;
  return { id, html, marks };
}

export type KeyMark = 'line' | 'line dotted' | 'dot' | 'dot ring' | 'rule bound' | 'area';

/** One entry of a chart's key; the colour is a variable of the style sheet, without its dashes. */
export function keyEntry(mark: KeyMark, colour: string, text: string): string {
  return `<span><i class="${mark}" style="color:var(--${colour})"></i>${escapeHtml(text)}</span>`;
}

/** Dots of one colour. A line of no length with round ends stays round however the drawing is stretched. */
export function dots(
  places: readonly { readonly x: number; readonly y: number }[],
  colour: string,
  kind = '',
): string {
  if (places.length === 0) return '';
  const path = places.map(({ x, y }) => `M${place(x, y)}h0`).join('');
  return `<path class="dots ${kind}" style="stroke:var(--${colour})" d="${path}"/>`;
}

/** A line through all places. */
export function line(
  places: readonly { readonly x: number; readonly y: number }[],
  colour: string,
  kind = '',
): string {
  if (places.length < 2) return '';
  const path = places.map(({ x, y }) => place(x, y)).join('L');
  return `<path class="line ${kind}" style="stroke:var(--${colour})" d="M${path}"/>`;
}
