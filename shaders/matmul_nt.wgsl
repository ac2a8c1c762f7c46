// y[rows, columns] = x[rows, inner] · w[columns, inner]ᵀ, plus residual[rows, columns] when HAS_RESIDUAL is 1.
// Serves the output head (w is [vocabulary, hidden]) and the gradient of a matmul's input (w is the input-major
// weight read the other way). A thread keeps TILE_ROWS × 4 sums; every sum runs over `inner` in order.
//!prelude TILE_ROWS: u32
struct Params {
  rows: u32,
  inner: u32,
  columns: u32,
  x_start: u32, // first row of x
  y_start: u32, // first row of y and residual
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
  let column0 = group.x * LANES * TILE_COLUMNS + local.x;
  if (row0 >= params.rows || column0 >= params.columns) {
    return;
  }
  var sums: array<vec4f, TILE_ROWS>;
  var x_at: array<u32, TILE_ROWS>;
  for (var r = 0u; r < TILE_ROWS; r++) {
    x_at[r] = (params.x_start + min(row0 + r, params.rows - 1u)) * params.inner;
  }
  let last = params.columns - 1u;
  let w_at = min(vec4u(column0, column0 + LANES, column0 + 2u * LANES, column0 + 3u * LANES), vec4u(last)) *
    params.inner;
  for (var k = 0u; k < params.inner; k++) {
    let weights = vec4f(w[w_at.x + k], w[w_at.y + k], w[w_at.z + k], w[w_at.w + k]);
    for (var r = 0u; r < TILE_ROWS; r++) {
      sums[r] = fma(vec4f(x[x_at[r] + k]), weights, sums[r]);
    }
  }
  for (var r = 0u; r < TILE_ROWS; r++) {
    let row = row0 + r;
    if (row >= params.rows) {
      break;
    }
    for (var c = 0u; c < TILE_COLUMNS; c++) {
      let column = column0 + c * LANES;
      if (column < params.columns) {
        let at = (params.y_start + row) * params.columns + column;
        if (HAS_RESIDUAL == 1u) {
          y[at] = residual[at] + sums[r][c];
        } else {
          y[at] = sums[r][c];
        }
      }
    }
  }
}
