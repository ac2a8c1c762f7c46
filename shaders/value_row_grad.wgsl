// Gradient of value_row with respect to its input: dx[row, i] = slopes[row] · w[i].
struct Params {
  hidden: u32,
  row_start: u32, // first row of this dispatch
}

var<immediate> params: Params;
@group(0) @binding(0) var<storage, read> slopes: array<f32>;
@group(0) @binding(1) var<storage, read> w: array<f32>;
@group(0) @binding(2) var<storage, read_write> dx: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u) {
  if (id.x >= params.hidden) {
    return;
  }
  let row = params.row_start + id.y;
  dx[row * params.hidden + id.x] = slopes[row] * w[id.x];
}
