import { describe, expect, test } from 'vitest';
import { Random } from '#src/lib/prng.js';
import { coarsen, type Span } from '#src/telemetry/report/coarsen.js';

function randomSpans(random: Random, count: number): Span[] {
  let at = 0;
  return Array.from({ length: count }, () => {
    const startUs = at + random.int(0, 300);
    const lengthUs = random.int(1, 2000);
    at = startUs + lengthUs;
    return { startUs, endUs: at, slices: 1, busyUs: lengthUs };
  });
}

const total = (spans: readonly Span[], of: 'slices' | 'busyUs'): number =>
  spans.reduce((sum, span) => sum + span[of], 0);

describe('coarsen', () => {
  test('leaves few spans as they are, in order', () => {
    const spans = randomSpans(new Random(1), 50);
    expect(coarsen(spans.toReversed(), 50, [])).toEqual(spans);
    expect(coarsen([], 1, [])).toEqual([]);
  });

  test('keeps its bound, every slice and every busy microsecond, apart and in order', () => {
    for (let seed = 0; seed < 60; seed++) {
      const random = new Random(seed);
      const spans = randomSpans(random, random.int(1, 800));
      const max = random.int(1, 300);
      const end = spans.at(-1)?.endUs ?? 0;
      const detail = Array.from({ length: random.int(0, 3) }, () => {
        const fromUs = random.int(0, end);
        return { fromUs, toUs: fromUs + random.int(0, 20_000) };
      });
      const kept = coarsen(spans, max, detail);
      const name = `seed ${seed}`;
      expect(kept.length, name).toBeLessThanOrEqual(max);
      expect(total(kept, 'slices'), name).toBe(spans.length);
      expect(total(kept, 'busyUs'), name).toBe(total(spans, 'busyUs'));
      expect([kept[0]?.startUs, kept.at(-1)?.endUs], name).toEqual([spans[0]?.startUs, end]);
      for (const [index, span] of kept.entries()) {
        expect(span.busyUs, name).toBeLessThanOrEqual(span.endUs - span.startUs);
        expect(span.startUs, name).toBeGreaterThanOrEqual(kept[index - 1]?.endUs ?? 0);
      }
    }
  });

  test('uses at least a third of what it may, so detail is not thrown away', () => {
    const spans = randomSpans(new Random(4), 10_000);
    expect(coarsen(spans, 3000, []).length).toBeGreaterThan(1000);
  });

  test('keeps slices single around what matters', () => {
    const spans = randomSpans(new Random(7), 2000);
    const middle = spans[1000]?.startUs ?? 0;
    const kept = coarsen(spans, 400, [{ fromUs: middle - 20_000, toUs: middle + 20_000 }]);
    const near = kept.filter((span) => span.endUs >= middle - 20_000 && span.startUs <= middle + 20_000);
    expect(near.length).toBeGreaterThan(20);
    expect(near.every((span) => span.slices === 1)).toBe(true);
    expect(kept.length).toBeLessThanOrEqual(400);
  });

  test('gives the detail up where the bound leaves no room for it', () => {
    const spans = randomSpans(new Random(8), 500);
    expect(coarsen(spans, 3, [{ fromUs: 0, toUs: 1e9 }]).length).toBeLessThanOrEqual(3);
  });
});
