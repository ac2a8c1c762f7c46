// Gradient of rmsnorm_row with respect to its input, added to what already flows past the norm:
// out[row] = passing[row] + s · (g − x̂ · mean(g · x̂)) with g = dy · gain, x̂ = x · s, s = scale[row].
//!prelude LANES: u32
//!use lanes
struct Params {
  hidden: u32,
  row_start: u32, // the rows of this dispatch: row_start … row_end
  row_end: u32,
}

override HAS_PASSING: u32 = 1u;

var<immediate> params: Params;
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> gain: array<f32>;
@group(0) @binding(2) var<storage, read> scale: array<f32>;
@group(0) @binding(3) var<storage, read> dy: array<f32>;
@group(0) @binding(4) var<storage, read> passing: array<f32>;
@group(0) @binding(5) var<storage, read_write> dx: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
  let wanted = params.row_start + group.x * ROWS_PER_GROUP + thread / LANES;
  let row = min(wanted, params.row_end - 1u);
  let at = row * params.hidden;
  let factor = scale[row];
  var sum = 0.0;
  for (var i = thread % LANES; i < params.hidden; i += LANES) {
    sum = fma(dy[at + i] * gain[i], x[at + i] * factor, sum);
  }
  let mean = lanes_sum(sum, thread) / f32(params.hidden);
  if (wanted >= params.row_end) {
    return;
  }
  for (var i = thread % LANES; i < params.hidden; i += LANES) {
    let through = factor * (dy[at + i] * gain[i] - x[at + i] * factor * mean);
    if (HAS_PASSING == 1u) {
      dx[at + i] = passing[at + i] + through;
    } else {
      dx[at + i] = through;
    }
  }
}
