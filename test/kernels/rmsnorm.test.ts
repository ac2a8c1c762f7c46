import { describe, it } from 'vitest';
import { runProgram } from '#src/gpu/slice-encoder.js';
import { groups } from '#src/kernels/launch.js';
import { laneGroups, lanesFor } from '#src/kernels/transformer.js';
import { at } from '#src/lib/assert.js';
import { Random } from '#src/lib/prng.js';
import { expectSameBits, normals, rowsOf, shuffled, UNTOUCHED, untouched } from '../helpers/arrays.js';
import { readF32, upload, useGpu } from '../helpers/gpu.js';
import { expectClose } from '../oracle/compare.js';
import { Matrix, sum } from '../oracle/matrix.js';
import { rmsNorm, rmsNormBackward } from '../oracle/ops.js';

const SEEDS = [1, 2, 3];
/** Less and more than 8 lanes, multiples and not; past 512 a row takes 64 lanes. */
const HIDDEN = [1, 7, 8, 9, 64, 100, 511, 512, 513, 600];
const ROWS = [1, 2, 7, 8, 9, 17];
const EPS = 1e-5;
const TOLERANCE = 2e-6;

const device = useGpu();

type Floats = Float32Array<ArrayBuffer>;

interface Shape {
  readonly rows: number;
  readonly hidden: number;
  readonly eps?: number;
}

async function forward(
  { rows, hidden, eps = EPS }: Shape,
  x: Floats,
  gain: Floats,
  rowIndex: readonly number[] | null,
) {
  const { gpu, kernels } = device;
  const y = upload(gpu, untouched((rows + 2) * hidden));
  const scale = upload(gpu, untouched(rows + 2));
  const kernel = kernels.bind(
    'rmsnorm_row',
    { overrides: { GATHER: rowIndex === null ? 0 : 1 }, prelude: { LANES: lanesFor(hidden) } },
    {
      x: upload(gpu, x),
      gain: upload(gpu, gain),
      row_index: upload(gpu, Uint32Array.from(rowIndex ?? [0])),
      y,
      scale,
    },
  );
  await runProgram(gpu, [
    kernel.dispatch({ hidden, eps, row_start: 0, row_end: rows }, [laneGroups(rows, hidden), 1, 1], 1),
  ]);
  return { y: await readF32(gpu, y, (rows + 2) * hidden), scale: await readF32(gpu, scale, rows + 2) };
}

async function inputGradient(
  { rows, hidden }: Shape,
  data: { x: Floats; gain: Floats; scale: Floats; dy: Floats },
  passing: Floats | null,
) {
  const { gpu, kernels } = device;
  const dx = upload(gpu, untouched((rows + 2) * hidden));
  const dy = upload(gpu, data.dy);
  const kernel = kernels.bind(
    'rmsnorm_row_grad',
    { overrides: { HAS_PASSING: passing === null ? 0 : 1 }, prelude: { LANES: lanesFor(hidden) } },
    {
      x: upload(gpu, data.x),
      gain: upload(gpu, data.gain),
      scale: upload(gpu, data.scale),
      dy,
      passing: passing === null ? dy : upload(gpu, passing),
      dx,
    },
  );
  await runProgram(gpu, [
    kernel.dispatch({ hidden, row_start: 0, row_end: rows }, [laneGroups(rows, hidden), 1, 1], 1),
  ]);
  return readF32(gpu, dx, (rows + 2) * hidden);
}

/** Rows whose sizes differ by orders of magnitude, down to where eps decides, and one of zeros. */
function unevenRows(random: Random, rows: number, hidden: number): Floats {
  const x = normals(random, rows * hidden);
  for (let row = 0; row < rows; row++) {
    const scale = row === 3 ? 0 : 10 ** random.int(-4, 2);
    for (let i = row * hidden; i < (row + 1) * hidden; i++) x[i] = at(x, i) * scale;
  }
  return x;
}

describe('rmsnorm_row', () => {
  it.each(SEEDS)('agrees with float64, gathered or not (seed %i)', async (seed) => {
    for (const hidden of HIDDEN) {
      const random = new Random(seed).fork(hidden);
      const rows = random.pick(ROWS);
      const gather = random.int(0, 1) === 1;
      const inputRows = rows + 4;
      const x = unevenRows(random, inputRows, hidden);
      const gain = normals(random, hidden);
      const rowIndex = Array.from({ length: rows }, (_, row) =>
        gather ? random.int(0, inputRows - 1) : row,
      );
      const { y, scale } = await forward({ rows, hidden }, x, gain, gather ? rowIndex : null);

      const gainRow = Matrix.from(1, hidden, gain);
      rowIndex.forEach((source, row) => {
        const wanted = rmsNorm(Matrix.from(1, hidden, rowsOf(x, hidden, source)), gainRow, EPS);
        const label = `seed ${seed}: row ${row} of ${rows}×${hidden}, gather ${gather}`;
        expectClose(rowsOf(y, hidden, row), wanted.data, TOLERANCE, label);
        const squares = rowsOf(x, hidden, source).reduce((total, value) => total + value * value, 0);
        const factor = 1 / Math.sqrt(squares / hidden + EPS);
        expectClose([at(scale, row)], [factor], TOLERANCE, `${label}: scale`);
      });
      expectSameBits(rowsOf(y, hidden, rows, 2), untouched(2 * hidden), 'past y');
      expectSameBits(scale.slice(rows), untouched(2), 'past scale');
    }
  });

  it.each([45, 600])('gives a row of %i the same bits alone and in any place', async (hidden) => {
    const random = new Random(hidden);
    const rows = 19;
    const x = unevenRows(random, rows, hidden);
    const gain = normals(random, hidden);
    const all = await forward({ rows, hidden }, x, gain, null);
    const order = shuffled(random, rows);
    const mixed = await forward({ rows, hidden }, x, gain, order);
    for (const [place, row] of order.entries()) {
      const wanted = rowsOf(all.y, hidden, row);
      expectSameBits(rowsOf(mixed.y, hidden, place), wanted, `row ${row} in place ${place}`);
      const alone = await forward({ rows: 1, hidden }, rowsOf(x, hidden, row), gain, null);
      expectSameBits(rowsOf(alone.y, hidden, 0), wanted, `row ${row} alone`);
      expectSameBits(alone.scale.slice(0, 1), all.scale.slice(row, row + 1), `scale of row ${row} alone`);
    }
  });
});

