// Gradient of silu_gate: from dy[rows, inner] to d_gate_up[rows, 2 · inner], gate and up side by side.
struct Params {
  inner: u32,
  row_start: u32, // first row of this dispatch
}

var<immediate> params: Params;
@group(0) @binding(0) var<storage, read> gate_up: array<f32>;
@group(0) @binding(1) var<storage, read> dy: array<f32>;
@group(0) @binding(2) var<storage, read_write> d_gate_up: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u) {
  if (id.x >= params.inner) {
    return;
  }
  let row = params.row_start + id.y;
  let at = row * 2u * params.inner + id.x;
  let gate = gate_up[at];
  let up = gate_up[at + params.inner];
  let flow = dy[row * params.inner + id.x];
  let sigmoid = 1.0 / (1.0 + exp(-gate));
  d_gate_up[at] = flow * up * sigmoid * (1.0 + gate * (1.0 - sigmoid));
  d_gate_up[at + params.inner] = flow * gate * sigmoid;
}
