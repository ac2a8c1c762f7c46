import { Script } from 'node:vm';
import { describe, expect, test } from 'vitest';
import { z } from 'zod';
import { preemptReportHtml } from '#src/bench/preempt/report/page.js';
import { BENCH_SCRIPT } from '#src/bench/preempt/report/script.js';
import type { PreemptCell, PreemptMode, PreemptResult } from '#src/bench/preempt/result.js';
import { PageDouble } from '../../../telemetry/report/page-double.js';
import { emptyCell, PLANS, syntheticResult } from './synthetic.js';

const STARTED_AT = new Date(Date.UTC(2026, 1, 3, 4, 5));
const result = syntheticResult({ seed: 3, n: 1000 });
const html = pageOf(result);

const dataSchema = z.object({
  charts: z.record(z.string(), z.array(z.tuple([z.number(), z.number(), z.string()]))),
});

function pageOf(of: PreemptResult): string {
  return preemptReportHtml(of, STARTED_AT);
}

/** The page's data element, as a browser would read it. */
function dataOf(page: string): z.infer<typeof dataSchema> {
  const text = /<script type="application\/json" id="data">([^]*?)<\/script>/.exec(page)?.[1];
  if (text === undefined) throw new Error('the page has no data element');
  return dataSchema.parse(JSON.parse(text));
}

/** One chart's drawing, from its place in the page to the end of its SVG. */
function drawingOf(page: string, id: string): string {
  const found = new RegExp(`id="plot-${id}"[^]*?</svg>`).exec(page)?.[0];
  if (found === undefined) throw new Error(`the page has no chart ${id}`);
  return found;
}

function withCells(change: (cell: PreemptCell, index: number) => PreemptCell): PreemptResult {
  return { ...result, cells: result.cells.map(change) };
}

function cellOf(mode: PreemptMode): PreemptCell {
  const found = result.cells.find((cell) => cell.mode === mode);
  if (found === undefined) throw new Error(`no cell ${mode}`);
  return found;
}

