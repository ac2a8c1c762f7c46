import { describe, it } from 'vitest';
import type { DispatchOp } from '#src/gpu/ops.js';
import { runProgram } from '#src/gpu/slice-encoder.js';
import { BLOCK_TOKENS } from '#src/kernels/kv-cache.js';
import { AttentionCut, laterRowsOf } from '#src/kernels/attention-cut.js';
import { cut, groups } from '#src/kernels/launch.js';
import { at } from '#src/lib/assert.js';
import { Random } from '#src/lib/prng.js';
import { expectSameBits, normals, rowsOf, shuffled, untouched } from '../helpers/arrays.js';
import { readF32, upload, useGpu } from '../helpers/gpu.js';
import { expectClose } from '../oracle/compare.js';
import { joinColumns, Matrix } from '../oracle/matrix.js';
import { attention, attentionBackward } from '../oracle/ops.js';
import { logSumExp } from '../oracle/sampling.js';
import { raggedBatch, type RaggedBatch, type Stretch } from './ragged-batch.js';

const SEEDS = [1, 2, 3];
const HEAD_DIMS = [2, 6, 10, 16, 34, 64];
/** Decode rows and prefill chunks on both sides of a block's edge. */
const MIXED: readonly Stretch[] = [
  { tokens: 1, queries: 1 },
  { tokens: 15, queries: 15 },
  { tokens: 16, queries: 1 },
  { tokens: 17, queries: 1 },
  { tokens: 20, queries: 5 },
  { tokens: 33, queries: 33 },
  { tokens: 70, queries: 2 },
  { tokens: 200, queries: 3 },
];
/** A trainer's batch: whole sequences. */
const WHOLE = [1, 15, 16, 17, 33, 140].map((tokens) => ({ tokens, queries: tokens }));
const TOLERANCE = 3e-6;

const device = useGpu();

type Floats = Float32Array<ArrayBuffer>;

interface Shape {
  readonly heads: number;
  readonly kvHeads: number;
  readonly headDim: number;
}

interface Context {
  readonly q: Floats;
  readonly keys: Floats;
  readonly values: Floats;
}

interface Case {
  readonly shape: Shape;
  readonly batch: RaggedBatch;
  /** Of each stretch: queries [queries, heads · headDim], keys and values [tokens, kvHeads · headDim]. */
  readonly contexts: readonly Context[];
}

function randomShape(random: Random): Shape {
  const kvHeads = random.int(1, 2);
  return { heads: random.pick([1, 3]) * kvHeads, kvHeads, headDim: random.pick(HEAD_DIMS) };
}

/** Queries times `sharpness`: from an even spread over the keys to one key that takes all. */
function randomCase(random: Random, shape: Shape, stretches: readonly Stretch[], sharpness = 1): Case {
  const { heads, kvHeads, headDim } = shape;
  const contexts = stretches.map(({ tokens, queries }) => ({
    q: normals(random, queries * heads * headDim, sharpness),
    keys: normals(random, tokens * kvHeads * headDim),
    values: normals(random, tokens * kvHeads * headDim),
  }));
  return { shape, batch: raggedBatch(random, stretches), contexts };
}

/** Queries row by row, keys and values in their blocks; the cache's other places hold large numbers. */
function layOut({ shape, batch, contexts }: Case): Context {
  const columns = shape.kvHeads * shape.headDim;
  const q = Float32Array.from(contexts.flatMap((context) => [...context.q]));
  const keys = untouched(batch.blocks * BLOCK_TOKENS * columns);
  const values = untouched(keys.length);
  contexts.forEach((context, stretch) => {
    for (let position = 0; position < context.keys.length / columns; position++) {
      const to = batch.cacheEntry(stretch, position) * columns;
      keys.set(rowsOf(context.keys, columns, position), to);
      values.set(rowsOf(context.values, columns, position), to);
    }
  });
  return { q, keys, values };
}

