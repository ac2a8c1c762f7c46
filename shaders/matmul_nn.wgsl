// y[rows, columns] = x[rows, inner] · w[inner, columns], plus residual[rows, columns] when HAS_RESIDUAL is 1.
// A thread keeps TILE_ROWS × 4 sums in registers; its 4 columns lie LANES apart, so neighbouring threads read
// neighbouring weights, and a value of x is shared by all of them. Every sum runs over `inner` in order with fused
// multiply-adds: a row's result does not depend on how many rows there are. A dispatch may stop half-way through the
// sums; they wait in y, and the next one goes on with the same bits.
//!prelude TILE_ROWS: u32
struct Params {
  rows: u32,
  inner: u32,
  columns: u32,
  x_start: u32,      // first row of x
  y_start: u32,      // first row of y and residual
  column_start: u32, // the columns of this dispatch: column_start … column_end
  column_end: u32,
  inner_start: u32,  // and its part of the sums; what came before stands in y
  inner_end: u32,
}

override HAS_RESIDUAL: u32 = 0u;

const LANES = 16u;
const GROUPS = 4u;
const TILE_COLUMNS = 4u;

var<immediate> params: Params;
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> w: array<f32>;
@group(0) @binding(2) var<storage, read> residual: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(LANES, GROUPS)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_id) local: vec3u) {
  let row0 = (group.y * GROUPS + local.y) * TILE_ROWS;
  let column0 = params.column_start + group.x * LANES * TILE_COLUMNS + local.x;
  if (row0 >= params.rows || column0 >= params.column_end) {
    return;
  }
  var sums: array<vec4f, TILE_ROWS>;
  var x_at: array<u32, TILE_ROWS>;
  for (var r = 0u; r < TILE_ROWS; r++) {
    x_at[r] = (params.x_start + min(row0 + r, params.rows - 1u)) * params.inner;
  }
  let last = params.columns - 1u;
  if (params.inner_start > 0u) {
    for (var r = 0u; r < TILE_ROWS; r++) {
      let y_at = (params.y_start + min(row0 + r, params.rows - 1u)) * params.columns;
      for (var c = 0u; c < TILE_COLUMNS; c++) {
        sums[r][c] = y[y_at + min(column0 + c * LANES, last)];
      }
    }
  }
  var w_at = min(vec4u(column0, column0 + LANES, column0 + 2u * LANES, column0 + 3u * LANES), vec4u(last)) +
    params.inner_start * params.columns;
  for (var k = params.inner_start; k < params.inner_end; k++) {
    let weights = vec4f(w[w_at.x], w[w_at.y], w[w_at.z], w[w_at.w]);
    w_at += vec4u(params.columns);
    for (var r = 0u; r < TILE_ROWS; r++) {
      sums[r] = fma(vec4f(x[x_at[r] + k]), weights, sums[r]);
    }
  }
  let adds_residual = HAS_RESIDUAL == 1u && params.inner_end == params.inner;
  for (var r = 0u; r < TILE_ROWS; r++) {
    let row = row0 + r;
    if (row >= params.rows) {
      break;
    }
    for (var c = 0u; c < TILE_COLUMNS; c++) {
      let column = column0 + c * LANES;
      if (column < params.column_end) {
        let at = (params.y_start + row) * params.columns + column;
        var sum = sums[r][c];
        if (adds_residual) {
          sum += residual[at];
        }
        y[at] = sum;
      }
    }
  }
}
