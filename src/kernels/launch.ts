import type { BufferSlice, DispatchOp } from '../gpu/ops.js';
import type { Bound, Kernels, Params, ShaderName } from './kernels.js';

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
/** Terms of a matmul's sums that a dispatch adds at the least, unless there are fewer. */
const TERMS_MIN = 256;
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

/** y = x · w (nn) or x · wᵀ (nt), with an optional residual added; cut along rows, then along its sums, then columns. */
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
    const byRows: Axis = { total: rows, unit: ROWS_PER_GROUP };
    const byTerms: Axis = { total: inner, unit: TERMS_MIN };
    const wanted = split.pieces(this.#bound.kernel, rows * inner * columns);
    for (const [[row, rowCount], [term, termCount]] of cutBoth(byRows, byTerms, wanted)) {
      const wantedEach = Math.ceil(wanted / unitsOf(byRows) / unitsOf(byTerms));
      for (const [column, columnCount] of cut(columns, COLUMNS_PER_GROUP, wantedEach)) {
        yield this.#bound.dispatch(
          {
            rows: rowCount,
            inner,
            columns,
            x_start: xStart + row,
            y_start: yStart + row,
            column_start: column,
            column_end: column + columnCount,
            inner_start: term,
            inner_end: term + termCount,
          },
          [Math.ceil(columnCount / COLUMNS_PER_GROUP), Math.ceil(rowCount / ROWS_PER_GROUP), 1],
          rowCount * termCount * columnCount,
        );
      }
    }
  }
}

/** y += xᵀ · g, the gradient of a weight; cut along the weight's rows, then its columns. */
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
    const byRows: Axis = { total: inner, unit: ROWS_PER_GROUP };
    const byColumns: Axis = { total: columns, unit: COLUMNS_PER_GROUP };
    const wanted = split.pieces(this.#bound.kernel, rows * inner * columns);
    for (const [[start, count], [column, columnCount]] of cutBoth(byRows, byColumns, wanted)) {
      yield this.#bound.dispatch(
        {
          rows,
          inner,
          columns,
          x_start: xStart,
          g_start: gStart,
          inner_start: start,
          inner_end: start + count,
          column_start: column,
          column_end: column + columnCount,
        },
        [Math.ceil(columnCount / COLUMNS_PER_GROUP), Math.ceil(count / ROWS_PER_GROUP), 1],
        count * rows * columnCount,
      );
    }
  }
}

/** `count` rows, columns or elements that a launcher may cut between any two units, and the work of one. */
export interface Divisible {
  readonly count: number;
  /** 1 when not given. */
  readonly unit?: number;
  readonly workEach: number;
}

/** What one piece of a kernel's work is launched with. */
export interface Launch<N extends ShaderName> {
  readonly params: Params<N>;
  readonly grid: readonly [number, number, number];
}

/** A kernel in as many dispatches as the splitter wants of it; `piece` says how [start, start + count) is launched. */
export function* inPieces<N extends ShaderName>(
  bound: Bound<N>,
  { count, unit = 1, workEach }: Divisible,
  split: Splitter,
  piece: (start: number, count: number) => Launch<N>,
): Generator<DispatchOp, void, void> {
  for (const [start, length] of cut(count, unit, split.pieces(bound.kernel, count * workEach))) {
    const { params, grid } = piece(start, length);
    yield bound.dispatch(params, grid, length * workEach);
  }
}

/** One direction in which work can be cut between any two units. */
export interface Axis {
  readonly total: number;
  readonly unit: number;
}

export type Piece = [start: number, count: number];

/** Pieces of both axes; the second is cut only where the first, cut as far as it goes, gives too few. */
export function* cutBoth(first: Axis, second: Axis, pieces: number): Generator<[Piece, Piece], void, void> {
  for (const outer of cut(first.total, first.unit, pieces)) {
    for (const inner of cut(second.total, second.unit, Math.ceil(pieces / unitsOf(first))))
      yield [outer, inner];
  }
}

function unitsOf({ total, unit }: Axis): number {
  return Math.ceil(total / unit);
}

/** [start, count] pieces of `total`, each but the last a multiple of `unit`, none over a grid's reach. */
export function* cut(total: number, unit: number, pieces: number): Generator<Piece, void, void> {
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
