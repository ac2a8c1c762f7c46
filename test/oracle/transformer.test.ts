import { Random } from '#src/lib/prng.js';
import { paramLayout } from '#src/model/layout.js';
import { describe, expect, it } from 'vitest';
import { expectClose } from './compare.js';
import { awkwardConfig, dot, numericGradient, randomParams, randomTokens, randomVector } from './fixtures.js';
import { backward, emptyKv, forward, forwardStep } from './transformer.js';

const CASES = [11, 12, 13, 14].flatMap((seed) => [true, false].map((tied) => ({ seed, tied })));

function example(seed: number, tied: boolean, tokenCount: number) {
  const random = new Random(seed);
  const config = awkwardConfig(random, tied);
  return {
    random,
    config,
    params: randomParams(config, random),
    tokens: randomTokens(random, tokenCount, config.vocabSize),
  };
}

describe('forward', () => {
  it.each(CASES)('gives the same logits in steps over a cache (seed $seed, tied $tied)', ({ seed, tied }) => {
    const { config, params, tokens } = example(seed, tied, 9);
    const { logits } = forward(config, params, tokens);
    const stepped: number[] = [];
    let kv = emptyKv(config);
    for (const [from, to] of [
      [0, 4],
      [4, 5],
      [5, 6],
      [6, 9],
    ] as const) {
      const step = forwardStep(config, params, kv, tokens.slice(from, to));
      stepped.push(...step.logits);
      kv = step.kv;
    }
    expect(kv.tokens).toBe(9);
    expect([...logits], `seed ${seed}`).toEqual(stepped);
  });

  it.each(CASES)('never looks ahead (seed $seed, tied $tied)', ({ seed, tied }) => {
    const { config, params, tokens } = example(seed, tied, 6);
    const changed = [...tokens.slice(0, 5), ((tokens[5] ?? 0) + 1) % config.vocabSize];
    const before = forward(config, params, tokens).logits;
    const after = forward(config, params, changed).logits;
    const prefix = 5 * config.vocabSize;
    expect(after.subarray(0, prefix), `seed ${seed}`).toEqual(before.subarray(0, prefix));
    expect(after, `seed ${seed}`).not.toEqual(before);
  });

  it('depends on the order of tokens and on where they stand', () => {
    const { config, params } = example(11, true, 0);
    const lastRow = (tokens: number[]) => [
      ...forward(config, params, tokens).logits.slice(-config.vocabSize),
    ];
    expect(lastRow([1, 2, 3])).not.toEqual(lastRow([2, 1, 3]));
  });
});

describe('backward', () => {
  it.each(CASES)(
    'agrees with finite differences in every parameter (seed $seed, tied $tied)',
    ({ seed, tied }) => {
      const { random, config, params, tokens } = example(seed, tied, 4);
      const { logits, cache } = forward(config, params, tokens);
      const dLogits = randomVector(random, logits.length);
      const gradients = backward(config, params, cache, dLogits);
      const names = paramLayout(config, Infinity).tensors.map(({ name }) => name);
      expect([...gradients.keys()].sort()).toEqual([...names].sort());
      for (const name of names) {
        const numeric = numericGradient(params.get(name) ?? new Float64Array(), () =>
          dot(forward(config, params, tokens).logits, dLogits),
        );
        expectClose(gradients.get(name) ?? [], numeric, 1e-6, `seed ${seed}: gradient of ${name}`);
      }
    },
  );

  it.each(CASES.filter(({ tied }) => tied))('adds both uses of a tied embedding (seed $seed)', ({ seed }) => {
    const { random, config, params, tokens } = example(seed, true, 4);
    const untiedConfig = { ...config, tieWordEmbeddings: false };
    const untiedParams = new Map(params).set('head', params.get('embedding') ?? new Float64Array());
    const dLogits = randomVector(random, tokens.length * config.vocabSize);
    const tied = backward(config, params, forward(config, params, tokens).cache, dLogits);
    const untied = backward(
      untiedConfig,
      untiedParams,
      forward(untiedConfig, untiedParams, tokens).cache,
      dLogits,
    );
    const both = (untied.get('embedding') ?? new Float64Array()).map(
      (value, i) => value + (untied.get('head')?.[i] ?? NaN),
    );
    expectClose(tied.get('embedding') ?? [], both, 1e-14, `seed ${seed}: tied embedding`);
  });
});
