// x[row] = embedding[token(row)], the token coming from the row table or, for a decode row, from what its slot
// sampled last (FROM_SLOT), so that a token feeds the next step without leaving the device.
//!use rows
struct Params {
  hidden: u32,
  row_start: u32, // first row of this dispatch
}

var<immediate> params: Params;
@group(0) @binding(0) var<storage, read> rows: array<Row>;
@group(0) @binding(1) var<storage, read> slot_tokens: array<u32>;
@group(0) @binding(2) var<storage, read> embedding: array<f32>;
@group(0) @binding(3) var<storage, read_write> x: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u) {
  if (id.x >= params.hidden) {
    return;
  }
  let row_index = params.row_start + id.y;
  let row = rows[row_index];
  var token = row.token;
  if (token == FROM_SLOT) {
    token = slot_tokens[row.slot];
  }
  x[row_index * params.hidden + id.x] = embedding[token * params.hidden + id.x];
}
