import { describe, expect, it } from 'vitest';
import { runProgram } from '#src/gpu/slice-encoder.js';
import { BLOCK_TOKENS } from '#src/kernels/kv-cache.js';
import { groups } from '#src/kernels/launch.js';
import { ropeAngles } from '#src/kernels/rope-angles.js';
import { at } from '#src/lib/assert.js';
import { Random } from '#src/lib/prng.js';
import { expectSameBits, normals, rowsOf, untouched } from '../helpers/arrays.js';
import { readF32, upload, useGpu } from '../helpers/gpu.js';
import { expectClose } from '../oracle/compare.js';
import { Matrix, sliceColumns } from '../oracle/matrix.js';
import { rope, ropeBackward } from '../oracle/ops.js';
import { raggedBatch, type RaggedBatch } from './ragged-batch.js';

const SEEDS = [1, 2, 3];
/** Odd halves and even ones. */
const HEAD_DIMS = [2, 6, 10, 16, 34, 64];
/** Decode rows and prefill chunks around a block's edge, and one far into a context. */
const STRETCHES = [
  { tokens: 1, queries: 1 },
  { tokens: 15, queries: 15 },
  { tokens: 16, queries: 1 },
  { tokens: 17, queries: 1 },
  { tokens: 18, queries: 5 },
  { tokens: 33, queries: 33 },
  { tokens: 100, queries: 1 },
];
const TOLERANCE = 1e-6;

const device = useGpu();

type Floats = Float32Array<ArrayBuffer>;

interface Shape {
  readonly heads: number;
  readonly kvHeads: number;
  readonly headDim: number;
  readonly theta: number;
}

function randomShape(random: Random): Shape {
  const kvHeads = random.int(1, 2);
  const theta = random.pick([100, 10_000, 500_000]);
  return { heads: 3 * kvHeads, kvHeads, headDim: random.pick(HEAD_DIMS), theta };
}

function angles({ headDim, theta }: Shape, batch: RaggedBatch): Floats {
  return ropeAngles({ headDim, ropeTheta: theta }, Math.max(...batch.positions) + 1);
}

/** Columns of a row of q, k and v together. */
function columnsOf({ heads, kvHeads, headDim }: Shape): number {
  return (heads + 2 * kvHeads) * headDim;
}

async function write(shape: Shape, batch: RaggedBatch, qkv: Floats) {
  const { gpu, kernels } = device;
  const { heads, kvHeads, headDim } = shape;
  const queryElements = batch.rows * heads * headDim;
  const cacheElements = batch.blocks * BLOCK_TOKENS * kvHeads * headDim;
  const q = upload(gpu, untouched(queryElements + 5));
  const [k_cache, v_cache] = [upload(gpu, untouched(cacheElements)), upload(gpu, untouched(cacheElements))];
  const kernel = kernels.bind(
    'rope_kv_write',
    { overrides: {}, prelude: { HEAD_DIM: headDim } },
    {
      rows: upload(gpu, batch.rowTable),
      block_table: upload(gpu, batch.blockTable),
      angles: upload(gpu, angles(shape, batch)),
      qkv: upload(gpu, qkv),
      q,
      k_cache,
      v_cache,
    },
  );
  const params = { heads, kv_heads: kvHeads, blocks_per_slot: batch.blocksPerSlot, row_start: 0 };
  await runProgram(gpu, [kernel.dispatch(params, [groups(columnsOf(shape) / 2), batch.rows, 1], 1)]);
  return {
    q: await readF32(gpu, q, queryElements + 5),
    keys: await readF32(gpu, k_cache, cacheElements),
    values: await readF32(gpu, v_cache, cacheElements),
  };
}

async function turnBack(shape: Shape, batch: RaggedBatch, dqkv: Floats): Promise<Floats> {
  const { gpu, kernels } = device;
  const { heads, kvHeads, headDim } = shape;
  const buffer = upload(gpu, dqkv);
  const kernel = kernels.bind(
    'rope_grad',
    { overrides: {}, prelude: { HEAD_DIM: headDim } },
    { rows: upload(gpu, batch.rowTable), angles: upload(gpu, angles(shape, batch)), dqkv: buffer },
  );
  const grid = [groups(((heads + kvHeads) * headDim) / 2), batch.rows, 1] as const;
  await runProgram(gpu, [kernel.dispatch({ heads, kv_heads: kvHeads, row_start: 0 }, grid, 1)]);
  return readF32(gpu, buffer, dqkv.length);
}

/** Query, key and value columns of [rows, query | key | value]. */
function parts({ heads, kvHeads, headDim }: Shape, data: Floats) {
  const matrix = Matrix.from(
    data.length / ((heads + 2 * kvHeads) * headDim),
    (heads + 2 * kvHeads) * headDim,
    data,
  );
  return {
    query: sliceColumns(matrix, 0, heads * headDim),
    key: sliceColumns(matrix, heads * headDim, kvHeads * headDim),
    value: sliceColumns(matrix, (heads + kvHeads) * headDim, kvHeads * headDim),
  };
}