describe('rmsnorm_row_grad', () => {
  it.each(SEEDS)('agrees with float64, with and without a passing gradient (seed %i)', async (seed) => {
    for (const hidden of HIDDEN) {
      const random = new Random(seed).fork(`grad ${hidden}`);
      const rows = random.pick(ROWS);
      const hasPassing = random.int(0, 1) === 1;
      const [x, gain] = [normals(random, rows * hidden), normals(random, hidden)];
      const [dy, passing] = [normals(random, rows * hidden), normals(random, rows * hidden)];
      // One element normalises to ±1 but for eps: without a large one its gradient is all cancellation.
      const eps = hidden === 1 ? 0.5 : EPS;
      const { scale } = await forward({ rows, hidden, eps }, x, gain, null);
      const dx = await inputGradient({ rows, hidden }, { x, gain, scale, dy }, hasPassing ? passing : null);
      const { dX } = rmsNormBackward(
        Matrix.from(rows, hidden, x),
        Matrix.from(1, hidden, gain),
        eps,
        Matrix.from(rows, hidden, dy),
      );
      const wanted = hasPassing ? sum(dX, Matrix.from(rows, hidden, passing)) : dX;
      const label = `seed ${seed}: ${rows}×${hidden}, passing ${hasPassing}`;
      expectClose(rowsOf(dx, hidden, 0, rows), wanted.data, TOLERANCE, label);
      expectSameBits(rowsOf(dx, hidden, rows, 2), untouched(2 * hidden), 'past dx');
    }
  });

  it.each([45, 600])('gives a row of %i the same bits alone', async (hidden) => {
    const random = new Random(hidden);
    const rows = 11;
    const [x, gain] = [normals(random, rows * hidden), normals(random, hidden)];
    const [dy, passing] = [normals(random, rows * hidden), normals(random, rows * hidden)];
    const { scale } = await forward({ rows, hidden }, x, gain, null);
    const all = await inputGradient({ rows, hidden }, { x, gain, scale, dy }, passing);
    for (let row = 0; row < rows; row++) {
      const own = (data: Floats) => rowsOf(data, hidden, row);
      const data = { x: own(x), gain, scale: scale.slice(row, row + 1), dy: own(dy) };
      const alone = await inputGradient({ rows: 1, hidden }, data, own(passing));
      expectSameBits(rowsOf(alone, hidden, 0), own(all), `row ${row} alone`);
    }
  });
});

describe('rmsnorm_gain_grad', () => {
  it.each(SEEDS)('adds the sum over all rows to what is there (seed %i)', async (seed) => {
    const { gpu, kernels } = device;
    for (const hidden of HIDDEN) {
      const random = new Random(seed).fork(`gain ${hidden}`);
      const rows = random.pick([1, 2, 17, 200]);
      const [x, gain] = [normals(random, rows * hidden), normals(random, hidden)];
      const [dy, before] = [normals(random, rows * hidden), normals(random, hidden)];
      const { scale } = await forward({ rows, hidden }, x, gain, null);
      const dgain = upload(gpu, Float32Array.of(...before, UNTOUCHED));
      const kernel = kernels.bind(
        'rmsnorm_gain_grad',
        { overrides: {}, prelude: {} },
        { x: upload(gpu, x), scale: upload(gpu, scale), dy: upload(gpu, dy), dgain },
      );
      await runProgram(gpu, [kernel.dispatch({ rows, hidden, column_start: 0 }, [groups(hidden), 1, 1], 1)]);
      const after = await readF32(gpu, dgain, hidden + 1);
      const { dGain } = rmsNormBackward(
        Matrix.from(rows, hidden, x),
        Matrix.from(1, hidden, gain),
        EPS,
        Matrix.from(rows, hidden, dy),
      );
      const wanted = sum(dGain, Matrix.from(1, hidden, before));
      expectClose(after.slice(0, hidden), wanted.data, 5e-6, `seed ${seed}: ${rows}×${hidden}`);
      expectSameBits(after.slice(hidden), untouched(1), 'past dgain');
    }
  });
});
