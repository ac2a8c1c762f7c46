// Gradient of embed_rows, added to what is there. The host sorts the rows by token: segment s is token
// segments[s].x with rows row_order[segments[s].y … segments[s].z). One thread a (segment, column), so no two
// threads add to the same element and the order of addition is fixed.
struct Params {
  hidden: u32,
  segment_start: u32, // first segment of this dispatch
  column_start: u32,  // and first column
}

var<immediate> params: Params;
@group(0) @binding(0) var<storage, read> segments: array<vec4u>;
@group(0) @binding(1) var<storage, read> row_order: array<u32>;
@group(0) @binding(2) var<storage, read> dx: array<f32>;
@group(0) @binding(3) var<storage, read_write> dembedding: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u) {
  let column = params.column_start + id.x;
  if (column >= params.hidden) {
    return;
  }
  let segment = segments[params.segment_start + id.y];
  var sum = 0.0;
  for (var i = segment.y; i < segment.z; i++) {
    sum += dx[row_order[i] * params.hidden + column];
  }
  dembedding[segment.x * params.hidden + column] += sum;
}
