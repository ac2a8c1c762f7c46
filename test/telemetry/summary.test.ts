import { expect, test } from 'vitest';
import { assertTokensAddUp, summaryText, tokensUnaccounted, yieldBudgetMs } from '#src/telemetry/summary.js';
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

test('the budget is the work in flight and the largest dispatch', () => {
  const { preemption } = syntheticRun(1, 3).summary;
  expect(yieldBudgetMs({ ...preemption, in_flight_budget_us: 4000, largest_dispatch_us: 250 })).toBe(4.25);
});

test('the text says what matters, in short lines, and names a software adapter', () => {
  const { summary } = syntheticRun(1, 40);
  const text = summaryText(summary);
  expect(text).toContain('0.23 → 0.74');
  expect(text).toContain('0.22 → 0.71');
  expect(text).toContain('101,410 decoded, 99,200 trained on (97.8 %)');
  expect(text).toContain('over 40 preemptions');
  expect(text).toContain('0 tokens recomputed');
  expect(text).toContain('28.5 MB sent; a broadcast would have sent 84.5 MB');
  expect(text).toContain('40 steps of sums-1m in 100 s, seed 7');
  expect(text).toContain('software');
  for (const line of text.trimEnd().split('\n')) expect(line.length).toBeLessThan(110);
  const onGpu = { ...summary, adapter: { ...summary.adapter, software: false } };
  expect(summaryText(onGpu)).not.toContain('software');
});

test('a run that measured nothing shows dashes, not NaN or null', () => {
  const { summary } = syntheticRun(1, 3);
  const none = { n: 0, p50: null, p90: null, p99: null, max: null };
  const text = summaryText({
    ...summary,
    reward: { first5: null, last5: null, heldout_before: null, heldout_after: null },
    tokens: { decoded: 0, trained: 0, aborted: 0, expired: 0, filtered: 0, in_flight: 0 },
    preemption: { ...summary.preemption, count: 0, time_to_yield_ms: none, resume_ms: none },
  });
  expect(text).toContain('– → –');
  expect(text).not.toMatch(/NaN|null|undefined/);
});