/** The buffers and numbers that all kernels of this family share. */
function common(example: Case) {
  const { gpu } = device;
  const { shape, batch } = example;
  const { q, keys, values } = layOut(example);
  return {
    variant: { overrides: {}, prelude: { HEAD_DIM: shape.headDim } },
    buffers: {
      rows: upload(gpu, batch.rowTable),
      block_table: upload(gpu, batch.blockTable),
      q: upload(gpu, q),
      k_cache: upload(gpu, keys),
      v_cache: upload(gpu, values),
    },
    params: {
      heads: shape.heads,
      kv_heads: shape.kvHeads,
      blocks_per_slot: batch.blocksPerSlot,
      scale: 1 / Math.sqrt(shape.headDim),
    },
  };
}

/** One dispatch a piece of rows and keys, `perRow` threads a row. */
function dispatches(
  attention: AttentionCut,
  perRow: number,
  pieces: number,
  dispatch: (
    rows: { row_start: number; row_end: number },
    keys: readonly [start: number, end: number],
    grid: readonly [number, number, number],
  ) => DispatchOp,
): DispatchOp[] {
  return attention
    .into(pieces)
    .map(({ rowStart, rowEnd, keyStart, keyEnd }) =>
      dispatch(
        { row_start: rowStart, row_end: rowEnd },
        [keyStart, keyEnd],
        [groups((rowEnd - rowStart) * perRow), 1, 1],
      ),
    );
}

function contextsOf({ positions }: RaggedBatch): number[] {
  return positions.map((position) => position + 1);
}

async function forward(example: Case, pieces = 1) {
  const { gpu, kernels } = device;
  const { shape, batch } = example;
  const { variant, buffers, params } = common(example);
  const [outElements, levels] = [batch.rows * shape.heads * shape.headDim, batch.rows * shape.heads];
  const out = upload(gpu, untouched(outElements + 3));
  const softmax = upload(gpu, untouched(2 * levels + 3));
  const kernel = kernels.bind('attention_paged', variant, { ...buffers, out, softmax });
  const attention = new AttentionCut(contextsOf(batch));
  await runProgram(
    gpu,
    dispatches(attention, shape.heads, pieces, (rows, [key_start, key_end], grid) =>
      kernel.dispatch({ ...params, ...rows, key_start, key_end }, grid, 1),
    ),
  );
  return {
    out: await readF32(gpu, out, outElements + 3),
    softmax: await readF32(gpu, softmax, 2 * levels + 3),
  };
}

/** The gradient of the rotated queries, keys and values, [rows, query | key | value columns]. */
async function backward(example: Case, dout: Floats, pieces = 1): Promise<Floats> {
  const { gpu, kernels } = device;
  const { shape, batch } = example;
  const { heads, kvHeads, headDim } = shape;
  const { rows } = batch;
  const { variant, buffers, params } = common(example);
  const forwarded = await forward(example);
  const elements = rows * (heads + 2 * kvHeads) * headDim;
  const dqkv = upload(gpu, untouched(elements + 3));
  const levels = gpu.createStorage('levels', rows * heads * 8);
  const flow = upload(gpu, dout);
  const dot = kernels.bind('attention_grad_dot', variant, {
    out: upload(gpu, forwarded.out),
    softmax: upload(gpu, forwarded.softmax),
    dout: flow,
    levels,
  });
  const gradQ = kernels.bind('attention_grad_q', variant, { ...buffers, levels, dout: flow, dqkv });
  const gradKv = kernels.bind('attention_grad_kv', variant, { ...buffers, levels, dout: flow, dqkv });
  const contexts = contextsOf(batch);
  await runProgram(gpu, [
    ...[...cut(rows, 1, pieces)].map(([start, count]) =>
      dot.dispatch({ heads, row_start: start, row_end: start + count }, [groups(count * heads), 1, 1], 1),
    ),
    ...dispatches(new AttentionCut(contexts), heads, pieces, (range, [key_start, key_end], grid) =>
      gradQ.dispatch({ ...params, ...range, key_start, key_end }, grid, 1),
    ),
    ...dispatches(
      new AttentionCut(laterRowsOf(contexts)),
      kvHeads,
      pieces,
      (range, [later_start, later_end], grid) =>
        gradKv.dispatch({ ...params, rows, ...range, later_start, later_end }, grid, 1),
    ),
  ]);
  return readF32(gpu, dqkv, elements + 3);
}

