import { assert } from '#src/lib/assert.js';
import { Matrix } from './matrix.js';

/**
 * The operations of a Llama-family decoder and their gradients, in float64 and straight from the formulas.
 * A backward function takes what its forward took plus the gradient of the output, and returns the gradients of
 * the inputs. Rows are tokens everywhere.
 */

/** Root-mean-square normalisation (Zhang and Sennrich 2019): x / sqrt(mean(x²) + eps) · gain; gain is [1, columns]. */
export function rmsNorm(x: Matrix, gain: Matrix, eps: number): Matrix {
  const out = new Matrix(x.rows, x.columns);
  for (let row = 0; row < x.rows; row++) {
    const inverse = inverseRms(x.row(row), eps);
    for (let column = 0; column < x.columns; column++) {
      out.set(row, column, x.at(row, column) * inverse * gain.at(0, column));
    }
  }
  return out;
}

export function rmsNormBackward(
  x: Matrix,
  gain: Matrix,
  eps: number,
  dOut: Matrix,
): { dX: Matrix; dGain: Matrix } {
  const dX = new Matrix(x.rows, x.columns);
  const dGain = new Matrix(1, x.columns);
  for (let row = 0; row < x.rows; row++) {
    const inverse = inverseRms(x.row(row), eps);
    let projection = 0;
    for (let column = 0; column < x.columns; column++) {
      projection += dOut.at(row, column) * gain.at(0, column) * x.at(row, column);
      dGain.add(0, column, dOut.at(row, column) * x.at(row, column) * inverse);
    }
    for (let column = 0; column < x.columns; column++) {
      const direct = inverse * gain.at(0, column) * dOut.at(row, column);
      dX.set(row, column, direct - (inverse ** 3 / x.columns) * projection * x.at(row, column));
    }
  }
  return { dX, dGain };
}

function inverseRms(row: Float64Array, eps: number): number {
  const squares = row.reduce((total, value) => total + value * value, 0);
  return 1 / Math.sqrt(squares / row.length + eps);
}

/** a [m, k] · b [k, n]. */
export function matmul(a: Matrix, b: Matrix): Matrix {
  assert(a.columns === b.rows, `matmul: ${a.rows}×${a.columns} by ${b.rows}×${b.columns}`);
  const out = new Matrix(a.rows, b.columns);
  for (let row = 0; row < a.rows; row++) {
    for (let column = 0; column < b.columns; column++) {
      let total = 0;
      for (let inner = 0; inner < a.columns; inner++) total += a.at(row, inner) * b.at(inner, column);
      out.set(row, column, total);
    }
  }
  return out;
}

export function matmulBackward(a: Matrix, b: Matrix, dOut: Matrix): { dA: Matrix; dB: Matrix } {
  return { dA: matmul(dOut, transpose(b)), dB: matmul(transpose(a), dOut) };
}

export function transpose(matrix: Matrix): Matrix {
  const out = new Matrix(matrix.columns, matrix.rows);
  for (let row = 0; row < matrix.rows; row++) {
    for (let column = 0; column < matrix.columns; column++) out.set(column, row, matrix.at(row, column));
  }
  return out;
}

export interface RopeShape {
  readonly headDim: number;
  readonly theta: number;
}

/**
 * Rotary position embedding (Su et al. 2021) in the half-split form of Hugging Face's Llama: in each head, elements
 * i and i + headDim/2 turn together by position · theta^(−2i/headDim). `x` is [tokens, heads · headDim]; `positions`
 * has one entry a row.
 */
export function rope(x: Matrix, shape: RopeShape, positions: ArrayLike<number>): Matrix {
  return rotate(x, shape, positions, 1);
}

/** The transpose of a rotation is the rotation back. */
export function ropeBackward(dOut: Matrix, shape: RopeShape, positions: ArrayLike<number>): Matrix {
  return rotate(dOut, shape, positions, -1);
}

function rotate(
  x: Matrix,
  { headDim, theta }: RopeShape,
  positions: ArrayLike<number>,
  sign: 1 | -1,
): Matrix {
  assert(
    positions.length === x.rows && headDim % 2 === 0 && x.columns % headDim === 0,
    'rope: shapes disagree',
  );
  const out = new Matrix(x.rows, x.columns);
  const half = headDim / 2;
  for (let row = 0; row < x.rows; row++) {
    for (let head = 0; head < x.columns / headDim; head++) {
      for (let pair = 0; pair < half; pair++) {
        const angle = sign * Number(positions[row]) * theta ** ((-2 * pair) / headDim);
        const low = head * headDim + pair;
        const high = low + half;
        out.set(row, low, x.at(row, low) * Math.cos(angle) - x.at(row, high) * Math.sin(angle));
        out.set(row, high, x.at(row, high) * Math.cos(angle) + x.at(row, low) * Math.sin(angle));
      }
    }
  }
  return out;
}

export interface AttentionShape {
  readonly heads: number;
  /** Divides `heads`; query head h reads key/value head floor(h · kvHeads / heads). */
  readonly kvHeads: number;
  readonly headDim: number;
}

export interface Attended {
  /** [queries, heads · headDim] */
  readonly out: Matrix;
  /** For each query head, [queries, keys]; zero where the mask hides a key. */
  readonly probabilities: readonly Matrix[];
}

/**
 * Causal grouped-query attention (Ainslie et al. 2023), scores scaled by 1/sqrt(headDim). `q` is [queries, heads ·
 * headDim], `k` and `v` [keys, kvHeads · headDim] with keys ≥ queries: the queries are the last tokens of the context,
 * so query t sees keys 0 … keys − queries + t.
 */
