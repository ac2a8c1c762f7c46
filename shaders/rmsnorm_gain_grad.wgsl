// Gradient of rmsnorm_row with respect to its gain, added to what is there: dgain[i] += Σ_row dy · x · scale[row].
// One thread a column, rows in order.
struct Params {
  rows: u32,
  hidden: u32,
  column_start: u32, // first column of this dispatch
}

var<immediate> params: Params;
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> scale: array<f32>;
@group(0) @binding(2) var<storage, read> dy: array<f32>;
@group(0) @binding(3) var<storage, read_write> dgain: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u) {
  let column = params.column_start + id.x;
  if (column >= params.hidden) {
    return;
  }
  var sum = 0.0;
  for (var row = 0u; row < params.rows; row++) {
    let at = row * params.hidden + column;
    sum = fma(dy[at], x[at] * scale[row], sum);
  }
  dgain[column] += sum;
}