describe('rope_kv_write', () => {
  it.each(SEEDS)(
    'turns queries and keys, and fills the blocks of its own rows only (seed %i)',
    async (seed) => {
      const random = new Random(seed);
      for (let i = 0; i < 4; i++) {
        const shape = randomShape(random);
        const batch = raggedBatch(random, STRETCHES);
        const kvColumns = shape.kvHeads * shape.headDim;
        const qkv = normals(random, batch.rows * columnsOf(shape));
        const { q, keys, values } = await write(shape, batch, qkv);

        const label = `seed ${seed}: ${JSON.stringify(shape)}`;
        const { query, key, value } = parts(shape, qkv);
        const turned = rope(query, shape, batch.positions);
        expectClose(q.slice(0, turned.data.length), turned.data, TOLERANCE, `${label}: queries`);
        expectSameBits(q.slice(turned.data.length), untouched(5), `${label}: past q`);
        const turnedKeys = rope(key, shape, batch.positions);
        const wantedKeys = Float64Array.from(untouched(keys.length));
        const wantedValues = untouched(values.length);
        const written = new Set<number>();
        STRETCHES.forEach(({ tokens, queries }, stretch) => {
          for (let j = 0; j < queries; j++) {
            const row = at(batch.rowStarts, stretch) + j;
            const entry = batch.cacheEntry(stretch, tokens - queries + j);
            wantedKeys.set(turnedKeys.row(row), entry * kvColumns);
            wantedValues.set(value.row(row), entry * kvColumns);
            written.add(entry);
          }
        });
        expect(written.size).toBe(batch.rows);
        expectSameBits(values, wantedValues, `${label}: values`);
        for (let entry = 0; entry < batch.blocks * BLOCK_TOKENS; entry++) {
          const [own, wanted] = [rowsOf(keys, kvColumns, entry), rowsOf(wantedKeys, kvColumns, entry)];
          if (written.has(entry)) expectClose(own, wanted, TOLERANCE, `${label}: key ${entry}`);
          else expectSameBits(own, untouched(kvColumns), `${label}: key ${entry}, of no row`);
        }
      }
    },
  );

  it('gives a row the same bits alone', async () => {
    const random = new Random(5);
    const shape = { heads: 3, kvHeads: 1, headDim: 10, theta: 10_000 };
    const batch = raggedBatch(random, STRETCHES);
    const qkv = normals(random, batch.rows * columnsOf(shape));
    const all = await write(shape, batch, qkv);
    for (const [stretch, { tokens, queries }] of STRETCHES.entries()) {
      const row = at(batch.rowStarts, stretch) + queries - 1;
      const single = raggedBatch(random, [{ tokens, queries: 1 }]);
      const alone = await write(shape, single, rowsOf(qkv, columnsOf(shape), row));
      expectSameBits(rowsOf(alone.q, 30, 0), rowsOf(all.q, 30, row), `queries of row ${row} alone`);
      expectSameBits(
        rowsOf(alone.keys, 10, single.cacheEntry(0, tokens - 1)),
        rowsOf(all.keys, 10, batch.cacheEntry(stretch, tokens - 1)),
        `keys of row ${row} alone`,
      );
    }
  });
});

describe('rope_grad', () => {
  it.each(SEEDS)('turns queries and keys back and leaves values alone (seed %i)', async (seed) => {
    const random = new Random(seed);
    for (let i = 0; i < 4; i++) {
      const shape = randomShape(random);
      const batch = raggedBatch(random, STRETCHES);
      const dqkv = normals(random, batch.rows * columnsOf(shape));
      const after = parts(shape, await turnBack(shape, batch, dqkv));
      const before = parts(shape, dqkv);
      const label = `seed ${seed}: ${JSON.stringify(shape)}`;
      const wanted = (columns: Matrix) => ropeBackward(columns, shape, batch.positions).data;
      expectClose(after.query.data, wanted(before.query), TOLERANCE, `${label}: queries`);
      expectClose(after.key.data, wanted(before.key), TOLERANCE, `${label}: keys`);
      expect(after.value.data, `${label}: values`).toEqual(before.value.data);
    }
  });
});

describe('ropeAngles', () => {
  it('is (cos, sin) to half a unit in the last place, far into a context too', () => {
    const [headDim, ropeTheta, positions] = [6, 500_000, 5_000];
    const table = ropeAngles({ headDim, ropeTheta }, positions);
    expect(table).toHaveLength(positions * headDim);
    for (const position of [0, 1, 17, 4_999]) {
      for (const pair of [0, 1, 2]) {
        const angle = position / ropeTheta ** (pair / 3);
        const index = (position * 3 + pair) * 2;
        expect(Math.abs(at(table, index) - Math.cos(angle))).toBeLessThan(2 ** -24);
        expect(Math.abs(at(table, index + 1) - Math.sin(angle))).toBeLessThan(2 ** -24);
      }
    }
  });
});
