import { describe, expect, it } from 'vitest';
import type { PreemptCell } from '#src/bench/preempt/result.js';
import type { Sample } from '#src/bench/preempt/samples.js';
import { cellOf, median, yieldQuantiles, type RatedSegment } from '#src/bench/preempt/statistics.js';
import { at } from '#src/lib/assert.js';
import { Random } from '#src/lib/prng.js';
import { HELD, sample, segment, UNLIMITED } from './fixtures.js';

const BASELINE = { hpMs: 10, heldMs: 8, jitterMs: 0.5 };

function cell(segments: readonly RatedSegment[], plan = HELD): PreemptCell {
  const measured = cellOf(plan, segments, BASELINE);
  if (measured === null) throw new Error('no cell');
  return measured;
}

it('quantiles are by nearest rank, the 99.9 % one too', () => {
  const thousand = Array.from({ length: 1000 }, (_, i) => 1000 - i);
  expect(yieldQuantiles(thousand)).toEqual({ n: 1000, p50: 500, p90: 900, p99: 990, p999: 999, max: 1000 });
  expect(yieldQuantiles([])).toEqual({ n: 0, p50: null, p90: null, p99: null, p999: null, max: null });
  expect(median([3, 1, 2])).toBe(2);
  expect(median([])).toBeNull();
});

it('a cell without a sample is none', () => {
  expect(cellOf(HELD, [], BASELINE)).toBeNull();
  expect(cellOf(HELD, [segment([])], BASELINE)).toBeNull();
});

describe('the law', () => {
  const blame = { kernel: 'matmul_tile', predictedUs: 1500, realUs: 4000 };
  const samples = [
    sample(),
    sample({ yieldMs: 5.5 }),
    sample({ yieldMs: 5.9, blame }),
    sample({ yieldMs: 9, boundMs: 6, blame }),
  ];

  it('is broken above the bound of each preemption, not above their median', () => {
    const { bound_ms: bound, law_violations: over, violations, ...rest } = cell([segment(samples)]);
    expect(bound).toBe(5.5);
    expect(over).toBe(2);
    expect(rest.law_violations_beyond_jitter).toBe(1);
    // The worst first, with what is to blame.
    expect(violations.map(({ yield_ms: ms }) => ms)).toEqual([9, 5.9]);
    expect(violations[0]).toEqual({
      yield_ms: 9,
      bound_ms: 6,
      kernel: 'matmul_tile',
      predicted_us: 1500,
      real_us: 4000,
    });
    expect(rest.samples.bound_ms).toEqual([5.5, 5.5, 5.5, 6]);
  });

  it('is not claimed for what makes no promise', () => {
    const free = samples.map((each) => ({ ...each, boundMs: null }));
    const {
      bound_ms: bound,
      law_violations: over,
      violations,
      samples: raw,
    } = cell([segment(free)], UNLIMITED);
    expect({ bound, over, violations, bounds: raw.bound_ms }).toEqual({
      bound: null,
      over: 0,
      violations: [],
      bounds: [],
    });
  });

  it('shows the worst twenty of many', () => {
    const many = Array.from({ length: 50 }, (_, i) => sample({ yieldMs: 6 + i }));
    const { law_violations: over, violations } = cell([segment(many)]);
    expect(over).toBe(50);
    expect(violations.map(({ yield_ms: ms }) => ms)).toEqual(Array.from({ length: 20 }, (_, i) => 55 - i));
  });
});

describe('throughput', () => {
  it('is held against what low priority alone would have done in the time it was left', () => {
    // 20 × 10 ms held of 1,000 ms leave 800 ms for 800 tokens at 1,000 tokens/s.
    const measured = cell([segment(Array.from({ length: 20 }, () => sample()))]);
    expect(measured.lp_retained).toBeCloseTo(1, 12);
    expect(measured.hp_duty).toBeCloseTo(0.2, 12);
    expect(measured.lp_tokens_per_s).toBeCloseTo(800, 12);
  });

  it('compares each segment with its own round', () => {
    const samples = Array.from({ length: 20 }, () => sample());
    const slow = segment(samples, { tokens: 400, unchunkedTokensPerS: 500 });
    expect(cell([segment(samples), slow]).lp_retained).toBeCloseTo(1, 12);
  });

  it('leaves a second device what a step alone would take', () => {
    const measured = cell([segment(Array.from({ length: 25 }, () => sample({ heldMs: 30 })))], {
      ...UNLIMITED,
      mode: 'second-device',
    });
    // 25 × 8 ms, not 25 × 30.
    expect(measured.hp_duty).toBeCloseTo(0.2, 12);
    expect(measured.lp_retained).toBeCloseTo(1, 12);
  });
});

it('high priority is slower by its median over the median alone', () => {
  expect(cell([segment([12, 11, 40].map((hpMs) => sample({ hpMs })))]).hp_slowdown).toBeCloseTo(0.2, 12);
  expect(cell([segment([sample({ hpMs: 9 })])]).hp_slowdown).toBeCloseTo(-0.1, 12);
});

it('waste is device time in proportion to the rows that were lost', () => {
  const samples = [sample({ tokensRecomputed: 150 }), sample({ tokensRecomputed: 100 })];
  const { wasted, ...rest } = cell([
    segment(samples, { rows: 750, rowsDiscarded: 100, tokensDiscarded: 60 }),
  ]);
  expect(wasted.recompute_ms).toBeCloseTo(125, 12);
  expect(wasted.discarded_ms).toBeCloseTo(50, 12);
  expect(wasted).toMatchObject({ idle_ms: 20, hint_idle_ms: 5 });
  expect(rest).toMatchObject({ tokens_recomputed: 250, tokens_discarded: 60 });
});

it('resume and processor time are null where nobody can tell', () => {
  const { resume_ms: resume, host_cpu: cpu } = cell([segment([sample({ resumeMs: null })], { cpuMs: null })]);
  expect({ resume, cpu }).toEqual({ resume: null, cpu: null });
  expect(cell([segment([sample()])]).host_cpu).toBeCloseTo(0.03, 12);
});

it('is the same however random samples fall into segments, and agrees with a recount of the raw ones', () => {
  for (let seed = 0; seed < 20; seed++) {
    const random = new Random(4100 + seed);
    const samples: Sample[] = Array.from({ length: random.int(1, 400) }, () =>
      sample({ yieldMs: 8 * random.uniform(), boundMs: 4 + random.uniform(), hpMs: 10 + random.uniform() }),
    );
    const cut = random.int(0, samples.length);
    const whole = cell([segment(samples)]);
    const parts = cell([segment(samples.slice(0, cut)), segment(samples.slice(cut))]);
    const { yield_ms: yields, law_violations: over, samples: raw } = whole;
    const label = `seed ${4100 + seed}`;
    expect({ y: parts.yield_ms, o: parts.law_violations }, label).toEqual({ y: yields, o: over });
    expect(yieldQuantiles(raw.yield_ms), label).toEqual(yields);
    expect(raw.yield_ms.filter((ms, i) => ms > at(raw.bound_ms, i)).length, label).toBe(over);
  }
});
