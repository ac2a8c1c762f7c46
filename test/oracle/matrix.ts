import { assert } from '#src/lib/assert.js';

/**
 * A row-major float64 matrix whose every access is checked: an oracle that reads past a row would agree with a
 * kernel that does the same.
 */
export class Matrix {
  constructor(
    readonly rows: number,
    readonly columns: number,
    readonly data: Float64Array = new Float64Array(rows * columns),
  ) {
    assert(data.length === rows * columns, `${data.length} elements for a ${rows}×${columns} matrix`);
  }

  /** A copy of the values, widened to float64. */
  static from(rows: number, columns: number, values: ArrayLike<number>): Matrix {
    return new Matrix(rows, columns, Float64Array.from(values));
  }

  at(row: number, column: number): number {
    const value = this.data[row * this.columns + column];
    if (value === undefined || column < 0 || column >= this.columns) throw this.#outside(row, column);
    return value;
  }

  set(row: number, column: number, value: number): void {
    if (row < 0 || row >= this.rows || column < 0 || column >= this.columns) throw this.#outside(row, column);
    this.data[row * this.columns + column] = value;
  }

  /** Adds `value` to one element: what gradients do. */
  add(row: number, column: number, value: number): void {
    this.set(row, column, this.at(row, column) + value);
  }

  /** One row, sharing the matrix's memory. */
  row(row: number): Float64Array {
    if (row < 0 || row >= this.rows) throw this.#outside(row, 0);
    return this.data.subarray(row * this.columns, (row + 1) * this.columns);
  }

  #outside(row: number, column: number): Error {
    return new Error(
      `assertion failed: element (${row}, ${column}) of a ${this.rows}×${this.columns} matrix`,
    );
  }
}

/** The element-wise sum of two matrices of one shape. */
export function sum(a: Matrix, b: Matrix): Matrix {
  assert(
    a.rows === b.rows && a.columns === b.columns,
    `sum: ${a.rows}×${a.columns} and ${b.rows}×${b.columns}`,
  );
  const out = new Matrix(a.rows, a.columns);
  for (let row = 0; row < a.rows; row++) {
    for (let column = 0; column < a.columns; column++)
      out.set(row, column, a.at(row, column) + b.at(row, column));
  }
  return out;
}

/** A copy of `count` columns from `start` on. */
export function sliceColumns(matrix: Matrix, start: number, count: number): Matrix {
  const out = new Matrix(matrix.rows, count);
  for (let row = 0; row < matrix.rows; row++) {
    for (let column = 0; column < count; column++) out.set(row, column, matrix.at(row, start + column));
  }
  return out;
}

/** Matrices of equal height side by side. */
export function joinColumns(parts: readonly Matrix[]): Matrix {
  const rows = parts[0]?.rows ?? 0;
  const out = new Matrix(
    rows,
    parts.reduce((columns, part) => columns + part.columns, 0),
  );
  let start = 0;
  for (const part of parts) {
    for (let row = 0; row < rows; row++) {
      for (let column = 0; column < part.columns; column++)
        out.set(row, start + column, part.at(row, column));
    }
    start += part.columns;
  }
  return out;
}

/** `below` under `above`, both of one width. */
export function stackRows(above: Matrix, below: Matrix): Matrix {
  const out = new Matrix(above.rows + below.rows, above.columns);
  out.data.set(above.data);
  out.data.set(below.data, above.data.length);
  return out;
}
