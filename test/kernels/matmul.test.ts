import { describe, it } from 'vitest';
import { runProgram } from '#src/gpu/slice-encoder.js';
import { Matmul, MatmulTn, whole, type Splitter } from '#src/kernels/launch.js';
import { Random } from '#src/lib/prng.js';
import {
  expectSameBits,
  normals,
  pieces,
  rowsOf,
  shuffled,
  UNTOUCHED,
  untouched,
} from '../helpers/arrays.js';
import { readF32, upload, useGpu } from '../helpers/gpu.js';
import { expectClose } from '../oracle/compare.js';
import { Matrix, sum } from '../oracle/matrix.js';
import { matmul, transpose } from '../oracle/ops.js';

const SEEDS = [1, 2, 3, 4];
const CASES_PER_SEED = 8;
/** One row, one column, and both sides of the tiles' edges: 4 and 16 rows, 16 and 64 columns. */
const SIZES = [1, 2, 3, 4, 5, 15, 16, 17, 31, 63, 64, 65, 70];
/** Sums of at most 70 products in float32. */
const TOLERANCE = 2e-6;

const device = useGpu();

interface Shape {
  readonly rows: number;
  readonly inner: number;
  readonly columns: number;
}

function randomShape(random: Random): Shape {
  return { rows: random.pick(SIZES), inner: random.pick(SIZES), columns: random.pick(SIZES) };
}

function shapeText({ rows, inner, columns }: Shape): string {
  return `${rows}×${inner}×${columns}`;
}

describe.each(['matmul_nn', 'matmul_nt'] as const)('%s', (name) => {
  /** Runs over x [·, inner] and w into a y of `yRows` rows. */
  async function run(
    shape: Shape & { xStart?: number; yStart?: number },
    data: {
      x: Float32Array<ArrayBuffer>;
      w: Float32Array<ArrayBuffer>;
      residual?: Float32Array<ArrayBuffer>;
    },
    yRows: number,
    split: Splitter,
  ) {
    const { gpu, kernels } = device;
    const y = upload(gpu, untouched(yRows * shape.columns));
    const inputs = { x: upload(gpu, data.x), w: upload(gpu, data.w), y };
    const residual = data.residual && upload(gpu, data.residual);
    const kernel = new Matmul(kernels, name, residual === undefined ? inputs : { ...inputs, residual });
    await runProgram(gpu, kernel.run(shape, split));
    return readF32(gpu, y, yRows * shape.columns);
  }

  function product(x: Float32Array, w: Float32Array, { rows, inner, columns }: Shape): Matrix {
    const weight =
      name === 'matmul_nn' ? Matrix.from(inner, columns, w) : transpose(Matrix.from(columns, inner, w));
    return matmul(Matrix.from(rows, inner, x), weight);
  }

  it.each(SEEDS)('agrees with float64 and writes nothing else (seed %i)', async (seed) => {
    const random = new Random(seed).fork(name);
    for (let i = 0; i < CASES_PER_SEED; i++) {
      const shape = randomShape(random);
      const { rows, inner, columns } = shape;
      const [xStart, yStart] = [random.int(0, 3), random.int(0, 3)];
      const yRows = yStart + rows + 2;
      const hasResidual = random.int(0, 1) === 1;
      const cuts = random.int(1, 4);
      const label = `seed ${seed}: ${shapeText(shape)} x+${xStart} y+${yStart} residual ${hasResidual} in ${cuts}`;
      const x = normals(random, (xStart + rows + 1) * inner);
      const w = normals(random, inner * columns);
      const residual = normals(random, yRows * columns);
      const data = hasResidual ? { x, w, residual } : { x, w };
      const y = await run({ ...shape, xStart, yStart }, data, yRows, pieces(cuts));

      const wanted = product(rowsOf(x, inner, xStart, rows), w, shape);
      const added = Matrix.from(rows, columns, rowsOf(residual, columns, yStart, rows));
      expectClose(
        rowsOf(y, columns, yStart, rows),
        (hasResidual ? sum(wanted, added) : wanted).data,
        TOLERANCE,
        label,
      );
      const around = y.map((value, at) =>
        at < yStart * columns || at >= (yStart + rows) * columns ? value : UNTOUCHED,
      );
      expectSameBits(around, untouched(y.length), `${label}: around y`);
    }
  });

  it.each(SEEDS)(
    'gives a row the same bits alone, in any place and in any number of pieces (seed %i)',
    async (seed) => {
      const random = new Random(seed).fork(`${name} bits`);
      const shape = { rows: 37, inner: 545, columns: 70 };
      const { rows, inner, columns } = shape;
      const x = normals(random, rows * inner);
      const w = normals(random, inner * columns);
      const residual = normals(random, rows * columns);
      const all = await run(shape, { x, w, residual }, rows, whole);

      for (const count of [2, 3, rows, Infinity]) {
        const cut = await run(shape, { x, w, residual }, rows, pieces(count));
        expectSameBits(cut, all, `seed ${seed}: in ${count} pieces`);
      }
      for (const row of [0, 1, 15, 16, 36]) {
        const alone = await run(
          { rows: 1, inner, columns, xStart: row },
          { x, w, residual: rowsOf(residual, columns, row) },
          1,
          whole,
        );
        expectSameBits(alone, rowsOf(all, columns, row), `seed ${seed}: row ${row} alone`);
      }
      const order = shuffled(random, rows);
      const moved = (data: Float32Array, width: number) =>
        Float32Array.from(order.flatMap((row) => [...rowsOf(data, width, row)]));
      const mixed = await run(
        shape,
        { x: moved(x, inner), w, residual: moved(residual, columns) },
        rows,
        whole,
      );
      expectSameBits(mixed, moved(all, columns), `seed ${seed}: rows in another order`);
    },
  );
});

