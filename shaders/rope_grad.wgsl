// Gradient of rope_kv_write: turns the query and key columns of dqkv[rows, (heads + 2 · kv_heads) · HEAD_DIM] back by
// their position, in place. Values were not turned. One thread a pair.
//!prelude HEAD_DIM: u32
//!use rows
struct Params {
  heads: u32,
  kv_heads: u32,
  row_start: u32, // first row of this dispatch
}

var<immediate> params: Params;
@group(0) @binding(0) var<storage, read> rows: array<Row>;
@group(0) @binding(1) var<storage, read> angles: array<vec2f>;
@group(0) @binding(2) var<storage, read_write> dqkv: array<f32>;

const HALF = HEAD_DIM / 2u;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u) {
  if (id.x >= (params.heads + params.kv_heads) * HALF) {
    return;
  }
  let row_index = params.row_start + id.y;
  let head = id.x / HALF;
  let pair = id.x % HALF;
  let at = (row_index * (params.heads + 2u * params.kv_heads) + head) * HEAD_DIM + pair;
  let low = dqkv[at];
  let high = dqkv[at + HALF];
  let turn = angles[rows[row_index].position * HALF + pair];
  dqkv[at] = fma(low, turn.x, high * turn.y);
  dqkv[at + HALF] = fma(high, turn.x, -(low * turn.y));
}
