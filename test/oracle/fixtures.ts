import type { Random } from '#src/lib/prng.js';
import type { ModelConfig } from '#src/model/config.js';
import { paramLayout } from '#src/model/layout.js';
import { Matrix } from './matrix.js';
import type { Params } from './params.js';

/** A tiny model with nothing round about it: three query heads a key head, and headDim is not hidden / heads. */
export function awkwardConfig(random: Random, tieWordEmbeddings: boolean): ModelConfig {
  const kvHeads = random.int(1, 2);
  const heads = 3 * kvHeads;
  const headDim = 2 * random.int(1, 3);
  const hiddenSize = random.int(5, 9);
  return {
    // Never heads · headDim: that is a multiple of six.
    hiddenSize: hiddenSize % 6 === 0 ? hiddenSize + 1 : hiddenSize,
    intermediateSize: random.int(3, 7),
    layers: random.int(1, 2),
    heads,
    kvHeads,
    headDim,
    vocabSize: 37,
    contextTokensMax: 64,
    rmsNormEps: 1e-5,
    ropeTheta: random.pick([100, 10_000]),
    tieWordEmbeddings,
    bosTokenId: null,
    eosTokenIds: [],
  };
}

/** Weights large enough that every path through the model carries a gradient worth measuring. */
export function randomParams(config: ModelConfig, random: Random): Params {
  const { tensors } = paramLayout(config, Infinity);
  return new Map(
    tensors.map(({ name, rows, columns, decay }) => {
      const stream = random.fork(name);
      const gain = () => 1 + 0.3 * stream.normal();
      const weight = () => stream.normal() / Math.sqrt(config.hiddenSize);
      return [name, Float64Array.from({ length: rows * columns }, decay ? weight : gain)];
    }),
  );
}

export function randomTokens(random: Random, count: number, vocabSize: number): number[] {
  return Array.from({ length: count }, () => random.int(0, vocabSize - 1));
}

export function randomMatrix(random: Random, rows: number, columns: number): Matrix {
  return Matrix.from(rows, columns, randomVector(random, rows * columns));
}

export function randomVector(random: Random, length: number): Float64Array {
  return Float64Array.from({ length }, () => random.normal());
}

/** Σ a · b: with a fixed random `b` it turns any output into one number whose gradient is `b`. */
export function dot(a: ArrayLike<number>, b: ArrayLike<number>): number {
  let total = 0;
  for (let index = 0; index < a.length; index++) total += Number(a[index]) * Number(b[index]);
  return total;
}

/**
 * The gradient of `loss` with respect to `values` by central differences, which `loss` reads where they lie; each is
 * moved by ± `step` in turn and put back. The error is of order step² plus rounding / step: about 1e-10 here.
 */
export function numericGradient(values: Float64Array, loss: () => number, step = 1e-5): Float64Array {
  return values.map((value, index) => {
    values[index] = value + step;
    const above = loss();
    values[index] = value - step;
    const below = loss();
    values[index] = value;
    return (above - below) / (2 * step);
  });
}