describe('matmul_tn', () => {
  async function run(
    shape: Shape & { xStart?: number; gStart?: number },
    data: { x: Float32Array<ArrayBuffer>; g: Float32Array<ArrayBuffer>; y: Float32Array<ArrayBuffer> },
    split: Splitter,
  ) {
    const { gpu, kernels } = device;
    const y = upload(gpu, data.y);
    const kernel = new MatmulTn(kernels, { x: upload(gpu, data.x), g: upload(gpu, data.g), y });
    await runProgram(gpu, kernel.run(shape, split));
    return readF32(gpu, y, data.y.length);
  }

  it.each(SEEDS)('adds xᵀ · g to what is there (seed %i)', async (seed) => {
    const random = new Random(seed).fork('matmul_tn');
    for (let i = 0; i < CASES_PER_SEED; i++) {
      const shape = randomShape(random);
      const { rows, inner, columns } = shape;
      const [xStart, gStart] = [random.int(0, 3), random.int(0, 3)];
      const cuts = random.int(1, 4);
      const x = normals(random, (xStart + rows + 1) * inner);
      const g = normals(random, (gStart + rows + 1) * columns);
      const y = normals(random, inner * columns);
      const after = await run({ ...shape, xStart, gStart }, { x, g, y }, pieces(cuts));
      const wanted = sum(
        Matrix.from(inner, columns, y),
        matmul(
          transpose(Matrix.from(rows, inner, rowsOf(x, inner, xStart, rows))),
          Matrix.from(rows, columns, rowsOf(g, columns, gStart, rows)),
        ),
      );
      const label = `seed ${seed}: ${shapeText(shape)} x+${xStart} g+${gStart} in ${cuts}`;
      expectClose(after, wanted.data, TOLERANCE, label);
    }
  });

  it('writes nothing past the last row', async () => {
    const random = new Random(9);
    const shape = { rows: 5, inner: 17, columns: 19 };
    const y = untouched((shape.inner + 3) * shape.columns);
    const x = normals(random, shape.rows * shape.inner);
    const after = await run(shape, { x, g: normals(random, shape.rows * shape.columns), y }, whole);
    const end = shape.inner * shape.columns;
    expectSameBits(after.slice(end), y.slice(end), 'past y');
  });

  it.each(SEEDS)('gives the same bits in any number of pieces (seed %i)', async (seed) => {
    const random = new Random(seed).fork('matmul_tn bits');
    const shape = { rows: 33, inner: 50, columns: 141 };
    const x = normals(random, shape.rows * shape.inner);
    const g = normals(random, shape.rows * shape.columns);
    const y = normals(random, shape.inner * shape.columns);
    const all = await run(shape, { x, g, y }, whole);
    for (const count of [2, 3, 50, Infinity]) {
      expectSameBits(await run(shape, { x, g, y }, pieces(count)), all, `seed ${seed}: in ${count} pieces`);
    }
  });
});