function matrices({ heads, kvHeads, headDim }: Shape, { q, keys, values }: Context) {
  const tokens = keys.length / (kvHeads * headDim);
  return {
    q: Matrix.from(q.length / (heads * headDim), heads * headDim, q),
    k: Matrix.from(tokens, kvHeads * headDim, keys),
    v: Matrix.from(tokens, kvHeads * headDim, values),
  };
}

/** log Σ exp(score) of every (row, head) from (largest score, Σ exp(score − largest)). */
function logSumExps(softmax: Floats): Float64Array {
  return Float64Array.from(
    { length: Math.floor(softmax.length / 2) },
    (_, item) => at(softmax, 2 * item) + Math.log(at(softmax, 2 * item + 1)),
  );
}

/** log Σ exp(score) of every (query, head), in the kernel's order. */
function wantedLevels({ heads, kvHeads, headDim }: Shape, q: Matrix, k: Matrix): number[] {
  const levels: number[] = [];
  for (let query = 0; query < q.rows; query++) {
    for (let head = 0; head < heads; head++) {
      const kvHead = Math.floor((head * kvHeads) / heads);
      const scores = new Float64Array(k.rows - q.rows + query + 1).map((_, key) => {
        let score = 0;
        for (let d = 0; d < headDim; d++) {
          score += q.at(query, head * headDim + d) * k.at(key, kvHead * headDim + d);
        }
        return score / Math.sqrt(headDim);
      });
      levels.push(logSumExp(scores));
    }
  }
  return levels;
}

describe('attention_paged', () => {
  it.each(SEEDS)('agrees with float64 on prefill and decode rows together (seed %i)', async (seed) => {
    const random = new Random(seed);
    for (const sharpness of [0.1, 1, 20]) {
      const shape = randomShape(random);
      const example = randomCase(random, shape, MIXED, sharpness);
      const cuts = random.int(1, 4);
      const { out, softmax } = await forward(example, cuts);
      const logsumexp = logSumExps(softmax);
      const label = `seed ${seed}: ${JSON.stringify(shape)}, sharpness ${sharpness}, in ${cuts}`;
      const columns = shape.heads * shape.headDim;
      example.contexts.forEach((context, stretch) => {
        const { q, k, v } = matrices(shape, context);
        const start = at(example.batch.rowStarts, stretch);
        const place = `${label}: stretch ${stretch}`;
        expectClose(
          rowsOf(out, columns, start, q.rows),
          attention(q, k, v, shape).out.data,
          TOLERANCE,
          place,
        );
        expectClose(
          rowsOf(logsumexp, shape.heads, start, q.rows),
          wantedLevels(shape, q, k),
          TOLERANCE,
          `${place}: logsumexp`,
        );
      });
      expectSameBits(out.slice(-3), untouched(3), `${label}: past out`);
      expectSameBits(softmax.slice(-3), untouched(3), `${label}: past softmax`);
    }
  });

  it.each(SEEDS)(
    'gives a row the same bits alone, in any place and in any pieces (seed %i)',
    async (seed) => {
      const random = new Random(seed).fork('bits');
      const shape = { heads: 6, kvHeads: 2, headDim: 10 };
      const columns = shape.heads * shape.headDim;
      const example = randomCase(random, shape, MIXED);
      const all = await forward(example);
      for (const pieces of [2, 5, example.batch.rows, Infinity]) {
        const cutUp = await forward(example, pieces);
        expectSameBits(cutUp.out, all.out, `seed ${seed}: in ${pieces} pieces`);
        expectSameBits(cutUp.softmax, all.softmax, `seed ${seed}: softmax in ${pieces} pieces`);
      }
      // The same sequences in another order, slots and blocks; and the last row of each all by itself.
      const order = shuffled(random, MIXED.length);
      const contexts = order.map((stretch) => at(example.contexts, stretch));
      const mixed = {
        shape,
        contexts,
        batch: raggedBatch(
          random,
          order.map((stretch) => at(MIXED, stretch)),
        ),
      };
      const mixedOut = (await forward(mixed)).out;
      for (const [place, stretch] of order.entries()) {
        const { tokens, queries } = at(MIXED, stretch);
        const start = at(example.batch.rowStarts, stretch);
        expectSameBits(
          rowsOf(mixedOut, columns, at(mixed.batch.rowStarts, place), queries),
          rowsOf(all.out, columns, start, queries),
          `seed ${seed}: stretch ${stretch} in place ${place}`,
        );
        const context = at(example.contexts, stretch);
        const lastQuery = rowsOf(context.q, columns, queries - 1);
        const single = {
          shape,
          batch: raggedBatch(random, [{ tokens, queries: 1 }]),
          contexts: [{ ...context, q: lastQuery }],
        };
        expectSameBits(
          rowsOf((await forward(single)).out, columns, 0),
          rowsOf(all.out, columns, start + queries - 1),
          `seed ${seed}: last row of stretch ${stretch} alone`,
        );
      }
    },
  );
});

