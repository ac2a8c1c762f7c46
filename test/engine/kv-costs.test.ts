import { describe, expect, it } from 'vitest';
import { KvCosts } from '#src/engine/kv-costs.js';

const WEIGHT_BYTES = 1e9;
const step = (rows: number, prefillRows: number, beganMs: number) => ({ rows, prefillRows, beganMs });

describe('KvCosts', () => {
  it('guesses by bytes until something was measured', () => {
    const costs = new KvCosts(WEIGHT_BYTES);
    expect(costs.snapshot.measured).toEqual({ prefill: 0, spill: 0, restore: 0 });
    expect(costs.recomputeMs(3)).toBeCloseTo(3);
    expect(costs.moveMs(3e6)).toBeCloseTo(1.3);
    expect(new KvCosts(2 * WEIGHT_BYTES).recomputeMs(3)).toBeCloseTo(6);
  });

  it('takes the first measurement as it is; later ones count by how much they moved', () => {
    const costs = new KvCosts(WEIGHT_BYTES);
    costs.observeStep(step(100, 100, 0), 50);
    expect(costs.snapshot.prefillMsPerRow).toBeCloseTo(0.5);
    costs.observeStep(step(120, 90, 1000), 1100);
    expect(costs.snapshot.prefillMsPerRow).toBeCloseTo((0.8 * 50 + 100) / (0.8 * 100 + 120));
    costs.observeSpill(1000, 2000, 2010);
    costs.observeSpill(1, 2020, 2020.02);
    expect(costs.snapshot.spillMsPerByte).toBeCloseTo(0.01, 4);
    costs.observeRestore(1000, 4);
    expect(costs.moveMs(1000)).toBeCloseTo(14, 1);
    expect(costs.snapshot.measured).toEqual({ prefill: 2, spill: 2, restore: 1 });
  });

  it('learns nothing about prefill from decode', () => {
    const costs = new KvCosts(WEIGHT_BYTES);
    costs.observeStep(step(8, 0, 0), 50);
    costs.observeStep(step(8, 3, 100), 150);
    expect(costs.snapshot.measured.prefill).toBe(0);
    costs.observeStep(step(8, 4, 200), 250);
    expect(costs.snapshot.measured.prefill).toBe(1);
  });

  it('counts from the end of what came before on the device', () => {
    const costs = new KvCosts(WEIGHT_BYTES);
    costs.observeStep(step(10, 10, 0), 100);
    costs.observeSpill(10, 5, 120);
    expect(costs.snapshot.spillMsPerByte).toBeCloseTo(2);
    costs.observeStep(step(4, 0, 6), 130);
    costs.observeStep(step(10, 10, 7), 140);
    expect(costs.snapshot.prefillMsPerRow).toBeCloseTo((0.8 * 100 + 10) / (0.8 * 10 + 10));
    costs.observeStep(step(10, 10, 8), 140);
    expect(costs.snapshot.measured.prefill).toBe(2);
  });

  it('believes a surprise only so far: a stage may have had the device meanwhile', () => {
    const costs = new KvCosts(WEIGHT_BYTES);
    costs.observeSpill(100, 0, 100);
    costs.observeSpill(100, 1000, 101_000);
    expect(costs.snapshot.spillMsPerByte).toBeCloseTo((0.8 + 4) / 1.8);
    for (let i = 0; i < 60; i++) costs.observeSpill(100, (i + 200) * 1000, (i + 200) * 1000 + 100);
    expect(costs.snapshot.spillMsPerByte).toBeCloseTo(1, 3);
  });
});
