// Gradients of attention with respect to the rotated keys and the values: for key row j,
// dk_j = scale · Σ_i p_ij (dout_i·v_j − D_i) q_i and dv_j = Σ_i p_ij dout_i over the later rows i of the same
// sequence and the query heads that share the key head, with levels = (logsumexp, D). They go to the key and value
// columns of dqkv[rows, (heads + 2 · kv_heads) · HEAD_DIM]. One thread a (row, key head); rows of a sequence stand
// together and in order, so the sums run in order too. A dispatch may stop half-way through the later rows: the sums
// wait in dqkv.
//!prelude HEAD_DIM: u32
//!use rows
struct Params {
  rows: u32,
  heads: u32,
  kv_heads: u32,
  blocks_per_slot: u32,
  scale: f32,
  row_start: u32, // the rows of this dispatch: row_start … row_end
  row_end: u32,
  later_start: u32, // and the rows after each: those later by later_start … later_end
  later_end: u32,
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
  let item = params.row_start * params.kv_heads + id.x;
  if (item >= params.row_end * params.kv_heads) {
    return;
  }
  let key_row = item / params.kv_heads;
  let kv_head = item % params.kv_heads;
  let row = rows[key_row];
  let first = key_row + params.later_start;
  if (first >= params.rows || rows[first].slot != row.slot) {
    return;
  }
  let entry = block_table[row.slot * params.blocks_per_slot + row.position / BLOCK] * BLOCK + row.position % BLOCK;
  let at = (entry * params.kv_heads + kv_head) * HEAD_DIM;
  var key: array<f32, HEAD_DIM>;
  var value: array<f32, HEAD_DIM>;
  var key_sums: array<f32, HEAD_DIM>;
  var value_sums: array<f32, HEAD_DIM>;
  for (var i = 0u; i < HEAD_DIM; i++) {
    key[i] = k_cache[at + i] * params.scale;
    value[i] = v_cache[at + i];
  }
  let row_at = key_row * (params.heads + 2u * params.kv_heads);
  let key_to = (row_at + params.heads + kv_head) * HEAD_DIM;
  let value_to = key_to + params.kv_heads * HEAD_DIM;
  if (params.later_start > 0u) {
    for (var i = 0u; i < HEAD_DIM; i++) {
      key_sums[i] = dqkv[key_to + i];
      value_sums[i] = dqkv[value_to + i];
    }
  }
  let end = min(params.rows, key_row + params.later_end);
  let shared_by = params.heads / params.kv_heads;
  for (var later = first; later < end && rows[later].slot == row.slot; later++) {
    for (var h = 0u; h < shared_by; h++) {
      let head_row = later * params.heads + kv_head * shared_by + h;
      let q_at = head_row * HEAD_DIM;
      var score = 0.0;
      var gain = 0.0;
      for (var i = 0u; i < HEAD_DIM; i++) {
        score = fma(q[q_at + i], key[i], score);
        gain = fma(dout[q_at + i], value[i], gain);
      }
      let level = levels[head_row];
      let weight = exp(score - level.x);
      let slope = weight * (gain - level.y) * params.scale;
      for (var i = 0u; i < HEAD_DIM; i++) {
        key_sums[i] = fma(slope, q[q_at + i], key_sums[i]);
        value_sums[i] = fma(weight, dout[q_at + i], value_sums[i]);
      }
    }
  }
  for (var i = 0u; i < HEAD_DIM; i++) {
    dqkv[key_to + i] = key_sums[i];
    dqkv[value_to + i] = value_sums[i];
  }
}
