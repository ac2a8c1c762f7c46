import { describe, expect, it } from 'vitest';
import { expectClose, relativeError } from './compare.js';

describe('relativeError', () => {
  it('judges every element by the largest expected one', () => {
    expect(relativeError([1, 0.01], [1, 0])).toBeCloseTo(0.01, 15);
    expect(relativeError([-4, 2], [-4, 2.4])).toBeCloseTo(0.1, 15);
  });

  it('judges a tensor of zeros by 1e-12', () => {
    expect(relativeError([1e-12, 0], [0, 0])).toBe(1);
    expect(relativeError([0, 0], [0, 0])).toBe(0);
  });

  it('lets equal infinities pass and nothing else that is not finite', () => {
    expect(relativeError([-Infinity, 1], [-Infinity, 1])).toBe(0);
    expect(relativeError([NaN, 1], [0, 1])).toBe(Infinity);
    expect(relativeError([NaN], [NaN])).toBe(Infinity);
    expect(relativeError([1], [Infinity])).toBe(Infinity);
    expect(relativeError([Infinity], [-Infinity])).toBe(Infinity);
  });

  it('refuses different lengths', () => {
    expect(() => relativeError([1], [1, 2])).toThrow('1 values, expected 2');
  });
});

describe('expectClose', () => {
  it('passes at the tolerance', () => {
    expectClose([1, 2.5], [1, 2], 0.25, 'at the edge');
  });

  it('names the label, the worst index and both values', () => {
    expect(() => expectClose([1, 2.5, 3], [1, 2, 3.1], 1e-3, 'logits')).toThrow(
      'logits: relative error 1.61e-1 exceeds 0.001; worst at index 1 of 3: actual 2.5, expected 2',
    );
    expect(() => expectClose([1], [1, 2], 1, 'gain')).toThrow('gain: 1 values, expected 2');
  });
});
