// Gradient of attention with respect to the rotated queries, with weights rebuilt from levels = (logsumexp, D):
// dq = scale · Σ_j p_j (dout·v_j − D) k_j. It goes to the query columns of dqkv[rows, (heads + 2 · kv_heads) ·
// HEAD_DIM]. One thread a (row, head), keys in order; a dispatch may stop half-way through them, the sums wait in dqkv.
//!prelude HEAD_DIM: u32
//!use rows
struct Params {
  heads: u32,
  kv_heads: u32,
  blocks_per_slot: u32,
  scale: f32,
  row_start: u32, // the rows of this dispatch: row_start … row_end
  row_end: u32,
  key_start: u32, // and their keys: positions key_start … key_end
  key_end: u32,
}

var<immediate> params: Params;
@group(0) @binding(0) var<storage, read> rows: array<Row>;
@group(0) @binding(1) var<storage, read> block_table: array<u32>;
@group(0) @binding(2) var<storage, read> q: array<f32>;
@group(0) @binding(3) var<storage, read> k_cache: array<f32>;
@group(0) @binding(4) var<storage, read> v_cache: array<f32>;
@group(0) @binding(5) var<storage, read> levels: array<vec2f>;
@group(0) @binding(6) var<storage, read> dout: array<f32>;
@group(0) @binding(7) var<storage, read_write> dqkv: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u) {
  let item = params.row_start * params.heads + id.x;
  if (item >= params.row_end * params.heads) {
    return;
  }
  let row_index = item / params.heads;
  let head = item % params.heads;
  let row = rows[row_index];
  if (params.key_start > row.position) {
    return;
  }
  let kv_head = head / (params.heads / params.kv_heads);
  let q_at = item * HEAD_DIM;
  var query: array<f32, HEAD_DIM>;
  var flow: array<f32, HEAD_DIM>;
  var sums: array<f32, HEAD_DIM>;
  for (var i = 0u; i < HEAD_DIM; i++) {
    query[i] = q[q_at + i] * params.scale;
    flow[i] = dout[q_at + i];
  }
  let to = (row_index * (params.heads + 2u * params.kv_heads) + head) * HEAD_DIM;
  if (params.key_start > 0u) {
    for (var i = 0u; i < HEAD_DIM; i++) {
      sums[i] = dqkv[to + i];
    }
  }
  let level = levels[item];
  let table_at = row.slot * params.blocks_per_slot;
  let end = min(row.position + 1u, params.key_end);
  for (var position = params.key_start; position < end; position++) {
    let entry = block_table[table_at + position / BLOCK] * BLOCK + position % BLOCK;
    let at = (entry * params.kv_heads + kv_head) * HEAD_DIM;
    var score = 0.0;
    var gain = 0.0;
    for (var i = 0u; i < HEAD_DIM; i++) {
      score = fma(query[i], k_cache[at + i], score);
      gain = fma(flow[i], v_cache[at + i], gain);
    }
    let slope = exp(score - level.x) * (gain - level.y) * params.scale;
    for (var i = 0u; i < HEAD_DIM; i++) {
      sums[i] = fma(slope, k_cache[at + i], sums[i]);
    }
  }
  for (var i = 0u; i < HEAD_DIM; i++) {
    dqkv[to + i] = sums[i];
  }
}
