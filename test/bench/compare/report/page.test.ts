import { describe, expect, test } from 'vitest';
import { compareReportHtml } from '#src/bench/compare/report/page.js';
import { at } from '#src/lib/assert.js';
import { synthetic, THREE } from '../synthetic.js';

const STARTED_AT = new Date(Date.UTC(2026, 1, 3, 4, 5));
const { result, repeats } = synthetic(THREE);
const { runs } = at(repeats, 0);
const html = compareReportHtml(result, runs, STARTED_AT);

describe('the page', () => {
  test('says what was compared, on what, and who is ahead', () => {
    for (const text of [
      'four-agents: 3 policies compared',
      'class="badge software"',
      '3 repeats, seeds 4, 5, 6',
      'Highest goodput: <b>fifo; cannot be told apart from it: gapRatio</b>',
      '<b>295</b><span>fifo (±12)</span>',
      '2026-02-03 04:05 UTC',
    ]) {
      expect(html).toContain(text);
    }
    expect(html).not.toMatch(/simulated: as good|one repeat:|interrupted:/);
  });

  test('warns of what a reader must know before the numbers', () => {
    const one = synthetic({ serial: [[4000, 9000]], fifo: [[6000, null]] });
    const page = compareReportHtml(
      { ...one.result, mode: 'simulated', interrupted: true, repeats: 5 },
      at(one.repeats, 0).runs,
      STARTED_AT,
    );
    for (const text of [
      'simulated: as good as its cost model',
      'one repeat: nothing is known of the noise',
      'interrupted: 1 of 5 repeats are complete',
      'fifo: hot did not come to its end in 1 of 1 repeats',
      '<h3>fifo <small>did not end</small></h3>',
    ]) {
      expect(page).toContain(text);
    }
  });

  test('calls a difference inside the noise that, and colours the others by what is better', () => {
    const table = /<table class="differences">[^]*?<\/table>/.exec(html)?.[0] ?? '';
    expect(table).toContain('<span class="verdict">33 % lower</span><small>−35.7 to −30.2 %</small>');
    expect(table).toContain('<span class="plain">inside the noise</span>');
    expect(table).toContain('<span class="plain">the same in every repeat</span>');
    expect(table).not.toContain('verdict bad');
    const turned = synthetic({ fifo: THREE.fifo, serial: THREE.serial });
    const page = compareReportHtml(turned.result, at(turned.repeats, 0).runs, STARTED_AT);
    expect(page).toContain('<span class="verdict bad">49.');
  });

  test('holds every pair against each other, of three policies or more', () => {
    const pairs = /<summary>Every pair[^]*?<\/table>/.exec(html)?.[0] ?? '';
    const cells = [...pairs.matchAll(/<td>(?:<span class="[a-z ]+">([^<]*))?/g)].map(([, text]) => text);
    expect(cells).toEqual(['49.2 % higher', undefined, '47.6 % higher', 'inside the noise']);
    const two = synthetic({ serial: THREE.serial, fifo: THREE.fifo });
    expect(compareReportHtml(two.result, at(two.repeats, 0).runs, STARTED_AT)).not.toContain('Every pair');
  });

  test('draws every policy over the same time, its end marked', () => {
    const pictures = html.match(/<section><h3>[^]*?<\/section>/g) ?? [];
    expect(pictures).toHaveLength(3);
    for (const [index, end] of ['45%', '30.5%', '30%'].entries()) {
      expect(pictures[index]).toContain(`<i class="end" style="left:${end}"></i>`);
      // 8 of 20 s at half: 240 of 600 columns, the second of four shades.
      expect(pictures[index]?.match(/<path [^>]*opacity:0\.5" d="M0 0h240v1h-240z"\/>/g)).toHaveLength(2);
    }
  });

  test('has intervals over the bars, and none where there is none', () => {
    const makespan = /<b>Makespan<\/b>[^]*?<\/figure>/.exec(html)?.[0] ?? '';
    // The axis ends where the longest interval does: 9.1 + 0.248.
    expect(makespan).toContain('width:97.34%');
    expect(makespan.match(/<i style="left:/g)).toHaveLength(3);
    const busy = /<b>Busy<\/b>[^]*?<\/figure>/.exec(html)?.[0] ?? '';
    expect(busy).toContain('width:40%');
    expect(busy).not.toContain('<i style="left:');
  });

  test('shows ages, waits and yields of each policy', () => {
    expect(html.match(/<span class="name">1 behind<\/span>/g)).toHaveLength(3);
    expect(html).toContain('Shares of the tokens trained on.');
    expect(html).toContain('<b>actorTraining</b>');
    expect(html.match(/2 ms · 3 ms<small>n 18, max 3 ms/g)).toHaveLength(3);
    expect(html.match(/2 ms · 4 ms<small>n 6, max 4 ms/g)).toHaveLength(3);
  });

  test('loads nothing, has no script of its own, and no number that is none', () => {
    expect(html).toContain(`default-src 'none'`);
    expect(html).not.toMatch(/https?:|src=|href=|url\(|@import/);
    expect(html).not.toMatch(/NaN|Infinity|undefined|\[object|\$\{/);
  });

  test('closes every element it opens', () => {
    const open: string[] = [];
    const body = html.replaceAll(/<(script|style)[^>]*>[^]*?<\/\1>/g, '').replace('<!doctype html>', '');
    for (const [, end, name, attributes] of body.matchAll(/<(\/?)([a-z0-9]+)((?:"[^"]*"|[^">])*)>/g)) {
      if (name === undefined || ['meta', 'br'].includes(name) || attributes?.endsWith('/')) continue;
      if (end === '') open.push(name);
      else expect(open.pop(), `</${name}>`).toBe(name);
    }
    expect(open).toEqual([]);
  });

  test('cannot be broken out of by any name', () => {
    const evil = '</script><!--<img>"\'';
    const page = compareReportHtml(
      {
        ...result,
        scenario: evil,
        jobs: [evil],
        policies: [evil, evil, evil],
        rows: result.rows.map((row) => ({ ...row, policy: evil, job: row.job === null ? null : evil })),
        differences: result.differences.map((each) => ({ ...each, policy: evil, against: evil })),
        notes: [evil],
        machine: { description: evil, software: true, vendor: evil, architecture: evil },
      },
      runs,
      STARTED_AT,
    );
    expect(page.match(/<script/g)).toHaveLength(2);
    expect(page).not.toMatch(/<!--|<img/);
    expect(page.match(/&lt;img&gt;/g)?.length).toBeGreaterThan(8);
  });

  test('stays small with many policies, jobs and stretches', () => {
    const spans = Array.from({ length: 20_000 }, (_, index) => ({
      ...{ lane: index % 3, job: 'sums', kind: 'generation' as const, busy: (index % 7) / 7 },
      ...{ fromMs: index, toMs: index + 1 },
    }));
    const many = Object.fromEntries(Array.from({ length: 16 }, (_, index) => [`p${index}`, THREE.serial]));
    const big = synthetic(many, { lanes: 40, timeline: { spans, dropped: 7 } });
    const page = compareReportHtml(big.result, at(big.repeats, 0).runs, STARTED_AT);
    expect(Buffer.byteLength(page)).toBeLessThan(1_500_000);
    expect(page).toContain('Not drawn: 36 more lanes; 112 stretches, for which the record had no room.');
  });
});
