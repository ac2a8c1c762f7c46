import { describe, expect, it } from 'vitest';
import { runProgram } from '#src/gpu/slice-encoder.js';
import { groups } from '#src/kernels/launch.js';
import { laneGroups, lanesFor } from '#src/kernels/transformer.js';
import { at } from '#src/lib/assert.js';
import { Random } from '#src/lib/prng.js';
import { expectSameBits, normals, rowsOf, untouched } from '../helpers/arrays.js';
import { readF32, upload, useGpu } from '../helpers/gpu.js';
import { expectClose } from '../oracle/compare.js';
import { valueLoss } from '../oracle/critic.js';
import { dot } from '../oracle/fixtures.js';

const SEEDS = [1, 2, 3];
/** Less and more than 8 lanes, multiples and not; past 512 a row takes 64 lanes. */
const HIDDEN = [1, 7, 8, 9, 63, 64, 65, 512, 513, 600];
const ROWS = [1, 7, 8, 9, 70];
const TOLERANCE = 2e-6;
const PLAIN = { overrides: {}, prelude: {} };

const device = useGpu();

type Floats = Float32Array<ArrayBuffer>;

/** Values of rows from … until, with what lies around them. */
async function valueRows(x: Floats, w: Floats, bias: number, from: number, until: number): Promise<Floats> {
  const { gpu, kernels } = device;
  const hidden = w.length;
  const values = upload(gpu, untouched(x.length / hidden + 1));
  const kernel = kernels.bind(
    'value_row',
    { overrides: {}, prelude: { LANES: lanesFor(hidden) } },
    { x: upload(gpu, x), w: upload(gpu, w), bias: upload(gpu, Float32Array.of(bias)), values },
  );
  const params = { hidden, row_start: from, row_end: until };
  await runProgram(gpu, [kernel.dispatch(params, [laneGroups(until - from, hidden), 1, 1], 1)]);
  return readF32(gpu, values, x.length / hidden + 1);
}

describe('value_row', () => {
  it.each(SEEDS)('is x · w + bias of float64, and a row the same bits alone (seed %i)', async (seed) => {
    for (const hidden of HIDDEN) {
      const random = new Random(seed).fork(hidden);
      const rows = random.pick(ROWS);
      const [x, w] = [normals(random, rows * hidden), normals(random, hidden)];
      const bias = Math.fround(random.normal());
      const label = `seed ${seed}, ${rows} rows of ${hidden}`;
      const values = await valueRows(x, w, bias, 0, rows);
      const wanted = Array.from({ length: rows }, (_, row) => dot(rowsOf(x, hidden, row), w) + bias);
      // Terms of either sign may come to nearly nothing: the length of w is the scale.
      const scale = Math.sqrt(dot(w, w));
      expectClose([...values.slice(0, rows), scale], [...wanted, scale], TOLERANCE, label);
      expectSameBits(values.slice(rows), untouched(1), `${label}: past the rows`);
      const row = random.int(0, rows - 1);
      const alone = untouched(rows + 1);
      alone[row] = at(values, row);
      expectSameBits(await valueRows(x, w, bias, row, row + 1), alone, `${label}: row ${row} alone`);
    }
  });
});

interface Loss {
  readonly slopes: Floats;
  readonly metrics: Floats;
}

async function lossOf(
  rows: readonly { value: number; wanted: number; oldValue: number; weight: number }[],
  clip: number,
): Promise<Loss> {
  const { gpu, kernels } = device;
  const table = rows.flatMap(({ weight, wanted, oldValue }) => [weight, wanted, oldValue, 0]);
  const slopes = upload(gpu, untouched(rows.length + 1));
  const metrics = upload(gpu, untouched(2 * rows.length + 2));
  const kernel = kernels.bind('value_loss', PLAIN, {
    value_rows: upload(gpu, Float32Array.from(table)),
    values: upload(
      gpu,
      Float32Array.from(rows, ({ value }) => value),
    ),
    slopes,
    metrics,
  });
  const params = { row_start: 0, row_end: rows.length, clip };
  await runProgram(gpu, [kernel.dispatch(params, [groups(rows.length), 1, 1], 1)]);
  const read = {
    slopes: await readF32(gpu, slopes, rows.length + 1),
    metrics: await readF32(gpu, metrics, 2 * rows.length + 2),
  };
  expectSameBits(read.slopes.slice(rows.length), untouched(1), 'past the slopes');
  expectSameBits(read.metrics.slice(2 * rows.length), untouched(2), 'past the metrics');
  return { slopes: read.slopes.slice(0, rows.length), metrics: read.metrics.slice(0, 2 * rows.length) };
}

