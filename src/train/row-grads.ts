import type { DispatchOp } from '../gpu/ops.js';
import type { Bound } from '../kernels/kernels.js';
import { cutBoth, groups, inPieces, type Splitter, THREADS } from '../kernels/launch.js';
import { laneGroups, laneRows } from '../kernels/transformer.js';

// Launches that the loss and the layers' backward pass share.

type Dispatches = Generator<DispatchOp, void, void>;

/** A norm backwards: the gradients of its gain and of its input. */
export interface NormGrad {
  readonly toGain: Bound<'rmsnorm_gain_grad'>;
  readonly toInput: Bound<'rmsnorm_row_grad'>;
}

/** The gain's gradient is cut along the columns, each of which is one long sum; the input's along the rows. */
export function* normGrad(norm: NormGrad, rows: number, hidden: number, split: Splitter): Dispatches {
  const columns = { count: hidden, unit: THREADS, workEach: rows };
  yield* inPieces(norm.toGain, columns, split, (column_start, count) => ({
    params: { rows, hidden, column_start },
    grid: [groups(count), 1, 1],
  }));
  const byRows = { count: rows, unit: laneRows(hidden), workEach: hidden };
  yield* inPieces(norm.toInput, byRows, split, (row_start, count) => ({
    params: { hidden, row_start, row_end: row_start + count },
    grid: [laneGroups(count, hidden), 1, 1],
  }));
}

/** Adds rows up by segments, `rows` of them in all; cut along the segments, then along the columns. */
export function* embedRowsGrad(
  bound: Bound<'embed_rows_grad'>,
  { segments, rows, hidden }: { segments: number; rows: number; hidden: number },
  split: Splitter,
): Dispatches {
  const bySegments = { total: segments, unit: 1 };
  const byColumns = { total: hidden, unit: THREADS };
  const wanted = split.pieces(bound.kernel, rows * hidden);
  for (const [[segment, count], [column, columns]] of cutBoth(bySegments, byColumns, wanted)) {
    yield bound.dispatch(
      { hidden, segment_start: segment, column_start: column },
      [groups(columns), count, 1],
      (rows / segments) * count * columns,
    );
  }
}