describe('the page', () => {
  test('says what was measured, where, and with which headline numbers', () => {
    const usual = result.cells.find(
      ({ mode, slice_budget_us: slice, in_flight_budget_us: inFlight }) =>
        mode === 'held' && slice === 4000 && inFlight === 8000,
    );
    for (const text of [
      'How long does the step wait, and how much generation is lost for it?',
      'class="badge software"',
      'llvmpipe (LLVM 15, 256 bits)',
      'offbeat bench preempt --seed 3',
      '20,000 preemptions in 20 cells',
      `<b>${Number(usual?.yield_ms.p99?.toPrecision(3))} ms</b>`,
      'others’ hardware',
    ]) {
      expect(html).toContain(text);
    }
    expect(html).not.toMatch(/interrupted|left out/);
    expect(pageOf({ ...result, left_out: ['held 8,000/<16,000> µs', 'drain'] })).toContain(
      'For want of time left out: held 8,000/&lt;16,000&gt; µs; drain.',
    );
    expect(pageOf({ ...result, interrupted: true })).toContain('interrupted: what was measured until then');
  });

  test('on a GPU there is no warning about the adapter, and the targets of a GPU are held against it', () => {
    const page = pageOf(syntheticResult({ seed: 4, n: 200, software: false }));
    expect(page).not.toContain('class="badge software"');
    expect(page).not.toContain('program on the processor');
    expect(page).toContain('within 1 % of one alone');
    expect(html).not.toContain('within 1 % of one alone');
  });

  test('loads nothing', () => {
    expect(html).toContain(`default-src 'none'`);
    expect(html).not.toMatch(/https?:|src=|href=|url\(|@import|fetch\(|XMLHttp|WebSocket/);
  });

  test('has no number that is none, and no unfinished template', () => {
    expect(html.replace(BENCH_SCRIPT, '')).not.toMatch(/NaN|Infinity|undefined|\[object|\$\{/);
  });

  test('closes every element it opens', () => {
    const open: string[] = [];
    const body = html.replaceAll(/<(script|style)[^>]*>[^]*?<\/\1>/g, '').replace('<!doctype html>', '');
    for (const [, end, name, attributes] of body.matchAll(/<(\/?)([a-z0-9]+)((?:"[^"]*"|[^">])*)>/g)) {
      if (name === undefined || name === 'meta' || attributes?.endsWith('/')) continue;
      if (end === '') open.push(name);
      else expect(open.pop(), `</${name}>`).toBe(name);
    }
    expect(open).toEqual([]);
  });

  test('has every cell in every table, with its numbers', () => {
    const tables =
      html.match(/<table>[^]*?<\/table>/g)?.filter((table) => table.includes('<th>cell</th>')) ?? [];
    const whole = tables.filter((table) => table.match(/<tr/g)?.length === 2 + PLANS.length);
    expect(whole).toHaveLength(4);
    expect(whole.join('')).toContain('<td class="number">1,000</td>');
    for (const cell of result.cells) {
      const row = [cell.yield_ms.p50, cell.yield_ms.p90].map((ms) => Number(ms?.toPrecision(3)));
      expect(html).toContain(`<td class="number edge">${row[0]}</td><td class="number">${row[1]}</td>`);
    }
  });

  test('cannot be broken out of by any name', () => {
    const evil = '</script><!--<script>alert(1)</script><img>"\'';
    const blamed = { yield_ms: 9, bound_ms: 1, kernel: evil, predicted_us: 1, real_us: 9000 };
    const page = pageOf({
      ...withCells((cell) =>
        cell.bound_ms === null ? cell : { ...cell, violations: [blamed], law_violations: 1 },
      ),
      adapter: { vendor: evil, architecture: evil, device: evil, description: evil, software: true },
      host: { cpus: 2, cpu_model: evil, node: evil },
      model: evil,
      low_priority: evil,
      high_priority: evil,
    });
    expect(page.match(/<script/g)).toHaveLength(2);
    expect(page).not.toMatch(/<!--|<img|alert\(1\)<\/script>/);
    expect(page.match(/&lt;img&gt;/g)?.length).toBeGreaterThan(8);
  });

  test('stays small with 20 cells of 10,000 samples', () => {
    const page = pageOf(syntheticResult({ seed: 5, n: 10_000 }));
    expect(Buffer.byteLength(page)).toBeLessThan(600_000);
    const curves = drawingOf(page, 'yield').match(/class="line[^>]*d="[^"]*"/g) ?? [];
    expect(curves).toHaveLength(8);
    for (const curve of curves) expect(curve.match(/L/g)?.length ?? 0).toBeLessThanOrEqual(400);
  });
});

describe('the charts', () => {
  test('mark the bound of each curve that has one, in its colour, and of the default cell by phase', () => {
    const yields = drawingOf(html, 'yield');
    for (const colour of ['engine', 'good', 'version']) {
      expect(yields).toContain(`class="rule bound" style="stroke:var(--${colour})"`);
    }
    expect(yields.match(/rule bound/g)).toHaveLength(3);
    expect(drawingOf(html, 'phase').match(/rule bound/g)).toHaveLength(1);
    expect(html).toMatch(/held 4 ms \/ 8 ms: p99 [\d.]+ ms, bound 8\.5\d ms/);
  });

  test('a curve climbs to the right and ends below certainty', () => {
    for (const [, path] of drawingOf(html, 'yield').matchAll(/class="line[^>]*d="M([^"]*)"/g)) {
      const [, ...points] = (path ?? '').split('L').map((pair) => pair.split(/[ V]/).map(Number));
      points.slice(1).forEach(([x = 0, y = 0], index) => {
        const [leftX = 0, lowerY = 0] = points[index] ?? [];
        expect(x).toBeGreaterThanOrEqual(leftX);
        expect(y).toBeLessThanOrEqual(lowerY);
      });
      expect(points.at(-1)?.[1]).toBeCloseTo(0, 3);
    }
  });

  test('name every baseline once for each width, and draw negative overheads at zero with a note', () => {
    const overlay = /id="plot-pareto"[^]*?<i class="cursor"/.exec(html)?.[0] ?? '';
    for (const name of [
      'spilled',
      'dropped',
      'second device',
      'one slice',
      'drain',
      'abort and retry',
      'unlimited',
    ]) {
      expect(overlay.match(new RegExp(`>${name}</span>`, 'g')), name).toHaveLength(2);
    }
    const onlyOneAbove = withCells((cell) => ({
      ...cell,
      lp_retained: cell.mode === 'unlimited' ? 1.006 : Math.min(1, cell.lp_retained),
    }));
    expect(pageOf(onlyOneAbove)).toContain(
      ' 1 cell measured up to 0.6 % more throughput than uncut work gave, which is noise; it is drawn at 0 %.',
    );
    const inside = dataOf(html).charts['pareto'] ?? [];
    expect(inside).toHaveLength(PLANS.length);
    for (const [x, y] of inside) {
      expect(x).toBeGreaterThanOrEqual(0);
      expect(Math.max(x, y)).toBeLessThanOrEqual(1);
    }
    expect(pageOf(withCells((cell) => ({ ...cell, lp_retained: 0.9 })))).not.toContain('drawn at 0 %');
  });

  test('have between-step preemptions apart from those within a step', () => {
    const marks = dataOf(html).charts['phase'] ?? [];
    const between = marks.filter(([, , text]) => text.includes('between steps'));
    expect(between).toHaveLength(2);
    const rightmost = Math.max(...between.map(([x]) => x));
    for (const [x, , text] of marks)
      if (!text.includes('between')) expect(x).toBeGreaterThan(rightmost + 0.1);
  });

  test('say how well slices were predicted, from all of them, and draw a bounded number', () => {
    const exact = withCells((cell) => ({
      ...cell,
      samples: { ...cell.samples, slice_real_us: cell.samples.slice_predicted_us },
    }));
    expect(pageOf(exact)).toContain(
      '100 % were within a factor of two; real over predicted time was 1 at p50 and 1 at p99',
    );
    const dots = drawingOf(html, 'prediction').match(/M[\d.]+ [\d.]+h0/g) ?? [];
    expect(dots).toHaveLength(1500);
    expect(html).toContain('1,500 of 28,000 are drawn');
  });
});

describe('violations', () => {
  test('are all counted, and the worst explained', () => {
    const over = result.cells.reduce((sum, cell) => sum + cell.law_violations, 0);
    const n = result.cells.filter((cell) => cell.bound_ms !== null).reduce((sum, cell) => sum + cell.n, 0);
    expect(over).toBeGreaterThan(20);
    expect(html).toContain(
      `<b>${over} of ${n.toLocaleString('en-US')} preemptions took longer than the law allows</b>`,
    );
    expect(html).toMatch(/a slice took [\d.]+ times its prediction/);
    expect(html).toContain('the host or the adapter was late, not a slice');
    expect(html).toContain('The 20 furthest over their bound');
    expect(html.match(/class="why always"/g)).toHaveLength(20);
  });

  test('one in 20,000 does not round to all', () => {
    const one = { yield_ms: 14, bound_ms: 6.2, kernel: 'matmul_tile', predicted_us: 1900, real_us: 9700 };
    const page = pageOf(
      withCells((cell, index) => ({
        ...cell,
        law_violations: index === 4 ? 1 : 0,
        violations: index === 4 ? [one] : [],
      })),
    );
    expect(page).toContain('<b>1 of 14,000 preemptions took longer');
    expect(page).toContain('<b>99.9 %</b>');
    expect(page).toContain('a slice took 5.11 times its prediction');
    expect(page).toContain('All of them, furthest over the bound first.');
  });

  test('none is said as plainly', () => {
    const page = pageOf(withCells((cell) => ({ ...cell, law_violations: 0, violations: [] })));
    expect(page).toContain('All 14,000 preemptions of the 14 cells that claim the law kept it.');
    expect(page).toContain('<b>100 %</b>');
  });
});

describe('little to show', () => {
  const none = /NaN|Infinity|undefined|null/;

  test('no cell at all', () => {
    const page = pageOf({ ...result, cells: [] });
    expect(page.replace(BENCH_SCRIPT, '')).not.toMatch(none);
    expect(page).toContain('No cell was measured.');
    expect(dataOf(page).charts).toEqual({});
  });

  test('cells in which nothing was measured', () => {
    const page = pageOf(withCells(emptyCell));
    expect(page.replace(BENCH_SCRIPT, '')).not.toMatch(none);
    expect(page).toContain('nothing to hold the targets against');
    expect(page).toContain('held 500 µs / 1 ms');
  });

  test('one sample a cell', () => {
    const page = pageOf(syntheticResult({ seed: 6, n: 1 }));
    expect(page.replace(BENCH_SCRIPT, '')).not.toMatch(none);
    expect(Object.keys(dataOf(page).charts)).toEqual(['yield', 'pareto', 'phase', 'prediction']);
  });

  test('baselines alone, and a time of zero', () => {
    const drain = cellOf('drain');
    const zero = { ...drain, samples: { ...drain.samples, yield_ms: drain.samples.yield_ms.map(() => 0) } };
    const page = pageOf({ ...result, cells: [zero, cellOf('unlimited')] });
    expect(page.replace(BENCH_SCRIPT, '')).not.toMatch(none);
    expect(page).toContain('No cell that claims the law was measured.');
    expect(dataOf(page).charts).not.toHaveProperty('phase');
  });
});

describe('the script', () => {
  test('compiles on its own', () => {
    expect(() => new Script(BENCH_SCRIPT)).not.toThrow();
  });

  test('reads out the nearest mark, hides away from all, and walks by key', () => {
    const { charts } = dataOf(html);
    const page = new PageDouble(BENCH_SCRIPT, { charts });
    const chart = page.byId('plot-pareto');
    const [output, spot] = [chart.querySelector('output'), chart.querySelector('.cursor')];
    const marks = charts['pareto'] ?? [];
    const abort = marks.find(([, , text]) => text.startsWith('abort and retry')) ?? [0, 0, ''];
    const [clientX, clientY] = [abort[0] * chart.clientWidth, (1 - abort[1]) * chart.clientHeight];
    chart.send('pointermove', { clientX: clientX - 6, clientY: clientY + 5 });
    expect([output.hidden, spot.hidden, output.textContent]).toEqual([false, false, abort[2]]);
    expect(output.textContent).toMatch(
      /^abort and retry: p99 [\d.]+ ms for [\d.]+ % of low-priority throughput$/,
    );
    chart.send('pointermove', { clientX: clientX - 60, clientY });
    expect([output.hidden, spot.hidden]).toEqual([true, true]);
    expect(chart.send('keydown', { key: 'ArrowLeft' })).toBe(true);
    expect(output.textContent).toBe(marks[marks.indexOf(abort) - 1]?.[2]);
    expect(chart.send('keydown', { key: 'Tab' })).toBe(false);
  });
});
