import type { BufferSlice, DispatchOp } from '../gpu/ops.js';
import type { Bound, Kernels } from './kernels.js';

/**
 * How many pieces a dispatch is cut into so that each fits the lane's slice budget: the lane's cost model answers.
 * `whole` never cuts, for tests and one-off work.
 */
export interface Splitter {
  pieces(kernel: string, work: number): number;
}
export const whole: Splitter = { pieces: () => 1 };

/** Rows of a matmul one thread sums; a compile-time constant of the shaders. */
const TILE_ROWS = 4;
const ROWS_PER_GROUP = 16;
const COLUMNS_PER_GROUP = 64;
const GRID_MAX = 65_535;
export const THREADS = 64;

type Slice = BufferSlice | GPUBuffer;
type MatmulName = 'matmul_nn' | 'matmul_nt';

export interface MatmulShape {
  readonly rows: number;
  readonly inner: number;
  readonly columns: number;
  /** First row of x, and of y and residual. */
  readonly xStart?: number;
  readonly yStart?: number;
}

/** y = x · w (nn) or x · wᵀ (nt), with an optional residual added; cut along rows where it is too long. */
export class Matmul {
  readonly #bound: Bound<MatmulName>;

  constructor(
    kernels: Kernels,
    name: MatmulName,
    buffers: { x: Slice; w: Slice; y: Slice; residual?: Slice },
  ) {
    const { x, w, y, residual } = buffers;
    this.#bound = kernels.bind(
      name,
      { overrides: { HAS_RESIDUAL: residual === undefined ? 0 : 1 }, prelude: { TILE_ROWS } },
      { x, w, y, residual: residual ?? w },
    );
  }

  *run(shape: MatmulShape, split: Splitter): Generator<DispatchOp, void, void> {
    const { rows, inner, columns, xStart = 0, yStart = 0 } = shape;
    const columnGroups = Math.ceil(columns / COLUMNS_PER_GROUP);
    for (const [start, count] of cut(
      rows,
      ROWS_PER_GROUP,
      split.pieces(this.#bound.kernel, rows * inner * columns),
    )) {
      yield this.#bound.dispatch(
        { rows: count, inner, columns, x_start: xStart + start, y_start: yStart + start },
        [columnGroups, Math.ceil(count / ROWS_PER_GROUP), 1],
        count * inner * columns,
      );
    }
  }
}

/** y += xᵀ · g, the gradient of a weight; cut along the weight's rows. */
export class MatmulTn {
  readonly #bound: Bound<'matmul_tn'>;

  constructor(kernels: Kernels, buffers: { x: Slice; g: Slice; y: Slice }) {
    this.#bound = kernels.bind('matmul_tn', { overrides: {}, prelude: { TILE_ROWS } }, buffers);
  }

  *run(
    shape: { rows: number; inner: number; columns: number; xStart?: number; gStart?: number },
    split: Splitter,
  ): Generator<DispatchOp, void, void> {
    const { rows, inner, columns, xStart = 0, gStart = 0 } = shape;
    const columnGroups = Math.ceil(columns / COLUMNS_PER_GROUP);
    for (const [start, count] of cut(
      inner,
      ROWS_PER_GROUP,
      split.pieces(this.#bound.kernel, rows * inner * columns),
    )) {
      yield this.#bound.dispatch(
        { rows, inner, columns, inner_start: start, inner_count: count, x_start: xStart, g_start: gStart },
        [columnGroups, Math.ceil(count / ROWS_PER_GROUP), 1],
        count * rows * columns,
      );
    }
  }
}

/** [start, count] pieces of `total`, each but the last a multiple of `unit`, none over a grid's reach. */
export function* cut(total: number, unit: number, pieces: number): Generator<[number, number], void, void> {
  const units = Math.ceil(total / unit);
  const unitsEach = Math.max(1, Math.min(GRID_MAX, Math.ceil(units / Math.max(1, pieces))));
  for (let start = 0; start < total; start += unitsEach * unit) {
    yield [start, Math.min(unitsEach * unit, total - start)];
  }
}

/** Workgroups of 64 threads that cover `threads`. */
export function groups(threads: number): number {
  return Math.ceil(threads / THREADS);
}