describe('value_loss', () => {
  it.each(SEEDS)('is the clipped loss, and its slope, of float64 (seed %i)', async (seed) => {
    const random = new Random(seed);
    const number = (): number => Math.fround(random.normal());
    const rows = Array.from({ length: 200 }, () => {
      const wanted = number();
      const oldValue = Math.fround(wanted + random.normal());
      const value = Math.fround(oldValue + random.pick([0, 0.05, 0.19, 0.21, -0.21, 0.5, -0.5]));
      return { value, wanted, oldValue, weight: Math.fround(random.uniform()) };
    });
    const { slopes, metrics } = await lossOf(rows, 0.2);
    let clipped = 0;
    rows.forEach((row, i) => {
      const wanted = valueLoss(row.value, row, 0.2);
      const label = `seed ${seed}, row ${i}: ${JSON.stringify(row)}`;
      expect(metrics[2 * i + 1], label).toBe(wanted.clipped ? 1 : 0);
      expectClose([at(metrics, 2 * i), 1], [wanted.loss, 1], TOLERANCE, label);
      expectClose([at(slopes, i), 1], [wanted.slope, 1], TOLERANCE, label);
      if (wanted.clipped) clipped++;
    });
    expect(clipped).toBeGreaterThan(30);
    expect(clipped).toBeLessThan(170);
  });

  it('inside the clip never loses a gradient to rounding', async () => {
    const random = new Random(5);
    const rows = Array.from({ length: 500 }, () => {
      // Far from 0 the old value plus what the value moved by is not the value.
      const oldValue = Math.fround(1000 * random.normal());
      const value = Math.fround(oldValue + 0.19 * (2 * random.uniform() - 1));
      return { value, oldValue, wanted: Math.fround(oldValue + random.normal()), weight: 1 };
    });
    const { slopes, metrics } = await lossOf(rows, 0.2);
    rows.forEach(({ value, wanted }, i) => {
      expect(metrics[2 * i + 1]).toBe(0);
      expect(slopes[i]).toBe(Math.fround(value - wanted));
    });
  });
});

describe('gradients of value_row', () => {
  it.each(SEEDS)('agree with float64 (seed %i)', async (seed) => {
    const { gpu, kernels } = device;
    for (const hidden of HIDDEN) {
      const random = new Random(seed).fork(hidden);
      const rows = random.pick(ROWS);
      const label = `seed ${seed}, ${rows} rows of ${hidden}`;
      const [x, w, slopes] = [normals(random, rows * hidden), normals(random, hidden), normals(random, rows)];
      const held = normals(random, hidden + 1);
      const dx = upload(gpu, untouched((rows + 1) * hidden));
      const dw = upload(gpu, Float32Array.from([...held.slice(0, hidden), ...untouched(1)]));
      const dbias = upload(gpu, Float32Array.from([...held.slice(hidden), ...untouched(1)]));
      const given = upload(gpu, slopes);
      const toInput = kernels.bind('value_row_grad', PLAIN, { slopes: given, w: upload(gpu, w), dx });
      const toWeight = kernels.bind('value_weight_grad', PLAIN, {
        x: upload(gpu, x),
        slopes: given,
        dw,
        dbias,
      });
      await runProgram(gpu, [
        toInput.dispatch({ hidden, row_start: 0 }, [groups(hidden), rows, 1], 1),
        toWeight.dispatch({ rows, hidden, column_start: 0 }, [groups(hidden + 1), 1, 1], 1),
      ]);
      const inputs = await readF32(gpu, dx, (rows + 1) * hidden);
      slopes.forEach((slope, row) => {
        const wanted = w.map((weight) => slope * weight);
        expectSameBits(rowsOf(inputs, hidden, row), wanted, `${label}: dx of row ${row}`);
      });
      expectSameBits(rowsOf(inputs, hidden, rows), untouched(hidden), `${label}: past dx`);
      const columns = [...Array(hidden).keys()];
      const wanted = columns.map((i) => {
        const column = Array.from({ length: rows }, (_, row) => at(x, row * hidden + i));
        return at(held, i) + dot(column, slopes);
      });
      const weights = await readF32(gpu, dw, hidden + 1);
      const scale = Math.sqrt(rows);
      expectClose([...weights.slice(0, hidden), scale], [...wanted, scale], TOLERANCE, `${label}: dw`);
      expectSameBits(weights.slice(hidden), untouched(1), `${label}: past dw`);
      const bias = await readF32(gpu, dbias, 2);
      const total = at(held, hidden) + slopes.reduce((a, b) => a + b, 0);
      expectClose([at(bias, 0), scale], [total, scale], TOLERANCE, `${label}: dbias`);
      expectSameBits(bias.slice(1), untouched(1), `${label}: past dbias`);
    }
  });
});
