// partials[partial_start + i] = Σ values² over the i-th stretch of values[start … start + count). One thread a stretch.
// First of two passes that give a gradient's global norm; clip_scale adds the partials in order.
struct Params {
  start: u32,
  count: u32,
  stretch: u32,
  partial_start: u32,
}

var<immediate> params: Params;
@group(0) @binding(0) var<storage, read> values: array<f32>;
@group(0) @binding(1) var<storage, read_write> partials: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u) {
  let first = id.x * params.stretch;
  if (first >= params.count) {
    return;
  }
  let end = params.start + min(first + params.stretch, params.count);
  var sum = 0.0;
  for (var i = params.start + first; i < end; i++) {
    sum = fma(values[i], values[i], sum);
  }
  partials[params.partial_start + id.x] = sum;
}
