import { describe, expect, test } from 'vitest';
import type { CompareResult, CompareRow } from '#src/bench/compare/result.js';
import { compareTable } from '#src/bench/compare/table.js';
import { aheadText, differenceText } from '#src/bench/compare/words.js';
import { synthetic, THREE } from './synthetic.js';

const { result } = synthetic(THREE);

function rowOf({ rows }: CompareResult, policy: string, job: string | null): CompareRow {
  const row = rows.find((each) => each.policy === policy && each.job === job);
  if (row === undefined) throw new Error(`no row of ${policy}`);
  return row;
}

function told(of: CompareResult, measure: string, policy: string, against: string): string {
  const each = of.differences.find(
    (one) => one.measure === measure && one.policy === policy && one.against === against,
  );
  if (each === undefined) throw new Error(`no difference of ${policy}`);
  return differenceText(each);
}

describe('a result', () => {
  test('has a row for each policy and each of its jobs, with the names of the issue', () => {
    expect(result.rows.map(({ policy, job }) => [policy, job])).toEqual(
      ['serial', 'fifo', 'gapRatio'].flatMap((policy) => [null, 'sums', 'hot'].map((job) => [policy, job])),
    );
    for (const name of [
      ...['policy', 'job', 'goodput', 'makespan_s', 'slowdown', 'jain', 'queue_wait_ms', 'yield_ms'],
      ...['busy', 'wasted', 'weight_bytes', 'ci95'],
    ]) {
      expect(result.rows[0]).toHaveProperty(name);
    }
    expect(JSON.parse(JSON.stringify(result))).toEqual(result);
  });

  test('has means over repeats with their intervals, by hand', () => {
    const row = rowOf(result, 'serial', null);
    // 9.0, 9.2 and 9.1 s: standard deviation 0.1, ± 4.3027 · 0.1 / √3.
    expect(row.makespan_s).toBeCloseTo(9.1, 12);
    expect(row.ci95.makespan_s?.[0]).toBeCloseTo(9.1 - 0.24841, 4);
    expect(row.goodput).toBeCloseTo((1800 / 9 + 1800 / 9.2 + 1800 / 9.1) / 3, 9);
    expect(rowOf(result, 'serial', 'hot').slowdown).toBeCloseTo((1.8 + 1.84 + 1.82) / 3, 12);
    expect(row).toMatchObject({ busy: 0.4, weight_bytes: 1000, tokens_decoded: 2000, tokens_trained: 1800 });
    expect(row.ci95.busy).toEqual([0.4, 0.4]);
    expect(row.wasted).toBeCloseTo(0.1, 12);
    expect(row.tokens_wasted).toEqual({ aborted: 20, expired: 40, filtered: 140, recomputed: 0 });
  });

  test('pools waits, yields and ages of all repeats', () => {
    const row = rowOf(result, 'fifo', null);
    expect(row.queue_wait_ms).toEqual({ actorTraining: { n: 18, p50: 2, p90: 3, p99: 3, max: 3 } });
    expect(row.yield_ms).toMatchObject({ n: 6, p50: 2, max: 4 });
    expect(row.staleness).toEqual([0.75, 0.25]);
    expect(rowOf(result, 'fifo', 'sums').yield_ms).toBeNull();
  });

  test('has each job alone, and every pair of policies by every measure', () => {
    expect(result.solo).toEqual([
      { job: 'sums', policy: 'priority', seconds: 4, ci95: [4, 4] },
      { job: 'hot', policy: 'priority', seconds: 5, ci95: [5, 5] },
    ]);
    expect(result.differences).toHaveLength(3 * 8);
  });

  test('says what a difference comes to', () => {
    // -2.9, -3 and -3.1 s: -3 ± 0.24841, over 9.1.
    expect(told(result, 'makespan_s', 'fifo', 'serial')).toBe('makespan 33 % lower (−35.7 to −30.2 %)');
    expect(told(result, 'makespan_s', 'gapRatio', 'fifo')).toMatch(
      /^makespan inside the noise \(−\d\.?\d? to \+\d\.?\d? %\)$/,
    );
    expect(told(result, 'busy', 'fifo', 'serial')).toBe('busy the same in every repeat');
    expect(aheadText(result)).toBe('fifo; cannot be told apart from it: gapRatio');
  });

  test('of one repeat knows no noise', () => {
    const one = synthetic({ serial: [[4000, 9000]], fifo: [[6000, 6000]] }).result;
    expect(rowOf(one, 'fifo', null).ci95.makespan_s).toBeNull();
    expect(told(one, 'makespan_s', 'fifo', 'serial')).toBe('makespan 33.3 % lower in the only repeat');
    expect(compareTable(one)).toContain('One repeat: nothing is known of the noise.');
  });

  test('of which a job did not end names it, and claims nothing', () => {
    const { result: open } = synthetic({
      serial: [
        [4000, 9000],
        [4000, 9000],
      ],
      fifo: [
        [6000, 6000],
        [6000, null],
      ],
    });
    expect(rowOf(open, 'fifo', null)).toMatchObject({ makespan_s: null, slowdown: null, jain: null });
    expect(open.notes).toEqual(['fifo: hot did not come to its end in 1 of 2 repeats']);
    expect(told(open, 'slowdown', 'fifo', 'serial')).toBe('slowdown not known: a repeat has no number');
    expect(compareTable(open)).toContain('fifo: hot did not come to its end in 1 of 2 repeats.');
  });

  test('names policies whose plans were thrown away', () => {
    const two = { serial: [[4000, 9000]], fifo: [[6000, 6000]] } as const;
    expect(synthetic(two, { violations: 3 }).result.notes).toContain(
      'fifo: plans that broke an invariant were thrown away, 3.0 a run',
    );
    expect(synthetic(two, { violations: null }).result.notes).toEqual([]);
  });
});

