// From the partial sums of squares to result = (global norm, factor), factor = min(1, norm_max / (norm + 1e-6)).
// One thread: the partials are few and their order is the point.
struct Params {
  count: u32,
  norm_max: f32,
}

var<immediate> params: Params;
@group(0) @binding(0) var<storage, read> partials: array<f32>;
@group(0) @binding(1) var<storage, read_write> result: array<f32>;

@compute @workgroup_size(1)
fn main() {
  var sum = 0.0;
  for (var i = 0u; i < params.count; i++) {
    sum += partials[i];
  }
  let norm = sqrt(sum);
  result[0] = norm;
  result[1] = min(1.0, params.norm_max / (norm + 1.0e-6));
}
