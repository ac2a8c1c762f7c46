import { Random } from '#src/lib/prng.js';
import { describe, expect, it } from 'vitest';
import { expectClose } from './compare.js';
import { dot, numericGradient, randomMatrix, randomTokens } from './fixtures.js';
import { Matrix } from './matrix.js';
import {
  attention,
  attentionBackward,
  embed,
  embedBackward,
  matmul,
  matmulBackward,
  rmsNorm,
  rmsNormBackward,
  rope,
  ropeBackward,
  siluGate,
  siluGateBackward,
  type AttentionShape,
} from './ops.js';

const SEEDS = [1, 2, 3];
const TOLERANCE = 1e-6;

/** Holds each analytic gradient of Σ out · dOut to central differences. */
function checkGradients(
  seed: number,
  forward: () => Matrix,
  dOut: Matrix,
  pairs: readonly (readonly [name: string, input: Matrix, gradient: Matrix])[],
): void {
  for (const [name, input, gradient] of pairs) {
    const numeric = numericGradient(input.data, () => dot(forward().data, dOut.data));
    expectClose(gradient.data, numeric, TOLERANCE, `seed ${seed}: gradient of ${name}`);
  }
}

describe('rmsNorm', () => {
  it('gives the values worked out by hand', () => {
    // Mean square of (1, 7) is 25, so with eps 0 the row divides by 5.
    const out = rmsNorm(Matrix.from(1, 2, [1, 7]), Matrix.from(1, 2, [10, -1]), 0);
    expectClose(out.data, [2, -1.4], 1e-15, 'rmsNorm');
    // eps stands under the root: sqrt(25 + 11) = 6.
    const withEps = rmsNorm(Matrix.from(1, 2, [1, 7]), Matrix.from(1, 2, [1, 1]), 11);
    expectClose(withEps.data, [1 / 6, 7 / 6], 1e-15, 'rmsNorm with eps');
  });

  it.each(SEEDS)('agrees with finite differences (seed %i)', (seed) => {
    const random = new Random(seed);
    const [x, gain, dOut] = [
      randomMatrix(random, 3, 7),
      randomMatrix(random, 1, 7),
      randomMatrix(random, 3, 7),
    ];
    const { dX, dGain } = rmsNormBackward(x, gain, 1e-2, dOut);
    checkGradients(seed, () => rmsNorm(x, gain, 1e-2), dOut, [
      ['x', x, dX],
      ['gain', gain, dGain],
    ]);
  });
});

describe('matmul', () => {
  it('multiplies', () => {
    const product = matmul(Matrix.from(2, 3, [1, 2, 3, 4, 5, 6]), Matrix.from(3, 1, [7, 8, 9]));
    expect([...product.data]).toEqual([50, 122]);
  });

  it.each(SEEDS)('agrees with finite differences (seed %i)', (seed) => {
    const random = new Random(seed);
    const [a, b, dOut] = [randomMatrix(random, 4, 5), randomMatrix(random, 5, 3), randomMatrix(random, 4, 3)];
    const { dA, dB } = matmulBackward(a, b, dOut);
    checkGradients(seed, () => matmul(a, b), dOut, [
      ['a', a, dA],
      ['b', b, dB],
    ]);
  });
});

describe('rope', () => {
  const shape = { headDim: 4, theta: 100 };

  it('turns pairs half a head apart', () => {
    // Two heads at position 3: pair 0 turns by 3, pair 1 by 3 · 100^(−1/2) = 0.3.
    const x = Matrix.from(1, 8, [1, 0, 0, 0, 0, 0, 0, 2]);
    const expected = [Math.cos(3), 0, Math.sin(3), 0, 0, -2 * Math.sin(0.3), 0, 2 * Math.cos(0.3)];
    expectClose(rope(x, shape, [3]).data, expected, 1e-15, 'rope');
  });

  it.each(SEEDS)('leaves a score to depend on the distance alone (seed %i)', (seed) => {
    const random = new Random(seed);
    const [query, key] = [randomMatrix(random, 1, 4), randomMatrix(random, 1, 4)];
    const score = (queryAt: number, keyAt: number) =>
      dot(rope(query, shape, [queryAt]).data, rope(key, shape, [keyAt]).data);
    expectClose([score(17, 12)], [score(5, 0)], 1e-13, `seed ${seed}: score at distance 5`);
    expect(score(6, 0), `seed ${seed}`).not.toBeCloseTo(score(5, 0), 6);
  });

  it.each(SEEDS)('agrees with finite differences (seed %i)', (seed) => {
    const random = new Random(seed);
    const [x, dOut] = [randomMatrix(random, 3, 12), randomMatrix(random, 3, 12)];
    const positions = [0, 41, 7];
    checkGradients(seed, () => rope(x, shape, positions), dOut, [
      ['x', x, ropeBackward(dOut, shape, positions)],
    ]);
  });
});