describe('attention gradients', () => {
  it.each(SEEDS)('agree with float64 (seed %i)', async (seed) => {
    const random = new Random(seed).fork('gradients');
    for (const sharpness of [0.1, 1, 4]) {
      const shape = randomShape(random);
      const example = randomCase(random, shape, WHOLE, sharpness);
      const columns = shape.heads * shape.headDim;
      const dout = normals(random, example.batch.rows * columns);
      const cuts = random.int(1, 4);
      const dqkv = await backward(example, dout, cuts);
      const label = `seed ${seed}: ${JSON.stringify(shape)}, sharpness ${sharpness}, in ${cuts}`;
      example.contexts.forEach((context, stretch) => {
        const { q, k, v } = matrices(shape, context);
        const start = at(example.batch.rowStarts, stretch);
        const { probabilities } = attention(q, k, v, shape);
        const flow = Matrix.from(q.rows, columns, rowsOf(dout, columns, start, q.rows));
        const { dQ, dK, dV } = attentionBackward(q, k, v, probabilities, flow, shape);
        const wanted = joinColumns([dQ, dK, dV]);
        const actual = Matrix.from(q.rows, wanted.columns, rowsOf(dqkv, wanted.columns, start, q.rows));
        expectClose(actual.data, wanted.data, 1e-5, `${label}: stretch ${stretch}`);
      });
      expectSameBits(dqkv.slice(-3), untouched(3), `${label}: past dqkv`);
    }
  });

  it('gives a sequence the same bits alone, in any place and in any pieces', async () => {
    const random = new Random(4);
    const shape = { heads: 3, kvHeads: 1, headDim: 6 };
    const [outColumns, columns] = [18, 30];
    const example = randomCase(random, shape, WHOLE);
    const dout = normals(random, example.batch.rows * outColumns);
    const all = await backward(example, dout);
    for (const pieces of [3, example.batch.rows, Infinity]) {
      expectSameBits(await backward(example, dout, pieces), all, `in ${pieces} pieces`);
    }
    for (const [stretch, { tokens }] of WHOLE.entries()) {
      const start = at(example.batch.rowStarts, stretch);
      const contexts = [at(example.contexts, stretch)];
      const single = { shape, contexts, batch: raggedBatch(random, [{ tokens, queries: tokens }]) };
      const alone = await backward(single, rowsOf(dout, outColumns, start, tokens));
      expectSameBits(
        rowsOf(alone, columns, 0, tokens),
        rowsOf(all, columns, start, tokens),
        `sequence ${stretch} alone`,
      );
    }
  });
});
