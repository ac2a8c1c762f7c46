// y[inner, columns] += x[rows, inner]ᵀ · g[rows, columns]: the gradient of a weight, added to what is there.
// A thread keeps TILE_ROWS × 4 sums (TILE_ROWS along `inner`); every sum runs over the rows in order.
//!prelude TILE_ROWS: u32
struct Params {
  rows: u32,
  inner: u32,
  columns: u32,
  x_start: u32,     // first row of x
  g_start: u32,     // first row of g
  inner_start: u32, // the part of y that this dispatch makes
  inner_end: u32,
  column_start: u32,
  column_end: u32,
}

const LANES = 16u;
const GROUPS = 4u;
const TILE_COLUMNS = 4u;

var<immediate> params: Params;
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> g: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(LANES, GROUPS)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_id) local: vec3u) {
  let inner0 = params.inner_start + (group.y * GROUPS + local.y) * TILE_ROWS;
  let column0 = params.column_start + group.x * LANES * TILE_COLUMNS + local.x;
  if (inner0 >= params.inner_end || column0 >= params.column_end) {
    return;
  }
  var sums: array<vec4f, TILE_ROWS>;
  let last = params.columns - 1u;
  var g_at = min(vec4u(column0, column0 + LANES, column0 + 2u * LANES, column0 + 3u * LANES), vec4u(last)) +
    params.g_start * params.columns;
  for (var row = 0u; row < params.rows; row++) {
    let gradients = vec4f(g[g_at.x], g[g_at.y], g[g_at.z], g[g_at.w]);
    g_at += vec4u(params.columns);
    for (var r = 0u; r < TILE_ROWS; r++) {
      let source = min(inner0 + r, params.inner - 1u);
      sums[r] = fma(vec4f(x[(params.x_start + row) * params.inner + source]), gradients, sums[r]);
    }
  }
  for (var r = 0u; r < TILE_ROWS; r++) {
    let to = inner0 + r;
    if (to >= params.inner_end) {
      break;
    }
    for (var c = 0u; c < TILE_COLUMNS; c++) {
      let column = column0 + c * LANES;
      if (column < params.column_end) {
        y[to * params.columns + column] += sums[r][c];
      }
    }
  }
}
