import { expect, test } from 'vitest';
import { assertTokensAddUp, summaryText, tokensUnaccounted } from '#src/telemetry/summary.js';
import type { Summary } from '#src/telemetry/summary.js';
import { syntheticRun } from './synthetic.js';

const tokens = { decoded: 15, trained: 1, aborted: 2, expired: 3, filtered: 4, in_flight: 5 };

test('tokens that add up pass; one lost, one counted twice or a broken count does not', () => {
  assertTokensAddUp(tokens);
  for (const name of ['decoded', 'trained', 'aborted', 'expired', 'filtered', 'in_flight'] as const) {
    for (const change of [-1, 1]) {
      const wrong = { ...tokens, [name]: tokens[name] + change };
      expect(() => assertTokensAddUp(wrong), `${name} ${change}`).toThrow();
      expect(tokensUnaccounted(wrong)).not.toBe(0);
    }
  }
  expect(() => assertTokensAddUp({ ...tokens, decoded: 15.5, trained: 1.5 })).toThrow('not a count');
  expect(() => assertTokensAddUp({ ...tokens, aborted: -1, expired: 6 })).toThrow('not a count');
});

test('the text says what matters, in short lines, and names a software adapter', () => {
  const { summary } = syntheticRun(1, 40);
  const text = summaryText(summary);
  expect(text).toContain('0.23 → 0.74');
  expect(text).toContain('0.22 → 0.71');
  expect(text).toContain('101,410 decoded, 99,200 trained on (97.8 %)');
  expect(text).toContain('over 40 preemptions');
  expect(text).toMatch(/law {11}obeyed by 92.5 % \(3 of 40 over; worst .* ms, bound 2.* ms: matmul_tile/);
  expect(text).toContain('0 tokens recomputed');
  expect(text).not.toMatch(/starved|rebuilt/);
  const rebuilt = { ...summary, lanes: { rebuilt: 2, steps_repeated: 1 } };
  expect(summaryText(rebuilt)).toContain('2 rebuilt, 1 steps taken again');
  expect(summaryText({ ...summary, starved_seconds: 12.5 })).toContain('no device for 12.5 s');
  expect(text).toContain('28.5 MB sent; a broadcast would have sent 84.5 MB');
  expect(text).toContain('40 steps of sums-1m in 100 s, seed 7');
  expect(text).toContain('software');
  for (const line of text.trimEnd().split('\n')) expect(line.length).toBeLessThan(110);
  const onGpu = { ...summary, adapter: { ...summary.adapter, software: false } };
  expect(summaryText(onGpu)).not.toContain('software');
});

test('the law line says who is to blame for the worst, and rounds no violation away', () => {
  const { summary } = syntheticRun(1, 3);
  const worst = { yield_ms: 14, bound_ms: 6.2, kernel: 'matmul_nn', predicted_us: 1900, real_us: 9000 };
  const lawLine = (change: Partial<Summary['preemption']>): string => {
    const text = summaryText({ ...summary, preemption: { ...summary.preemption, ...change } });
    return text.split('\n').find((line) => line.startsWith('law')) ?? '';
  };
  const broken = { count: 9000, law_violations: 1, law_obeyed_share: 1 - 1 / 9000, law_worst: worst };
  expect(lawLine(broken)).toBe(
    'law           obeyed by 99.9 % (1 of 9,000 over; worst 14 ms, bound 6.2 ms: matmul_nn 9 ms, not 1.9 ms)',
  );
  expect(lawLine({ ...broken, law_worst: { ...worst, kernel: 'host', real_us: 0 } })).toContain(
    'no slice to blame',
  );
  expect(
    lawLine({ count: 3, bound_ms: 2.6, law_violations: 0, law_obeyed_share: 1, law_worst: null }),
  ).toContain('obeyed by all 3, median bound 2.6 ms');
});

test('a run that measured nothing shows dashes, not NaN or null', () => {
  const { summary } = syntheticRun(1, 3);
  const none = { n: 0, p50: null, p90: null, p99: null, max: null };
  const text = summaryText({
    ...summary,
    reward: { first5: null, last5: null, heldout_before: null, heldout_after: null },
    tokens: { decoded: 0, trained: 0, aborted: 0, expired: 0, filtered: 0, in_flight: 0 },
    preemption: {
      ...summary.preemption,
      count: 0,
      time_to_yield_ms: none,
      time_to_yield_device_ms: none,
      bound_ms: null,
      law_violations: 0,
      law_obeyed_share: null,
      law_worst: null,
      resume_ms: none,
    },
  });
  expect(text).toContain('– → –');
  expect(text).not.toMatch(/NaN|null|undefined/);
});
