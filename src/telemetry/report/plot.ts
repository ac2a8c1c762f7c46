import { escapeHtml } from './html.js';
import type { Scale } from './scale.js';

/**
 * Drawings are stretched to whatever room they get, so that one file fits a phone and a wide screen without a script:
 * the view box is a square of this size, strokes do not scale, and the axis labels are HTML beside it.
 */
export const VIEW = 1000;

export interface TickLabel {
  /** 0…1 along the axis. */
  readonly at: number;
  readonly text: string;
}

export interface Plot {
  readonly id: string;
  /** For those who cannot see it. */
  readonly label: string;
  /** SVG in view-box units. */
  readonly drawing: string;
  readonly x: readonly TickLabel[];
  readonly y: readonly TickLabel[];
  readonly xName: string;
  /** HTML over the drawing, which is not stretched with it; placed by shares of the width and height. */
  readonly overlay?: string;
}

export function tickLabels(scale: Scale, text: (value: number) => string): TickLabel[] {
  return scale.ticks.map((tick) => ({ at: scale.at(tick), text: text(tick) }));
}

/** Numbers of a drawing need no more digits than a screen has pixels. */
export function round(value: number): number {
  return Math.round(value * 10) / 10;
}

/** A place in view-box units, from shares of the width and of the height from below. */
export function place(x: number, y: number): string {
  return `${round(VIEW * x)} ${round(VIEW * (1 - y))}`;
}

/** The plotting area with its axes. The page's script finds it by its id. */
export function plot({ id, label, drawing, x, y, xName, overlay = '' }: Plot): string {
  const ys = y.map(({ at, text }) => `<span style="bottom:${percent(at)}">${escapeHtml(text)}</span>`);
  const xs = x.map(({ at, text }) => `<span style="left:${percent(at)}">${escapeHtml(text)}</span>`);
  return `<div class="plot"><div class="y">${ys.join('')}</div>
<div class="canvas" id="plot-${escapeHtml(id)}" tabindex="0" role="img" aria-label="${escapeHtml(label)}">
<svg viewBox="0 0 ${VIEW} ${VIEW}" preserveAspectRatio="none" aria-hidden="true">${drawing}</svg>${overlay}
<i class="cursor" hidden></i><output hidden></output></div>
<div class="x">${xs.join('')}</div><div class="name">${escapeHtml(xName)}</div></div>`;
}

function percent(share: number): string {
  return `${Math.round(share * 10_000) / 100}%`;
}
