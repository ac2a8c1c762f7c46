// First step of attention's backward pass: levels[row, head] = (logsumexp, dout · out), the two numbers a (row,
// head) needs to rebuild its attention weights and their gradients (Dao et al., "FlashAttention", 2022). `softmax` is
// what attention_paged left.
// One thread a (row, head).
//!prelude HEAD_DIM: u32
struct Params {
  heads: u32,
  row_start: u32, // the rows of this dispatch: row_start … row_end
  row_end: u32,
}

var<immediate> params: Params;
@group(0) @binding(0) var<storage, read> out: array<f32>;
@group(0) @binding(1) var<storage, read> softmax: array<vec2f>;
@group(0) @binding(2) var<storage, read> dout: array<f32>;
@group(0) @binding(3) var<storage, read_write> levels: array<vec2f>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u) {
  let item = params.row_start * params.heads + id.x;
  if (item >= params.row_end * params.heads) {
    return;
  }
  let at = item * HEAD_DIM;
  var dot = 0.0;
  for (var i = 0u; i < HEAD_DIM; i++) {
    dot = fma(dout[at + i], out[at + i], dot);
  }
  levels[item] = vec2f(softmax[item].x + log(softmax[item].y), dot);
}
