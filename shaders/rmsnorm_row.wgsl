// y[row] = x[from(row)] / sqrt(mean(x²) + eps) · gain, and scale[row] = 1 / sqrt(…) for the backward pass.
// With GATHER 1 row i of the output is row row_index[i] of the input: only rows that need logits go on.
//!prelude LANES: u32
//!use lanes
struct Params {
  hidden: u32,
  eps: f32,
  row_start: u32, // the rows of this dispatch: row_start … row_end
  row_end: u32,
}

override GATHER: u32 = 0u;

var<immediate> params: Params;
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> gain: array<f32>;
@group(0) @binding(2) var<storage, read> row_index: array<u32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;
@group(0) @binding(4) var<storage, read_write> scale: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
  let wanted = params.row_start + group.x * ROWS_PER_GROUP + thread / LANES;
  let row = min(wanted, params.row_end - 1u);
  let lane = thread % LANES;
  var source = row;
  if (GATHER == 1u) {
    source = row_index[row];
  }
  let x_at = source * params.hidden;
  var sum = 0.0;
  for (var i = lane; i < params.hidden; i += LANES) {
    let value = x[x_at + i];
    sum = fma(value, value, sum);
  }
  let factor = 1.0 / sqrt(lanes_sum(sum, thread) / f32(params.hidden) + params.eps);
  if (wanted >= params.row_end) {
    return;
  }
  for (var i = lane; i < params.hidden; i += LANES) {
    y[row * params.hidden + i] = x[x_at + i] * factor * gain[i];
  }
  if (lane == 0u) {
    scale[row] = factor;
  }
}
