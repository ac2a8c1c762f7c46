import { escapeHtml, scriptJson } from './html.js';
import { STYLE } from './style.js';

export interface Page {
  /** Of the browser's tab. */
  readonly title: string;
  /** HTML. */
  readonly body: string;
  /** What the script reads from the element with the id "data". */
  readonly data: unknown;
  readonly script: string;
  /** Rules this page has beside the common ones. */
  readonly style?: string;
}

/** One self-contained page: its policy forbids the browser to load anything, so what is not in it is not shown. */
export function pageHtml({ title, body, data, script, style = '' }: Page): string {
  return `<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<title>${escapeHtml(title)}</title><style>${STYLE}${style}</style></head>
<body><main>
${body}
</main>
<script type="application/json" id="data">${scriptJson(data)}</script>
<script>${script}</script>
</body></html>
`;
}

export interface PageHeader {
  readonly kind: string;
  readonly title: string;
  readonly adapter: {
    readonly vendor: string;
    readonly architecture: string;
    readonly description: string;
    readonly software: boolean;
  };
  readonly startedAt: Date;
  /** Further badges beside adapter and date, as text. */
  readonly badges: readonly string[];
  /** Badges that ask for attention, as text. */
  readonly warnings: readonly string[];
  /** HTML. */
  readonly lead: string;
  /** HTML of `tile`s. */
  readonly tiles: readonly string[];
}

/** What the page is about, on which adapter, and its headline numbers. */
export function headerHtml({ adapter, startedAt, lead, tiles, ...header }: PageHeader): string {
  const badges = [
    adapter.description || `${adapter.vendor} ${adapter.architecture}`,
    ...header.badges,
    `${startedAt.toISOString().slice(0, 16).replace('T', ' ')} UTC`,
  ].map((text) => `<span class="badge">${escapeHtml(text)}</span>`);
  const warnings = header.warnings.map((text) => `<span class="badge starved">${escapeHtml(text)}</span>`);
  const software = adapter.software
    ? '<span class="badge software" title="The device is a program on the CPU.">software adapter: timings are not those of a GPU</span>'
    : '';
  return `<header><small>${escapeHtml(header.kind)}</small><h1>${escapeHtml(header.title)}</h1>
<div class="badges">${software}${warnings.join('')}${badges.join('')}</div>
<p class="lead">${lead}</p>
<div class="tiles">${tiles.join('')}</div></header>`;
}

export function tile(name: string, value: string, note: string): string {
  return `<div class="tile"><span>${escapeHtml(name)}</span><b>${escapeHtml(value)}</b><span>${escapeHtml(note)}</span></div>`;
}
