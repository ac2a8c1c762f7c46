// Each row's clipped value loss and its slope d(loss)/d(value), with the clip around the old value as in Schulman et
// al., "Proximal policy optimization algorithms" (2017), for the policy:
//   loss = weight · ½ max((v − R)², (v_clipped − R)²),  v_clipped = clamp(v, old − clip, old + clip)
// Inside the clip range both squares are the same number and only the first is computed: rounding must not take a
// row's gradient away. One thread a row.
struct Params {
  row_start: u32, // the rows of this dispatch: row_start … row_end
  row_end: u32,
  clip: f32,
}

struct ValueRow {
  weight: f32,
  wanted: f32,    // the return R
  old_value: f32,
  unused: f32,
}

struct ValueMetrics {
  loss: f32,
  clipped: f32, // 1 where the clip removed the gradient
}

var<immediate> params: Params;
@group(0) @binding(0) var<storage, read> value_rows: array<ValueRow>;
@group(0) @binding(1) var<storage, read> values: array<f32>;
@group(0) @binding(2) var<storage, read_write> slopes: array<f32>;
@group(0) @binding(3) var<storage, read_write> metrics: array<ValueMetrics>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u) {
  let row = params.row_start + id.x;
  if (row >= params.row_end) {
    return;
  }
  let target_row = value_rows[row];
  let value = values[row];
  var slope = value - target_row.wanted;
  var square = slope * slope;
  var clipped = 0.0;
  let moved = value - target_row.old_value;
  if (abs(moved) > params.clip) {
    let bounded = target_row.old_value + clamp(moved, -params.clip, params.clip) - target_row.wanted;
    if (bounded * bounded > square) {
      square = bounded * bounded;
      slope = 0.0;
      clipped = 1.0;
    }
  }
  slopes[row] = target_row.weight * slope;
  metrics[row] = ValueMetrics(target_row.weight * 0.5 * square, clipped);
}