/** Attention as an einsum over [head, query, key]: keys repeated per head, masked scores, a plain softmax. */
function einsumAttention(q: Matrix, k: Matrix, v: Matrix, shape: AttentionShape): number[] {
  const { heads, headDim } = shape;
  const groupSize = heads / shape.kvHeads;
  const earlier = k.rows - q.rows;
  const out: number[] = [];
  for (let query = 0; query < q.rows; query++) {
    for (let head = 0; head < heads; head++) {
      const group = (head - (head % groupSize)) / groupSize;
      const dims = Array.from({ length: headDim }, (_, d) => d);
      const powers = Array.from({ length: k.rows }, (_, key) => {
        const score = dims.reduce(
          (total, d) => total + q.at(query, head * headDim + d) * k.at(key, group * headDim + d),
          0,
        );
        return key <= earlier + query ? Math.exp(score / headDim ** 0.5) : 0;
      });
      const total = powers.reduce((a, b) => a + b);
      for (const d of dims) {
        out.push(
          powers.reduce((value, power, key) => value + (power / total) * v.at(key, group * headDim + d), 0),
        );
      }
    }
  }
  return out;
}

describe('attention', () => {
  const shapes = [
    { heads: 6, kvHeads: 2, headDim: 4, queries: 5, keys: 5 },
    { heads: 3, kvHeads: 1, headDim: 2, queries: 2, keys: 6 },
    { heads: 2, kvHeads: 2, headDim: 6, queries: 1, keys: 1 },
  ];

  it.each(SEEDS.flatMap((seed) => shapes.map((shape) => ({ seed, ...shape }))))(
    'agrees with an einsum and with finite differences ($heads heads on $kvHeads, $queries of $keys, seed $seed)',
    ({ seed, queries, keys, ...shape }) => {
      const random = new Random(seed);
      const q = randomMatrix(random, queries, shape.heads * shape.headDim);
      const k = randomMatrix(random, keys, shape.kvHeads * shape.headDim);
      const v = randomMatrix(random, keys, shape.kvHeads * shape.headDim);
      const dOut = randomMatrix(random, queries, shape.heads * shape.headDim);
      const { out, probabilities } = attention(q, k, v, shape);
      expectClose(out.data, einsumAttention(q, k, v, shape), 1e-13, `seed ${seed}: attention`);
      const { dQ, dK, dV } = attentionBackward(q, k, v, probabilities, dOut, shape);
      const forward = () => attention(q, k, v, shape).out;
      // One key takes all the weight whatever it is: both gradients are exactly zero there.
      if (keys === 1) {
        expect([...dQ.data, ...dK.data].every((value) => value === 0)).toBe(true);
        checkGradients(seed, forward, dOut, [['v', v, dV]]);
        return;
      }
      checkGradients(seed, forward, dOut, [
        ['q', q, dQ],
        ['k', k, dK],
        ['v', v, dV],
      ]);
    },
  );

  it('survives scores that would overflow exp', () => {
    const shape = { heads: 1, kvHeads: 1, headDim: 2 };
    const [q, k] = [Matrix.from(2, 2, [0, 0, 1e3, 0]), Matrix.from(2, 2, [1e3, 0, -1e3, 0])];
    const { out } = attention(q, k, Matrix.from(2, 2, [1, 2, 3, 4]), shape);
    expect([...out.data]).toEqual([1, 2, 1, 2]);
  });
});

describe('siluGate', () => {
  it('gives the values worked out by hand', () => {
    // silu(0) = 0; silu(ln 3) = ln 3 · 3/4.
    const out = siluGate(Matrix.from(1, 4, [0, Math.log(3), 5, 8]));
    expectClose(out.data, [0, 6 * Math.log(3)], 1e-15, 'siluGate');
  });

  it.each(SEEDS)('agrees with finite differences (seed %i)', (seed) => {
    const random = new Random(seed);
    const [gateUp, dOut] = [randomMatrix(random, 3, 10), randomMatrix(random, 3, 5)];
    checkGradients(seed, () => siluGate(gateUp), dOut, [['gateUp', gateUp, siluGateBackward(gateUp, dOut)]]);
  });
});

describe('embedding', () => {
  it.each(SEEDS)('agrees with finite differences, repeated tokens too (seed %i)', (seed) => {
    const random = new Random(seed);
    const [table, dOut] = [randomMatrix(random, 4, 3), randomMatrix(random, 6, 3)];
    // Six tokens out of four: some repeat.
    const tokens = randomTokens(random, 6, 4);
    checkGradients(seed, () => embed(table, tokens), dOut, [
      ['table', table, embedBackward(tokens, dOut, 4)],
    ]);
  });

  it('refuses a token outside the table', () => {
    expect(() => embed(new Matrix(4, 3), [4])).toThrow('element (4, 0) of a 4×3 matrix');
  });
});

describe('Matrix', () => {
  it('refuses to read or write past a row, even where the buffer goes on', () => {
    const matrix = new Matrix(2, 3);
    expect(() => matrix.at(0, 3)).toThrow('element (0, 3) of a 2×3 matrix');
    expect(() => matrix.set(0, -1, 1)).toThrow('element (0, -1)');
    expect(() => matrix.row(2)).toThrow('element (2, 0)');
    expect(() => new Matrix(2, 3, new Float64Array(5))).toThrow('5 elements for a 2×3 matrix');
  });
});
