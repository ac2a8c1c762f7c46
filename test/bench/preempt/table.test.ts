import { describe, expect, it } from 'vitest';
import type { PreemptCell, PreemptResult } from '#src/bench/preempt/result.js';
import { cellOf, yieldQuantiles } from '#src/bench/preempt/statistics.js';
import { preemptTable } from '#src/bench/preempt/table.js';
import { HELD, sample, segment, UNLIMITED } from './fixtures.js';

const COLUMNS_MAX = 120;
const BASELINE = { hpMs: 10, heldMs: 8, jitterMs: 0.5 };

function cells(): PreemptCell[] {
  const blame = { kernel: 'matmul', predictedUs: 1, realUs: 2 };
  const many = [...Array.from({ length: 999 }, () => sample()), sample({ yieldMs: 100, blame })];
  const free = [sample({ boundMs: null, hpMs: 9, resumeMs: null })];
  return [
    cellOf(
      { ...HELD, sliceUs: 8000, inFlightUs: 16_000, hint: true },
      [segment(many, { wallMs: 20_000, tokens: 9_000, cpuMs: 600, idleMs: 400 })],
      BASELINE,
    ),
    cellOf(
      { ...UNLIMITED, mode: 'no-preemption' },
      [segment(free, { cpuMs: null, rowsDiscarded: 400 })],
      BASELINE,
    ),
  ].filter((cell) => cell !== null);
}

function result(changes: Partial<PreemptResult> = {}): PreemptResult {
  return {
    format: 'offbeat-bench-preempt/1',
    adapter: {
      vendor: 'mesa',
      architecture: '',
      device: 'llvmpipe',
      description: 'llvmpipe',
      software: true,
    },
    host: { cpus: 2, cpu_model: 'Some Processor', node: 'v20.19.0' },
    seed: 1,
    model: 'models/tiny',
    low_priority: '32 sequences at once',
    high_priority: 'one optimizer step',
    interrupted: false,
    left_out: [],
    host_jitter_ms: 0.5,
    host_jitter: yieldQuantiles([0.2, 0.5]),
    solo: { hp_ms: yieldQuantiles([10]) },
    unchunked: { lp_tokens_per_s: 1000, decode_step_ms: 4 },
    cells: cells(),
    wall_s: 60,
    ...changes,
  };
}

describe('the table', () => {
  const lines = preemptTable(result()).split('\n');

  it('has a line a cell, under what the columns are', () => {
    const [hinted = '', whole = ''] = lines.filter((line) => /^(held|no-preemption)/.test(line));
    expect(hinted.split(/ {2,}/)).toEqual([
      'held, hint',
      '8000/16000',
      '1,000',
      '3',
      '3',
      '3',
      '100',
      '5.5',
      '1',
      '99.9%',
      '90%',
      '+40%',
      '2',
      '0/0/2',
      '3%',
    ]);
    expect(whole.split(/ {2,}/)).toEqual([
      'no-preemption',
      '∞/∞',
      '1',
      '3',
      '3',
      '3',
      '3',
      '–',
      '–',
      '–',
      '80.8%',
      '-10%',
      '–',
      '0/20/2',
      '–',
    ]);
  });

  it('lines its columns up and fits a window', () => {
    const table = lines.filter((line) => /^(mode|held|no-preemption)/.test(line));
    expect(table).toHaveLength(3);
    expect(new Set(table.map((line) => line.length)).size).toBe(1);
    for (const line of lines.slice(lines.indexOf('')))
      expect(line.length, line).toBeLessThanOrEqual(COLUMNS_MAX);
  });

  it('says what it was measured on, that a software adapter is none, and what the host takes by itself', () => {
    expect(lines[0]).toMatch(/^adapter +llvmpipe \(software: timings are not those of a GPU\); 2 cores$/);
    expect(lines[1]).toContain('p50 0.2 ms, p99 0.5 ms');
    const { software: _, ...adapter } = result().adapter;
    expect(preemptTable(result({ adapter: { ...adapter, software: false } }))).not.toContain('software');
  });

  it('defines what it shows, and does not hide an early end or lost records', () => {
    expect(lines.join(' ')).toMatch(/yield: request → .* \(device clock\)/);
    expect(lines.join(' ')).not.toMatch(/interrupted|no record|no time/);
    const [cell, ...others] = cells();
    if (cell === undefined) throw new Error('no cell');
    const ended = preemptTable(
      result({ interrupted: true, cells: [{ ...cell, requests_unrecorded: 3 }, ...others] }),
    );
    expect(ended).toContain('interrupted after 60 s');
    expect(ended).toContain('3 requests left no record');
    expect(preemptTable(result({ left_out: ['drain ∞/0 µs', 'x'] }))).toContain(
      'no time was left for: drain ∞/0 µs; x.',
    );
  });
});
