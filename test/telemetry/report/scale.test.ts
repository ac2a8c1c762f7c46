import { expect, test } from 'vitest';
import { Random } from '#src/lib/prng.js';
import { linearScale, logScale, rootScale, tailScale, tightScale } from '#src/telemetry/report/scale.js';

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

test('an axis of square roots gives small shares room and never labels two nearer than a twelfth', () => {
  for (const high of [0, 0.003, 0.07, 0.52, 1, 3]) {
    const scale = rootScale(high);
    const { ticks, max } = scale;
    const at = (share: number): number => scale.at(share);
    expect(at(0)).toBe(0);
    expect(at(max)).toBeCloseTo(1, 12);
    expect(at(-0.01), 'below zero is at zero').toBe(0);
    expect(at(high)).toBeLessThan(1);
    expect(at(high / 4)).toBeCloseTo(at(high) / 2, 12);
    expect(ticks[0]).toBe(0);
    expect(ticks.length).toBeGreaterThanOrEqual(2);
    ticks.slice(1).forEach((tick, index) => {
      if (index > 0) expect(at(tick) - at(ticks[index] ?? 0)).toBeGreaterThan(1 / 12);
    });
  }
});

test('an axis of the tail has the same room for each further nine, up to half a sample', () => {
  const scale = tailScale(10_000);
  const { ticks, max } = scale;
  const at = (share: number): number => scale.at(share);
  expect(ticks).toEqual([0, 0.5, 0.9, 0.99, 0.999, 0.9999]);
  expect(max).toBeCloseTo(1 - 0.5e-4, 12);
  expect(at(0.99) - at(0.9)).toBeCloseTo(at(0.9) - at(0), 9);
  expect(at(0.9999) - at(0.999)).toBeCloseTo(at(0.99) - at(0.9), 9);
  expect([at(0), at(max), at(1)]).toEqual([0, 1, 1]);
  expect(tailScale(1)).toMatchObject({ max: 0.5, ticks: [0, 0.5] });
});
