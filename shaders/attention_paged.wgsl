// Causal attention over the paged cache, prefill and decode alike: out[row, head] = softmax(q·K / √HEAD_DIM)·V over
// positions 0 … position(row). One thread a (row, head), keys in order with a running maximum (Milakov and
// Gimelshein, "Online normalizer calculation for softmax", 2018), so a row's result depends on its own past alone.
// A dispatch may stop half-way through the keys: the sums wait in `out`, and softmax[row, head] = (largest score,
// Σ exp(score − largest)) over the keys so far. The backward pass reads it too.
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
@group(0) @binding(5) var<storage, read_write> out: array<f32>;
@group(0) @binding(6) var<storage, read_write> softmax: array<vec2f>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u) {
  let item = params.row_start * params.heads + id.x;
  if (item >= params.row_end * params.heads) {
    return;
  }
  let row = rows[item / params.heads];
  if (params.key_start > row.position) {
    return;
  }
  let head = item % params.heads;
  let kv_head = head / (params.heads / params.kv_heads);
  let q_at = item * HEAD_DIM;
  var query: array<f32, HEAD_DIM>;
  var sums: array<f32, HEAD_DIM>;
  for (var i = 0u; i < HEAD_DIM; i++) {
    query[i] = q[q_at + i] * params.scale;
  }
  var largest = -3.0e38;
  var total = 0.0;
  if (params.key_start > 0u) {
    largest = softmax[item].x;
    total = softmax[item].y;
    for (var i = 0u; i < HEAD_DIM; i++) {
      sums[i] = out[q_at + i];
    }
  }
  let end = min(row.position + 1u, params.key_end);
  let table_at = row.slot * params.blocks_per_slot;
  for (var position = params.key_start; position < end; position++) {
    let entry = block_table[table_at + position / BLOCK] * BLOCK + position % BLOCK;
    let at = (entry * params.kv_heads + kv_head) * HEAD_DIM;
    var score = 0.0;
    for (var i = 0u; i < HEAD_DIM; i++) {
      score = fma(query[i], k_cache[at + i], score);
    }
    let new_largest = max(largest, score);
    let shrink = exp(largest - new_largest);
    let weight = exp(score - new_largest);
    largest = new_largest;
    total = fma(total, shrink, weight);
    for (var i = 0u; i < HEAD_DIM; i++) {
      sums[i] = fma(sums[i], shrink, weight * v_cache[at + i]);
    }
  }
  softmax[item] = vec2f(largest, total);
  let is_done = end > row.position;
  for (var i = 0u; i < HEAD_DIM; i++) {
    if (is_done) {
      sums[i] /= total;
    }
    out[q_at + i] = sums[i];
  }
}
