import { describe, expect, it } from 'vitest';
import { CostModel } from '#src/lanes/cost-model.js';
import { Pace } from '#src/lanes/pace.js';
import { Random } from '#src/lib/prng.js';

const BUDGETS = { sliceUs: 2000, inFlightUs: 4000 };

function make(budgets = BUDGETS): { pace: Pace; cost: CostModel } {
  const cost = new CostModel(1);
  return { pace: new Pace(budgets, cost), cost };
}

describe('budgets', () => {
  it('are the configured ones while slices keep to what was predicted', () => {
    const { pace, cost } = make();
    for (let i = 0; i < 100; i++) pace.observe(4, 2);
    expect(pace.limits(0)).toEqual(BUDGETS);
    expect(pace.breaches).toBe(0);
    expect(cost.sliceBudgetUs).toBe(2000);
  });

  it('bound what the law allows: in-flight budget, largest dispatch and 200 µs', () => {
    const { pace } = make();
    expect(pace.lawMs).toBeCloseTo(4.2);
    pace.submitted(1500);
    pace.submitted(300);
    expect(pace.lawMs).toBeCloseTo(5.7);
    // A dispatch that was long once does not loosen the law for ever.
    for (let i = 0; i < 600; i++) pace.submitted(400);
    expect(pace.lawMs).toBeCloseTo(4.6);
  });

  it('may be none in flight at all: one slice at a time, of the full length', () => {
    const { pace } = make({ sliceUs: 700, inFlightUs: 0 });
    expect(pace.limits(0)).toEqual({ sliceUs: 700, inFlightUs: 0 });
    expect(make({ sliceUs: Infinity, inFlightUs: Infinity }).pace.limits(0)).toEqual({
      sliceUs: Infinity,
      inFlightUs: Infinity,
    });
  });

  it('stay within a segment too, which changes nothing about the law', () => {
    const { pace, cost } = make();
    pace.align({ sliceUs: 500, inFlightUs: 1000 });
    expect([pace.limits(0), cost.sliceBudgetUs]).toEqual([{ sliceUs: 500, inFlightUs: 1000 }, 500]);
    expect(pace.lawMs).toBeCloseTo(4.2);
    pace.hint(10, 20);
    expect(pace.limits(15)).toEqual({ sliceUs: 100, inFlightUs: 0 });
    pace.endHint();
    expect(cost.sliceBudgetUs).toBe(500);
    pace.align({ sliceUs: 9000, inFlightUs: 18_000 });
    expect([pace.limits(0), cost.sliceBudgetUs]).toEqual([BUDGETS, 2000]);
    pace.align({ sliceUs: 500, inFlightUs: 1000 });
    pace.align(null);
    expect([pace.limits(0), cost.sliceBudgetUs]).toEqual([BUDGETS, 2000]);
  });

  it('shrink under breaches and grow back, so that a request at a random moment seldom meets one', () => {
    for (let seed = 700; seed < 710; seed++) {
      const random = new Random(seed);
      const { pace } = make();
      // Time on the device in proportion to what may be in flight, times a noise with a long tail.
      let timeMs = 0;
      let breachMs = 0;
      for (let i = 0; i < 60_000; i++) {
        const stayMs = (pace.limits(0).inFlightUs / 1000) * Math.exp(0.35 * random.normal());
        const stepMs = stayMs / 2;
        if (i > 10_000) {
          timeMs += stepMs;
          breachMs += Math.max(0, stayMs - pace.lawMs);
        }
        pace.observe(stayMs, stepMs);
      }
      expect(breachMs / timeMs, `seed ${seed}`).toBeLessThan(0.006);
      expect(breachMs / timeMs, `seed ${seed}`).toBeGreaterThan(0.002);
      expect(pace.share, `seed ${seed}`).toBeLessThan(0.95);
      for (let i = 0; i < 10_000; i++) pace.observe(2, 1);
      expect(pace.limits(0), `seed ${seed}`).toEqual(BUDGETS);
    }
  });

  it('never shrink below two fifths, however bad it gets, and start anew when configured', () => {
    const { pace } = make();
    for (let i = 0; i < 1000; i++) pace.observe(100, 1);
    expect(pace.share).toBe(0.4);
    expect(pace.breaches).toBe(1000);
    expect(pace.limits(0)).toEqual({ sliceUs: 1280, inFlightUs: 1600 });
    pace.configure({ sliceUs: 100, inFlightUs: 300 });
    expect(pace.limits(0)).toEqual({ sliceUs: 100, inFlightUs: 300 });
  });
});

describe('a hint', () => {
  it('makes work shallow from as long before the moment it names as draining takes, until the stage comes', () => {
    const { pace, cost } = make();
    pace.hint(100, 150);
    expect(pace.isShallow(95.9)).toBe(false);
    expect(pace.limits(95.9)).toEqual(BUDGETS);
    expect(pace.isShallow(96.1)).toBe(true);
    expect(pace.limits(96.1)).toEqual({ sliceUs: 100, inFlightUs: 0 });
    expect(cost.sliceBudgetUs).toBe(100);
    pace.endHint();
    expect(pace.isShallow(97)).toBe(false);
    expect(cost.sliceBudgetUs).toBe(2000);
  });

  it('ends by itself, at the latest a second after the moment it named', () => {
    const { pace, cost } = make();
    pace.hint(100, 150);
    expect(pace.isShallow(149)).toBe(true);
    expect(pace.isShallow(150)).toBe(false);
    expect(pace.isShallow(120)).toBe(false);
    pace.hint(200, Infinity);
    expect(pace.limits(1199).inFlightUs).toBe(0);
    expect(pace.limits(1201)).toEqual(BUDGETS);
    expect(cost.sliceBudgetUs).toBe(2000);
  });
});
