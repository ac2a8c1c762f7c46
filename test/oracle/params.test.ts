import { Random } from '#src/lib/prng.js';
import { findTensor, paramLayout } from '#src/model/layout.js';
import { describe, expect, it } from 'vitest';
import { awkwardConfig, randomParams } from './fixtures.js';
import { accumulate, fromBuckets, tensorMatrix, toBuckets } from './params.js';

describe('buckets', () => {
  it.each([true, false])('carry every tensor there and back (tied: %s)', (tied) => {
    const config = awkwardConfig(new Random(5), tied);
    // The largest tensor of this layout fills one bucket, so the rest must spread over others.
    const elementsMax = Math.max(
      ...paramLayout(config, Infinity).tensors.map((tensor) => tensor.rows * tensor.columns),
    );
    const layout = paramLayout(config, Math.ceil(elementsMax / 64) * 64 * 4);
    expect(layout.bucketElements.length).toBeGreaterThan(1);
    const params = randomParams(config, new Random(6));
    const buckets = toBuckets(layout, params);
    const back = fromBuckets(layout, buckets);
    expect([...back.keys()]).toEqual([...params.keys()]);
    for (const [name, tensor] of params) expect(back.get(name), name).toEqual(tensor.map(Math.fround));
    const { bucket, offset } = findTensor(layout, 'finalNorm');
    expect(buckets[bucket]?.[offset]).toBe(Math.fround(params.get('finalNorm')?.[0] ?? NaN));
  });

  it('refuse a bucket that ends too early', () => {
    const layout = paramLayout(awkwardConfig(new Random(5), true), Infinity);
    expect(() => fromBuckets(layout, [new Float32Array(10)])).toThrow('bucket 0 ends inside embedding');
    expect(() => fromBuckets(layout, [])).toThrow('no bucket 0 for embedding');
  });
});

describe('params', () => {
  it('hand out tensors of the right size only', () => {
    const params = new Map([['a', new Float64Array(6)]]);
    tensorMatrix(params, 'a', 2, 3).set(1, 2, 4);
    expect(params.get('a')?.[5]).toBe(4);
    expect(() => tensorMatrix(params, 'a', 2, 2)).toThrow('a has 6 elements, expected 4');
    expect(() => tensorMatrix(params, 'b', 2, 2)).toThrow('b has undefined elements, expected 4');
  });

  it('add up in place', () => {
    const target = new Map([['a', Float64Array.of(1, 2)]]);
    accumulate(target, new Map([['a', Float64Array.of(10, 20)]]));
    expect([...(target.get('a') ?? [])]).toEqual([11, 22]);
    expect(() => accumulate(target, new Map())).toThrow('differ in their tensors');
  });
});