export function attention(q: Matrix, k: Matrix, v: Matrix, shape: AttentionShape): Attended {
  const { heads, headDim } = shape;
  assert(heads % shape.kvHeads === 0 && k.rows >= q.rows && k.rows === v.rows, 'attention: shapes disagree');
  const out = new Matrix(q.rows, heads * headDim);
  const probabilities: Matrix[] = [];
  for (let head = 0; head < heads; head++) {
    const { queryStart, kvStart, scale } = headPlace(shape, head);
    const weights = new Matrix(q.rows, k.rows);
    for (let query = 0; query < q.rows; query++) {
      const visible = k.rows - q.rows + query + 1;
      const scores = new Float64Array(visible);
      for (let key = 0; key < visible; key++) {
        let dot = 0;
        for (let d = 0; d < headDim; d++) dot += q.at(query, queryStart + d) * k.at(key, kvStart + d);
        scores[key] = dot * scale;
      }
      softmax(scores).forEach((weight, key) => {
        weights.set(query, key, weight);
        for (let d = 0; d < headDim; d++) out.add(query, queryStart + d, weight * v.at(key, kvStart + d));
      });
    }
    probabilities.push(weights);
  }
  return { out, probabilities };
}

/** Gradients with respect to q, k and v; `probabilities` come from the forward. */
export function attentionBackward(
  q: Matrix,
  k: Matrix,
  v: Matrix,
  probabilities: readonly Matrix[],
  dOut: Matrix,
  shape: AttentionShape,
): { dQ: Matrix; dK: Matrix; dV: Matrix } {
  const { headDim } = shape;
  const dQ = new Matrix(q.rows, q.columns);
  const dK = new Matrix(k.rows, k.columns);
  const dV = new Matrix(v.rows, v.columns);
  probabilities.forEach((weights, head) => {
    const { queryStart, kvStart, scale } = headPlace(shape, head);
    for (let query = 0; query < q.rows; query++) {
      const dWeights = new Float64Array(k.rows);
      let expected = 0;
      for (let key = 0; key < k.rows; key++) {
        const weight = weights.at(query, key);
        let dWeight = 0;
        for (let d = 0; d < headDim; d++) {
          dWeight += dOut.at(query, queryStart + d) * v.at(key, kvStart + d);
          dV.add(key, kvStart + d, weight * dOut.at(query, queryStart + d));
        }
        dWeights[key] = dWeight;
        expected += weight * dWeight;
      }
      dWeights.forEach((dWeight, key) => {
        const dScore = weights.at(query, key) * (dWeight - expected) * scale;
        for (let d = 0; d < headDim; d++) {
          dQ.add(query, queryStart + d, dScore * k.at(key, kvStart + d));
          dK.add(key, kvStart + d, dScore * q.at(query, queryStart + d));
        }
      });
    }
  });
  return { dQ, dK, dV };
}

function headPlace({ heads, kvHeads, headDim }: AttentionShape, head: number) {
  const kvHead = Math.floor((head * kvHeads) / heads);
  return { queryStart: head * headDim, kvStart: kvHead * headDim, scale: 1 / Math.sqrt(headDim) };
}

/** exp(x) / Σ exp(x), shifted by the largest score so that nothing overflows. */
export function softmax(scores: Float64Array): Float64Array {
  const largest = scores.reduce((a, b) => Math.max(a, b), -Infinity);
  const powers = scores.map((score) => Math.exp(score - largest));
  const total = powers.reduce((a, b) => a + b, 0);
  return powers.map((power) => power / total);
}

/** The gate of a SwiGLU layer (Shazeer 2020): silu(gate) · up, from gateUp [tokens, gate | up] to [tokens, inner]. */
export function siluGate(gateUp: Matrix): Matrix {
  const inner = gateUp.columns / 2;
  const out = new Matrix(gateUp.rows, inner);
  for (let row = 0; row < gateUp.rows; row++) {
    for (let column = 0; column < inner; column++) {
      const gate = gateUp.at(row, column);
      out.set(row, column, gate * sigmoid(gate) * gateUp.at(row, inner + column));
    }
  }
  return out;
}

/** The gradient of gateUp, [tokens, gate | up]. */
export function siluGateBackward(gateUp: Matrix, dOut: Matrix): Matrix {
  const inner = gateUp.columns / 2;
  const dGateUp = new Matrix(gateUp.rows, gateUp.columns);
  for (let row = 0; row < gateUp.rows; row++) {
    for (let column = 0; column < inner; column++) {
      const gate = gateUp.at(row, column);
      const open = sigmoid(gate);
      const slope = open * (1 + gate * (1 - open));
      dGateUp.set(row, column, dOut.at(row, column) * gateUp.at(row, inner + column) * slope);
      dGateUp.set(row, inner + column, dOut.at(row, column) * gate * open);
    }
  }
  return dGateUp;
}

function sigmoid(x: number): number {
  return 1 / (1 + Math.exp(-x));
}

/** Rows of the table [vocabulary, hidden], one a token. */
export function embed(table: Matrix, tokens: readonly number[]): Matrix {
  const out = new Matrix(tokens.length, table.columns);
  tokens.forEach((token, row) => {
    for (let column = 0; column < table.columns; column++) out.set(row, column, table.at(token, column));
  });
  return out;
}

/** The gradient of the table [vocabulary, hidden]: a token that occurs twice collects twice. */
export function embedBackward(tokens: readonly number[], dOut: Matrix, vocabSize: number): Matrix {
  const dTable = new Matrix(vocabSize, dOut.columns);
  tokens.forEach((token, row) => {
    for (let column = 0; column < dOut.columns; column++) dTable.add(token, column, dOut.at(row, column));
  });
  return dTable;
}
