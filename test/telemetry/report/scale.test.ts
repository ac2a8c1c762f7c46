import { expect, test } from 'vitest';
import { Random } from '#src/lib/prng.js';
import { linearScale, logScale, tightScale } from '#src/telemetry/report/scale.js';

test('a linear axis has round ends, covers the data and has neither too few nor too many labels', () => {
  expect(linearScale(0.03, 0.97, 5)).toMatchObject({ min: 0, max: 1, ticks: [0, 0.2, 0.4, 0.6, 0.8, 1] });
  expect(linearScale(-0.03, 0.04, 3).ticks).toEqual([-0.05, 0, 0.05]);
  expect(linearScale(804, 1020, 3).ticks).toEqual([800, 900, 1000, 1100]);
  for (let seed = 0; seed < 300; seed++) {
    const random = new Random(seed);
    const low = random.normal() * 10 ** random.int(-6, 6);
    const high = low + random.uniform() * 10 ** random.int(-6, 6);
    const scale = linearScale(low, high, random.int(3, 6));
    const name = `seed ${seed}: ${low} to ${high}`;
    expect(scale.at(low), name).toBeGreaterThanOrEqual(-1e-6);
    expect(scale.at(high), name).toBeLessThanOrEqual(1 + 1e-6);
    expect(scale.ticks.length, name).toBeGreaterThanOrEqual(2);
    expect(scale.ticks.length, name).toBeLessThanOrEqual(9);
  }
});

test('a flat line stands in the middle', () => {
  for (const value of [0, 1, -3, 1e-9, 12345]) {
    const scale = linearScale(value, value, 4);
    expect(scale.at(value), String(value)).toBeGreaterThan(0.2);
    expect(scale.at(value), String(value)).toBeLessThan(0.8);
  }
});

test('a tight axis ends with the data and is labelled in whole steps', () => {
  expect(tightScale(1, 40, 5)).toMatchObject({ min: 1, max: 40, ticks: [10, 20, 30, 40] });
  expect(tightScale(0, 3, 10).ticks).toEqual([0, 1, 2, 3]);
  const single = tightScale(1, 1, 5);
  expect([single.at(1), single.ticks]).toEqual([0, [1, 2]]);
});

test('a logarithmic axis has at least two labels within it, from microseconds to hours', () => {
  for (let seed = 0; seed < 300; seed++) {
    const random = new Random(seed);
    const low = 10 ** (6 * random.uniform() - 3);
    const high = low * 10 ** (random.uniform() < 0.3 ? 0 : 4 * random.uniform());
    const scale = logScale(low, high);
    const name = `seed ${seed}: ${low} to ${high}`;
    expect(scale.at(low), name).toBeGreaterThan(0);
    expect(scale.at(high), name).toBeLessThan(1);
    expect(scale.ticks.length, name).toBeGreaterThanOrEqual(2);
    expect(scale.ticks.length, name).toBeLessThanOrEqual(9);
    for (const tick of scale.ticks) {
      expect(scale.at(tick), name).toBeGreaterThanOrEqual(0);
      expect(scale.at(tick), name).toBeLessThanOrEqual(1);
    }
  }
  expect(() => logScale(0, 1)).toThrow('no logarithmic axis');
});
