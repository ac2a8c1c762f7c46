import { Script } from 'node:vm';
import { describe, expect, test } from 'vitest';
import { Random } from '#src/lib/prng.js';
import { preemptionSummary } from '#src/telemetry/preemption-summary.js';
import { reportHtml } from '#src/telemetry/report.js';
import { SCRIPT } from '#src/telemetry/report/script.js';
import { RunRecords } from '#src/telemetry/run-records.js';
import { pageData } from './report/page-data.js';
import { laneRecords, preemptionRecord, syntheticRun } from './synthetic.js';

const run = syntheticRun(3, 40);
const html = reportHtml(run);

describe('the page', () => {
  test('shows the headline numbers and the software badge', () => {
    for (const text of [
      '0.23 → 0.74',
      '0.22 → 0.71',
      '914',
      '97.8 %',
      'in 100 s',
      'adds up exactly',
      '28.5 MB',
    ]) {
      expect(html).toContain(text);
    }
    expect(html).toContain('class="badge software"');
    const onGpu = { ...run.summary, adapter: { ...run.summary.adapter, software: false } };
    expect(reportHtml({ ...run, summary: onGpu })).not.toContain('class="badge software"');
  });

  test('loads nothing', () => {
    expect(html).toContain(`default-src 'none'`);
    expect(html).not.toMatch(/https?:|src=|href=|url\(|@import|fetch\(|XMLHttp|WebSocket/);
  });

  test('has no number that is none, and no unfinished template', () => {
    expect(html.replace(SCRIPT, '')).not.toMatch(/NaN|Infinity|undefined|\[object|\$\{/);
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

  test('says so when tokens do not add up', () => {
    const tokens = { ...run.summary.tokens, decoded: run.summary.tokens.decoded + 3 };
    expect(reportHtml({ ...run, summary: { ...run.summary, tokens } })).toContain(
      'does not add up: 3 unaccounted',
    );
  });

  test('counts the violations of the law and explains the worst', () => {
    expect(run.summary.preemption.law_violations).toBe(3);
    for (const text of [
      'law obeyed by 92.5 %',
      '92.5 % obeyed the law; 3 did not.',
      '3 of 40 were over their own bound',
      '3 of 40 preemptions broke the law',
      'matmul_tile',
      'class="rule bound"',
      '320 held, 0 spilled to the host, 0 dropped',
    ]) {
      expect(html).toContain(text);
    }
    expect(html.match(/<td>matmul_tile<\/td>/g)).toHaveLength(3);
    expect(html).not.toContain('badge starved');
  });

  test('lists at most 20 violations and says that there are more, the host named where no slice is to blame', () => {
    const records = new RunRecords({ startMs: 0 });
    records.addLane(0, 'gpu');
    const blame = { kernel: 'host', predictedUs: 0, realUs: 0 };
    const preemptions = Array.from({ length: 30 }, (_, index) =>
      preemptionRecord({ requestedMs: 100 * index, yieldedMs: 100 * index + 7 + index, blame }),
    );
    records.add(laneRecords({ preemptions }));
    const page = reportHtml({ ...run, records, endMs: 4000 });
    expect(page.match(/no slice: the host was late/g)).toHaveLength(20);
    expect(page).toContain('The 20 worst, furthest');
    expect(page).toContain('<td class="number">36 ms</td><td class="number">6 ms</td>');
  });

  test('marks starved generation', () => {
    const records = new RunRecords({ startMs: 0 });
    records.addLane(0, 'gpu');
    const starved = [0, 10_000].map((fromMs) => ({ lane: 0, job: 'main', fromMs, toMs: fromMs + 2250 }));
    records.add(laneRecords({ starved }));
    const page = reportHtml({
      ...run,
      records,
      endMs: 20_000,
      summary: { ...run.summary, starved_seconds: 4.5 },
    });
    expect(page).toContain('<span class="badge starved">generation starved for 4.5 s</span>');
    expect(page).toContain('<b>4.5 s</b> in all (22.5 % of the lanes’ time), 2.25 s at the longest');
    expect(pageData(page).timeline.lanes[0]?.starved).toEqual([
      [0, 2_250_000],
      [10_000_000, 12_250_000],
    ]);
  });
});

describe('data in the page', () => {
  test('cannot break out of its element, nor can names and the configuration', () => {
    const evil = '</script><!--<script>alert(1)</script>';
    const records = new RunRecords({ startMs: 0 });
    records.addLane(0, evil);
    const slice = {
      lane: 0,
      resident: 'engine',
      submittedMs: 0,
      startedMs: 0,
      finishedMs: 1,
      predictedUs: 1,
      dispatches: 1,
    } as const;
    const blame = { kernel: evil, predictedUs: 1, realUs: 2 };
    const preemptions = [preemptionRecord({ stage: evil, yieldedMs: 9, blame })];
    records.add(laneRecords({ slices: [{ ...slice, job: evil }], preemptions }));
    records.awake.push({ lane: 0, job: `${evil}2`, fromMs: 0, toMs: 1 });
    const adapter = { ...run.summary.adapter, description: evil };
    const page = reportHtml({
      ...run,
      records,
      endMs: 10,
      config: evil,
      summary: { ...run.summary, model: evil, adapter },
    });
    expect(page.match(/<script/g)).toHaveLength(2);
    expect(page).not.toContain('<!--');
    expect(page).not.toContain('alert(1)</script>');
    expect(pageData(page).timeline.lanes[0]?.name).toBe(`lane 0 — ${evil}`);
  });

  test('holds every slice of the run in its spans', () => {
    const { timeline } = pageData(html);
    const slices = timeline.lanes.flatMap(({ rows }) =>
      rows.flatMap(({ spans }) => spans.filter((_, i) => i % 4 === 2)),
    );
    expect(slices.reduce((sum, count) => sum + count, 0)).toBe(run.slices.length);
  });

  test('stays bounded when everything is at its bound', () => {
    const random = new Random(9);
    const records = new RunRecords({ startMs: 0 });
    for (let lane = 0; lane < 4; lane++) records.addLane(lane, 'llvmpipe (LLVM 15, 256 bits)');
    const slices = Array.from({ length: 260_000 }, (_, index) => {
      const startedMs = index * 4 + random.uniform();
      const common = {
        lane: index % 4,
        job: 'main',
        submittedMs: startedMs,
        startedMs,
        predictedUs: 2000,
        dispatches: 20,
      };
      return {
        ...common,
        resident: index % 8 < 4 ? 'engine' : 'trainer',
        finishedMs: startedMs + 2 + random.uniform(),
      } as const;
    });
    const preemptions = Array.from({ length: 60_000 }, (_, index) =>
      preemptionRecord({
        lane: index % 4,
        requestedMs: index * 17,
        yieldedMs: index * 17 + random.uniform() * 12,
        blame: { kernel: 'matmul_tile', predictedUs: 1900, realUs: 9000 },
      }),
    );
    const starved = Array.from({ length: 60_000 }, (_, index) => ({
      lane: index % 4,
      job: 'main',
      fromMs: index * 17,
      toMs: index * 17 + 16,
    }));
    const versions = Array.from({ length: 60_000 }, (_, version) => {
      const common = { lane: version % 4, job: 'main', version, atMs: version * 17, durationMs: 1, bytes: 1 };
      return { ...common, kind: 'flip' as const };
    });
    records.add(laneRecords({ slices, preemptions, starved, versions }));
    for (let index = 0; index < 60_000; index++) {
      records.awake.push({ lane: index % 4, job: 'main', fromMs: index * 17, toMs: index * 17 + 8 });
    }
    const metrics = Array.from({ length: 20_000 }, (_, step) => ({
      step,
      time_s: step,
      'rollout/score/mean': random.uniform(),
      'rollout/score/min': random.uniform(),
      'rollout/score/max': random.uniform(),
      'actor/loss': random.normal(),
      'actor/kl': random.uniform(),
      'actor/entropy': random.uniform(),
      'actor/grad_norm': random.uniform(),
      'rollout/response_length/mean': random.uniform(),
      'tokens/per_second': 1000 * random.uniform(),
    }));
    const page = reportHtml({ ...run, records, metrics, endMs: 1_050_000 });
    expect(Buffer.byteLength(page)).toBeLessThan(1.5e6);
    expect(page).toContain('10,000 slices are not drawn');
  });
});

test('a run that ended before it began still has a page', () => {
  const records = new RunRecords({ startMs: 0 });
  records.addLane(0, 'gpu');
  const summary = {
    ...run.summary,
    steps: 0,
    reward: { first5: null, last5: null, heldout_before: null, heldout_after: null },
    tokens: { decoded: 0, trained: 0, aborted: 0, expired: 0, filtered: 0, in_flight: 0 },
    tokens_per_second: 0,
    preemption: preemptionSummary(records, {
      slice_budget_us: 2000,
      in_flight_budget_us: 4000,
      largest_dispatch_us: 0,
    }),
    weights: { publishes: 0, bytes_sent: 0, bytes_broadcast: 0, seconds: 0 },
  };
  const page = reportHtml({ ...run, summary, records, metrics: [], heldout: [], endMs: 0 });
  expect(page).toContain('ended before its first step');
  expect(page).toContain('never had to take the device');
  expect(page.replace(SCRIPT, '')).not.toMatch(/NaN|Infinity|undefined/);
});

test('the script compiles on its own', () => {
  expect(() => new Script(SCRIPT)).not.toThrow();
});
