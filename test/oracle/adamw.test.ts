import { describe, expect, it } from 'vitest';
import { adamwStep, globalNorm, initialAdamwState, type AdamwHyper } from './adamw.js';
import { expectClose } from './compare.js';
import type { Params } from './params.js';

const HYPER: AdamwHyper = {
  learningRate: 0.1,
  beta1: 0.9,
  beta2: 0.999,
  eps: 1e-8,
  weightDecay: 0.01,
  maxGradNorm: Infinity,
};
const TENSORS = [
  { name: 'matrix', decay: true },
  { name: 'norm', decay: false },
];

function both(value: number): Params {
  return new Map([
    ['matrix', Float64Array.of(value)],
    ['norm', Float64Array.of(value)],
  ]);
}

function elements(params: Params): number[] {
  return [...params.values()].flatMap((tensor) => [...tensor]);
}

describe('adamwStep', () => {
  it('gives two steps worked out by hand', () => {
    // Gradients 0.5 and then −0.25, from a weight of 1. Corrected moments: 0.5 and 0.25; then 0.02 / 0.19 and
    // 0.00031225 / 0.001999. The decayed weight is multiplied by 0.999 before each update.
    const first = adamwStep(TENSORS, both(1), both(0.5), initialAdamwState(both(1)), HYPER);
    const update1 = (0.1 * 0.5) / (0.5 + 1e-8);
    expectClose(elements(first.params), [0.999 - update1, 1 - update1], 1e-14, 'after step 1');
    const second = adamwStep(TENSORS, first.params, both(-0.25), first.state, HYPER);
    expectClose(elements(second.state.firstMoments), [0.02, 0.02], 1e-14, 'first moments');
    expectClose(elements(second.state.secondMoments), [0.00031225, 0.00031225], 1e-14, 'second moments');
    // 40-digit decimal arithmetic outside this program.
    expectClose(elements(second.params), [0.8714672987058462, 0.8733662987078462], 1e-14, 'after step 2');
    expect(second.state.step).toBe(2);
  });

  it('clips all gradients together, by the norm before clipping', () => {
    const gradients: Params = new Map([
      ['matrix', Float64Array.of(3)],
      ['norm', Float64Array.of(-4)],
    ]);
    const clipped = adamwStep(TENSORS, both(1), gradients, initialAdamwState(both(1)), {
      ...HYPER,
      maxGradNorm: 1,
    });
    expect(clipped.gradNorm).toBe(5);
    const scale = 1 / 5.000001;
    expectClose(elements(clipped.state.firstMoments), [0.3 * scale, -0.4 * scale], 1e-14, 'first moments');
    expectClose(
      elements(clipped.state.secondMoments),
      [9e-3 * scale ** 2, 16e-3 * scale ** 2],
      1e-13,
      'second',
    );
    const roomy = adamwStep(TENSORS, both(1), gradients, initialAdamwState(both(1)), {
      ...HYPER,
      maxGradNorm: 6,
    });
    expectClose(elements(roomy.state.firstMoments), [0.3, -0.4], 1e-14, 'unclipped first moments');
  });

  it('leaves its inputs as they are', () => {
    const [params, gradients] = [both(1), both(0.5)];
    const state = initialAdamwState(params);
    adamwStep(TENSORS, params, gradients, state, { ...HYPER, maxGradNorm: 0.1 });
    expect([params, gradients, state]).toEqual([both(1), both(0.5), initialAdamwState(both(1))]);
  });

  it('refuses gradients that do not fit', () => {
    const short: Params = new Map([['matrix', Float64Array.of(1)]]);
    expect(() => adamwStep(TENSORS, both(1), short, initialAdamwState(both(1)), HYPER)).toThrow('differ');
  });
});

describe('globalNorm', () => {
  it('runs over all tensors', () => {
    expect(
      globalNorm(
        new Map([
          ['a', Float64Array.of(2, 3)],
          ['b', Float64Array.of(6)],
        ]),
      ),
    ).toBe(7);
  });
});
