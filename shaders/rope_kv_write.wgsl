// Rotates queries and keys by their position (half-split pairs, as Hugging Face Llama does) and writes keys and
// values into the paged cache. qkv is [rows, (heads + 2 · kv_heads) · HEAD_DIM]; one thread a pair.
// angles[position · HEAD_DIM / 2 + i] is (cos, sin), made on the host in float64.
//!prelude HEAD_DIM: u32
//!use rows
struct Params {
  heads: u32,
  kv_heads: u32,
  blocks_per_slot: u32,
  row_start: u32, // first row of this dispatch
}

var<immediate> params: Params;
@group(0) @binding(0) var<storage, read> rows: array<Row>;
@group(0) @binding(1) var<storage, read> block_table: array<u32>;
@group(0) @binding(2) var<storage, read> angles: array<vec2f>;
@group(0) @binding(3) var<storage, read> qkv: array<f32>;
@group(0) @binding(4) var<storage, read_write> q: array<f32>;
@group(0) @binding(5) var<storage, read_write> k_cache: array<f32>;
@group(0) @binding(6) var<storage, read_write> v_cache: array<f32>;

const HALF = HEAD_DIM / 2u;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u) {
  let all_heads = params.heads + 2u * params.kv_heads;
  if (id.x >= all_heads * HALF) {
    return;
  }
  let row_index = params.row_start + id.y;
  let row = rows[row_index];
  let head = id.x / HALF;
  let pair = id.x % HALF;
  let source = (row_index * all_heads + head) * HEAD_DIM + pair;
  let low = qkv[source];
  let high = qkv[source + HALF];
  let turn = angles[row.position * HALF + pair];
  let rotated_low = fma(low, turn.x, -(high * turn.y));
  let rotated_high = fma(high, turn.x, low * turn.y);
  if (head < params.heads) {
    let to = (row_index * params.heads + head) * HEAD_DIM + pair;
    q[to] = rotated_low;
    q[to + HALF] = rotated_high;
    return;
  }
  let block = block_table[row.slot * params.blocks_per_slot + row.position / BLOCK];
  let entry = block * BLOCK + row.position % BLOCK;
  if (head < params.heads + params.kv_heads) {
    let to = (entry * params.kv_heads + head - params.heads) * HEAD_DIM + pair;
    k_cache[to] = rotated_low;
    k_cache[to + HALF] = rotated_high;
  } else {
    let to = (entry * params.kv_heads + head - params.heads - params.kv_heads) * HEAD_DIM + pair;
    v_cache[to] = low;
    v_cache[to + HALF] = high;
  }
}