describe('the table', () => {
  const lines = compareTable(result).split('\n');

  test('has a line a policy and job under what the columns are', () => {
    const [serial = '', sums = ''] = lines.filter((line) => /^(serial| {2}sums) /.test(line));
    expect(serial.trim().split(/ {2,}/)).toEqual([
      'serial',
      '198 ±5.4',
      '9.1 ±0.25',
      '1.35 ±0.041',
      '0.92',
      '40 %',
      '10 %',
      '12',
      '1 kB',
      '4',
    ]);
    expect(sums.trim().split(/ {2,}/).slice(0, 2)).toEqual(['sums', '223 ±7.9']);
  });

  test('says on what, with which seeds, and what came of it', () => {
    const text = lines.join('\n');
    for (const words of [
      'four-agents: 2 jobs, 1 lane',
      'live         invented (software: timings are not those of a GPU)',
      '3, seeds 4, 5, 6; in mixed order, in 90 s',
      'alone        sums 4 s, hot 5 s',
      'against serial, paired by repeat, 95 % confidence:',
      '  fifo      goodput 4',
      'highest goodput: fifo; cannot be told apart from it: gapRatio',
    ]) {
      expect(text).toContain(words);
    }
    expect(text).not.toContain('interrupted');
    expect(compareTable({ ...result, interrupted: true, repeats: 9 })).toContain(
      'interrupted: 3 of 9 repeats are complete.',
    );
  });

  test('fits a terminal, and its columns stand under each other', () => {
    const heads = lines.findIndex((line) => line.startsWith('policy'));
    const rows = lines.slice(heads, heads + 11).filter((line) => line !== '');
    expect(Math.max(...lines.map((line) => line.length))).toBeLessThanOrEqual(120);
    const ends = rows.filter((line) => !/^ {2}(sums|hot) /.test(line)).map((line) => line.length);
    expect(new Set(ends).size).toBe(1);
  });
});
