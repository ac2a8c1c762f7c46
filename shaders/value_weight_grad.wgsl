// Gradient of value_row with respect to its weight and bias, added to what is there: dw[i] += Σ_row slopes · x[row, i]
// and dbias += Σ_row slopes. One thread a column, rows in order; the column past the last is the bias.
struct Params {
  rows: u32,
  hidden: u32,
  column_start: u32, // first column of this dispatch
}

var<immediate> params: Params;
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> slopes: array<f32>;
@group(0) @binding(2) var<storage, read_write> dw: array<f32>;
@group(0) @binding(3) var<storage, read_write> dbias: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u) {
  let column = params.column_start + id.x;
  if (column > params.hidden) {
    return;
  }
  var sum = 0.0;
  if (column == params.hidden) {
    for (var row = 0u; row < params.rows; row++) {
      sum += slopes[row];
    }
    dbias[0] += sum;
    return;
  }
  for (var row = 0u; row < params.rows; row++) {
    sum = fma(slopes[row], x[row * params.hidden + column], sum);
  }
  dw[column] += sum;
}
