// y[row, i] = silu(gate[row, i]) · up[row, i]; gate and up stand side by side in gate_up[rows, 2 · inner].
struct Params {
  inner: u32,
  row_start: u32, // first row of this dispatch
}

var<immediate> params: Params;
@group(0) @binding(0) var<storage, read> gate_up: array<f32>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u) {
  if (id.x >= params.inner) {
    return;
  }
  let row = params.row_start + id.y;
  let at = row * 2u * params.inner + id.x;
  let gate = gate_up[at];
  y[row * params.inner + id.x] = gate / (1.0 + exp(-gate)) * gate_up[at + params.inner];
}
