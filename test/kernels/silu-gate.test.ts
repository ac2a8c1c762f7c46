import { describe, it } from 'vitest';
import { runProgram } from '#src/gpu/slice-encoder.js';
import { groups } from '#src/kernels/launch.js';
import { Random } from '#src/lib/prng.js';
import { expectSameBits, normals, rowsOf, untouched } from '../helpers/arrays.js';
import { readF32, upload, useGpu } from '../helpers/gpu.js';
import { expectClose } from '../oracle/compare.js';
import { Matrix } from '../oracle/matrix.js';
import { siluGate, siluGateBackward } from '../oracle/ops.js';

const SEEDS = [1, 2, 3];
const INNER = [1, 2, 7, 63, 64, 65, 130];
const ROWS = [1, 2, 17];
const TOLERANCE = 1e-6;

const device = useGpu();

type Floats = Float32Array<ArrayBuffer>;

async function forward(rows: number, inner: number, gateUp: Floats): Promise<Floats> {
  const { gpu, kernels } = device;
  const y = upload(gpu, untouched((rows + 1) * inner));
  const kernel = kernels.bind(
    'silu_gate',
    { overrides: {}, prelude: {} },
    { gate_up: upload(gpu, gateUp), y },
  );
  await runProgram(gpu, [kernel.dispatch({ inner, row_start: 0 }, [groups(inner), rows, 1], 1)]);
  return readF32(gpu, y, (rows + 1) * inner);
}

async function backward(rows: number, inner: number, gateUp: Floats, dy: Floats): Promise<Floats> {
  const { gpu, kernels } = device;
  const d_gate_up = upload(gpu, untouched((rows + 1) * 2 * inner));
  const kernel = kernels.bind(
    'silu_gate_grad',
    { overrides: {}, prelude: {} },
    { gate_up: upload(gpu, gateUp), dy: upload(gpu, dy), d_gate_up },
  );
  await runProgram(gpu, [kernel.dispatch({ inner, row_start: 0 }, [groups(inner), rows, 1], 1)]);
  return readF32(gpu, d_gate_up, (rows + 1) * 2 * inner);
}

describe.each(SEEDS)('silu_gate and its gradient (seed %i)', (seed) => {
  it('agree with float64 and write nothing else', async () => {
    const random = new Random(seed);
    for (const inner of INNER) {
      const rows = random.pick(ROWS);
      const gateUp = normals(random, rows * 2 * inner, 3);
      const dy = normals(random, rows * inner);
      const label = `seed ${seed}: ${rows}×${inner}`;
      const wide = Matrix.from(rows, 2 * inner, gateUp);
      const y = await forward(rows, inner, gateUp);
      expectClose(rowsOf(y, inner, 0, rows), siluGate(wide).data, TOLERANCE, label);
      expectSameBits(rowsOf(y, inner, rows), untouched(inner), `${label}: past y`);
      const gradient = await backward(rows, inner, gateUp, dy);
      const wanted = siluGateBackward(wide, Matrix.from(rows, inner, dy));
      expectClose(rowsOf(gradient, 2 * inner, 0, rows), wanted.data, TOLERANCE, `${label}: gradient`);
      expectSameBits(rowsOf(gradient, 2 * inner, rows), untouched(2 * inner), `${label}: past gradient`);
    }
  });

  it('give a row the same bits alone', async () => {
    const random = new Random(seed).fork('bits');
    const [rows, inner] = [9, 70];
    const gateUp = normals(random, rows * 2 * inner);
    const dy = normals(random, rows * inner);
    const all = { y: await forward(rows, inner, gateUp), gradient: await backward(rows, inner, gateUp, dy) };
    for (let row = 0; row < rows; row++) {
      const own = rowsOf(gateUp, 2 * inner, row);
      const y = await forward(1, inner, own);
      expectSameBits(rowsOf(y, inner, 0), rowsOf(all.y, inner, row), `seed ${seed}: row ${row}`);
      const gradient = await backward(1, inner, own, rowsOf(dy, inner, row));
      const wanted = rowsOf(all.gradient, 2 * inner, row);
      expectSameBits(rowsOf(gradient, 2 * inner, 0), wanted, `seed ${seed}: gradient of row ${row}`);
    }
  });
});

it('a gate shut or open as far as float32 goes gives 0 or itself, and a gradient without surprises', async () => {
  // exp(x) is allowed an error that grows with |x|, and has one: 30 halves of a float32's last place is 2e-6.
  const tolerance = 5e-6;
  const gates = [-1000, -100, -89, -30, 0, 30, 89, 100, 1000];
  for (const gate of gates) {
    const gateUp = Float32Array.of(gate, 2);
    const wide = Matrix.from(1, 2, gateUp);
    const y = await forward(1, 1, gateUp);
    expectClose(y.slice(0, 1), siluGate(wide).data, tolerance, `gate ${gate}`);
    const gradient = await backward(1, 1, gateUp, Float32Array.of(3));
    const wanted = siluGateBackward(wide, Matrix.from(1, 1, [3])).data;
    expectClose(gradient.slice(0, 2), wanted, tolerance, `gradient at gate ${gate}`);
  }
});
