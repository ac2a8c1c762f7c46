// values[row] = x[row] · w + bias, one number a row. LANES threads share a row, so the order of its sum depends on the
// row's length alone.
//!prelude LANES: u32
//!use lanes
struct Params {
  hidden: u32,
  row_start: u32, // the rows of this dispatch: row_start … row_end
  row_end: u32,
}

var<immediate> params: Params;
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> w: array<f32>;
@group(0) @binding(2) var<storage, read> bias: array<f32>;
@group(0) @binding(3) var<storage, read_write> values: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
  let wanted = params.row_start + group.x * ROWS_PER_GROUP + thread / LANES;
  let row = min(wanted, params.row_end - 1u);
  let lane = thread % LANES;
  var sum = 0.0;
  for (var i = lane; i < params.hidden; i += LANES) {
    sum = fma(x[row * params.hidden + i], w[i], sum);
  }
  let total = lanes_sum(sum, thread);
  if (wanted < params.row_end && lane == 0u) {
    values[row] = total + bias[0];
  }
}
