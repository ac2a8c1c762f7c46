// Written by scripts/generate-shaders.mjs from shaders/*.wgsl. Do not edit.

export const shaders = {
  adamw_update: {
    "source": "// AdamW with decoupled weight decay (Loshchilov and Hutter, 2019), moments in float32, over a stretch of a flat\n// bucket. The gradient is scaled by the global-norm clip factor on the way in. A gradient norm that is not finite\n// leaves parameters and moments as they are: the step is skipped, and the host sees the norm.\n// correction1 = 1 − beta1^t and correction2 = 1 − beta2^t come from the host in float64.\nstruct Params {\n  start: u32,\n  count: u32,\n  learning_rate: f32,\n  beta1: f32,\n  beta2: f32,\n  epsilon: f32,\n  weight_decay: f32,\n  correction1: f32,\n  correction2: f32,\n  one_minus_beta1: f32,\n  one_minus_beta2: f32,\n}\n\nvar<immediate> params: Params;\n@group(0) @binding(0) var<storage, read> gradients: array<f32>;\n@group(0) @binding(1) var<storage, read> clip: array<f32>;\n@group(0) @binding(2) var<storage, read_write> weights: array<f32>;\n@group(0) @binding(3) var<storage, read_write> moment1: array<f32>;\n@group(0) @binding(4) var<storage, read_write> moment2: array<f32>;\n\nconst EXPONENT_BITS = 0x7f800000u; // all of them set: infinite or not a number\n\n@compute @workgroup_size(64)\nfn main(@builtin(global_invocation_id) id: vec3u) {\n  if (id.x >= params.count || (bitcast<u32>(clip[0]) & EXPONENT_BITS) == EXPONENT_BITS) {\n    return;\n  }\n  let i = params.start + id.x;\n  let gradient = gradients[i] * clip[1];\n  let m = fma(params.beta1, moment1[i], params.one_minus_beta1 * gradient);\n  let v = fma(params.beta2, moment2[i], params.one_minus_beta2 * gradient * gradient);\n  moment1[i] = m;\n  moment2[i] = v;\n  let step = m / params.correction1 / (sqrt(v / params.correction2) + params.epsilon);\n  weights[i] -= params.learning_rate * fma(params.weight_decay, weights[i], step);\n}\n",
    "bindings": [
      {
        "name": "gradients",
        "access": "read"
      },
      {
        "name": "clip",
        "access": "read"
      },
      {
        "name": "weights",
        "access": "read_write"
      },
      {
        "name": "moment1",
        "access": "read_write"
      },
      {
        "name": "moment2",
        "access": "read_write"
      }
    ],
    "params": [
      {
        "name": "start",
        "type": "u32"
      },
      {
        "name": "count",
        "type": "u32"
      },
      {
        "name": "learning_rate",
        "type": "f32"
      },
      {
        "name": "beta1",
        "type": "f32"
      },
      {
        "name": "beta2",
        "type": "f32"
      },
      {
        "name": "epsilon",
        "type": "f32"
      },
      {
        "name": "weight_decay",
        "type": "f32"
      },
      {
        "name": "correction1",
        "type": "f32"
      },
      {
        "name": "correction2",
        "type": "f32"
      },
      {
        "name": "one_minus_beta1",
        "type": "f32"
      },
      {
        "name": "one_minus_beta2",
        "type": "f32"
      }
    ],
    "overrides": [],
    "preludes": []
  },
  attention_grad_dot: {
    "source": "// First step of attention's backward pass: levels[row, head] = (logsumexp, dout · out), the two numbers a (row,\n// head) needs to rebuild its attention weights and their gradients (Dao et al., \"FlashAttention\", 2022). `softmax` is\n// what attention_paged left.\n// One thread a (row, head).\n//!prelude HEAD_DIM: u32\nstruct Params {\n  heads: u32,\n  row_start: u32, // the rows of this dispatch: row_start … row_end\n  row_end: u32,\n}\n\nvar<immediate> params: Params;\n@group(0) @binding(0) var<storage, read> out: array<f32>;\n@group(0) @binding(1) var<storage, read> softmax: array<vec2f>;\n@group(0) @binding(2) var<storage, read> dout: array<f32>;\n@group(0) @binding(3) var<storage, read_write> levels: array<vec2f>;\n\n@compute @workgroup_size(64)\nfn main(@builtin(global_invocation_id) id: vec3u) {\n  let item = params.row_start * params.heads + id.x;\n  if (item >= params.row_end * params.heads) {\n    return;\n  }\n  let at = item * HEAD_DIM;\n  var dot = 0.0;\n  for (var i = 0u; i < HEAD_DIM; i++) {\n    dot = fma(dout[at + i], out[at + i], dot);\n  }\n  levels[item] = vec2f(softmax[item].x + log(softmax[item].y), dot);\n}\n",
    "bindings": [
      {
        "name": "out",
        "access": "read"
      },
      {
        "name": "softmax",
        "access": "read"
      },
      {
        "name": "dout",
        "access": "read"
      },
      {
        "name": "levels",
        "access": "read_write"
      }
    ],
    "params": [
      {
        "name": "heads",
        "type": "u32"
      },
      {
        "name": "row_start",
        "type": "u32"
      },
      {
        "name": "row_end",
        "type": "u32"
      }
    ],
    "overrides": [],
    "preludes": [
      {
        "name": "HEAD_DIM",
        "type": "u32"
      }
    ]
  },
  attention_grad_kv: {
    "source": "// One token of a ragged batch. `slot` finds the sequence's block table and sampling parameters.\nstruct Row {\n  slot: u32,\n  position: u32,\n  token: u32,\n  unused: u32,\n}\n\nconst FROM_SLOT = 0xffffffffu;\nconst NONE = 0xffffffffu;\nconst BLOCK = 16u;\n\n// Gradients of attention with respect to the rotated keys and the values: for key row j,\n// dk_j = scale · Σ_i p_ij (dout_i·v_j − D_i) q_i and dv_j = Σ_i p_ij dout_i over the later rows i of the same\n// sequence and the query heads that share the key head, with levels = (logsumexp, D). They go to the key and value\n// columns of dqkv[rows, (heads + 2 · kv_heads) · HEAD_DIM]. One thread a (row, key head); rows of a sequence stand\n// together and in order, so the sums run in order too. A dispatch may stop half-way through the later rows: the sums\n// wait in dqkv.\n//!prelude HEAD_DIM: u32\n//!use rows\nstruct Params {\n  rows: u32,\n  heads: u32,\n  kv_heads: u32,\n  blocks_per_slot: u32,\n  scale: f32,\n  row_start: u32, // the rows of this dispatch: row_start … row_end\n  row_end: u32,\n  later_start: u32, // and the rows after each: those later by later_start … later_end\n  later_end: u32,\n}\n\nvar<immediate> params: Params;\n@group(0) @binding(0) var<storage, read> rows: array<Row>;\n@group(0) @binding(1) var<storage, read> block_table: array<u32>;\n@group(0) @binding(2) var<storage, read> q: array<f32>;\n@group(0) @binding(3) var<storage, read> k_cache: array<f32>;\n@group(0) @binding(4) var<storage, read> v_cache: array<f32>;\n@group(0) @binding(5) var<storage, read> levels: array<vec2f>;\n@group(0) @binding(6) var<storage, read> dout: array<f32>;\n@group(0) @binding(7) var<storage, read_write> dqkv: array<f32>;\n\n@compute @workgroup_size(64)\nfn main(@builtin(global_invocation_id) id: vec3u) {\n  let item = params.row_start * params.kv_heads + id.x;\n  if (item >= params.row_end * params.kv_heads) {\n    return;\n  }\n  let key_row = item / params.kv_heads;\n  let kv_head = item % params.kv_heads;\n  let row = rows[key_row];\n  let first = key_row + params.later_start;\n  if (first >= params.rows || rows[first].slot != row.slot) {\n    return;\n  }\n  let entry = block_table[row.slot * params.blocks_per_slot + row.position / BLOCK] * BLOCK + row.position % BLOCK;\n  let at = (entry * params.kv_heads + kv_head) * HEAD_DIM;\n  var key: array<f32, HEAD_DIM>;\n  var value: array<f32, HEAD_DIM>;\n  var key_sums: array<f32, HEAD_DIM>;\n  var value_sums: array<f32, HEAD_DIM>;\n  for (var i = 0u; i < HEAD_DIM; i++) {\n    key[i] = k_cache[at + i] * params.scale;\n    value[i] = v_cache[at + i];\n  }\n  let row_at = key_row * (params.heads + 2u * params.kv_heads);\n  let key_to = (row_at + params.heads + kv_head) * HEAD_DIM;\n  let value_to = key_to + params.kv_heads * HEAD_DIM;\n  if (params.later_start > 0u) {\n    for (var i = 0u; i < HEAD_DIM; i++) {\n      key_sums[i] = dqkv[key_to + i];\n      value_sums[i] = dqkv[value_to + i];\n    }\n  }\n  let end = min(params.rows, key_row + params.later_end);\n  let shared_by = params.heads / params.kv_heads;\n  for (var later = first; later < end && rows[later].slot == row.slot; later++) {\n    for (var h = 0u; h < shared_by; h++) {\n      let head_row = later * params.heads + kv_head * shared_by + h;\n      let q_at = head_row * HEAD_DIM;\n      var score = 0.0;\n      var gain = 0.0;\n      for (var i = 0u; i < HEAD_DIM; i++) {\n        score = fma(q[q_at + i], key[i], score);\n        gain = fma(dout[q_at + i], value[i], gain);\n      }\n      let level = levels[head_row];\n      let weight = exp(score - level.x);\n      let slope = weight * (gain - level.y) * params.scale;\n      for (var i = 0u; i < HEAD_DIM; i++) {\n        key_sums[i] = fma(slope, q[q_at + i], key_sums[i]);\n        value_sums[i] = fma(weight, dout[q_at + i], value_sums[i]);\n      }\n    }\n  }\n  for (var i = 0u; i < HEAD_DIM; i++) {\n    dqkv[key_to + i] = key_sums[i];\n    dqkv[value_to + i] = value_sums[i];\n  }\n}\n",
    "bindings": [
      {
        "name": "rows",
        "access": "read"
      },
      {
        "name": "block_table",
        "access": "read"
      },
      {
        "name": "q",
        "access": "read"
      },
      {
        "name": "k_cache",
        "access": "read"
      },
      {
        "name": "v_cache",
        "access": "read"
      },
      {
        "name": "levels",
        "access": "read"
      },
      {
        "name": "dout",
        "access": "read"
      },
      {
        "name": "dqkv",
        "access": "read_write"
      }
    ],
    "params": [
      {
        "name": "rows",
        "type": "u32"
      },
      {
        "name": "heads",
        "type": "u32"
      },
      {
        "name": "kv_heads",
        "type": "u32"
      },
      {
        "name": "blocks_per_slot",
        "type": "u32"
      },
      {
        "name": "scale",
        "type": "f32"
      },
      {
        "name": "row_start",
        "type": "u32"
      },
      {
        "name": "row_end",
        "type": "u32"
      },
      {
        "name": "later_start",
        "type": "u32"
      },
      {
        "name": "later_end",
        "type": "u32"
      }
    ],
    "overrides": [],
    "preludes": [
      {
        "name": "HEAD_DIM",
        "type": "u32"
      }
    ]
  },
  attention_grad_q: {
    "source": "// One token of a ragged batch. `slot` finds the sequence's block table and sampling parameters.\nstruct Row {\n  slot: u32,\n  position: u32,\n  token: u32,\n  unused: u32,\n}\n\nconst FROM_SLOT = 0xffffffffu;\nconst NONE = 0xffffffffu;\nconst BLOCK = 16u;\n\n// Gradient of attention with respect to the rotated queries, with weights rebuilt from levels = (logsumexp, D):\n// dq = scale · Σ_j p_j (dout·v_j − D) k_j. It goes to the query columns of dqkv[rows, (heads + 2 · kv_heads) ·\n// HEAD_DIM]. One thread a (row, head), keys in order; a dispatch may stop half-way through them, the sums wait in dqkv.\n//!prelude HEAD_DIM: u32\n//!use rows\nstruct Params {\n  heads: u32,\n  kv_heads: u32,\n  blocks_per_slot: u32,\n  scale: f32,\n  row_start: u32, // the rows of this dispatch: row_start … row_end\n  row_end: u32,\n  key_start: u32, // and their keys: positions key_start … key_end\n  key_end: u32,\n}\n\nvar<immediate> params: Params;\n@group(0) @binding(0) var<storage, read> rows: array<Row>;\n@group(0) @binding(1) var<storage, read> block_table: array<u32>;\n@group(0) @binding(2) var<storage, read> q: array<f32>;\n@group(0) @binding(3) var<storage, read> k_cache: array<f32>;\n@group(0) @binding(4) var<storage, read> v_cache: array<f32>;\n@group(0) @binding(5) var<storage, read> levels: array<vec2f>;\n@group(0) @binding(6) var<storage, read> dout: array<f32>;\n@group(0) @binding(7) var<storage, read_write> dqkv: array<f32>;\n\n@compute @workgroup_size(64)\nfn main(@builtin(global_invocation_id) id: vec3u) {\n  let item = params.row_start * params.heads + id.x;\n  if (item >= params.row_end * params.heads) {\n    return;\n  }\n  let row_index = item / params.heads;\n  let head = item % params.heads;\n  let row = rows[row_index];\n  if (params.key_start > row.position) {\n    return;\n  }\n  let kv_head = head / (params.heads / params.kv_heads);\n  let q_at = item * HEAD_DIM;\n  var query: array<f32, HEAD_DIM>;\n  var flow: array<f32, HEAD_DIM>;\n  var sums: array<f32, HEAD_DIM>;\n  for (var i = 0u; i < HEAD_DIM; i++) {\n    query[i] = q[q_at + i] * params.scale;\n    flow[i] = dout[q_at + i];\n  }\n  let to = (row_index * (params.heads + 2u * params.kv_heads) + head) * HEAD_DIM;\n  if (params.key_start > 0u) {\n    for (var i = 0u; i < HEAD_DIM; i++) {\n      sums[i] = dqkv[to + i];\n    }\n  }\n  let level = levels[item];\n  let table_at = row.slot * params.blocks_per_slot;\n  let end = min(row.position + 1u, params.key_end);\n  for (var position = params.key_start; position < end; position++) {\n    let entry = block_table[table_at + position / BLOCK] * BLOCK + position % BLOCK;\n    let at = (entry * params.kv_heads + kv_head) * HEAD_DIM;\n    var score = 0.0;\n    var gain = 0.0;\n    for (var i = 0u; i < HEAD_DIM; i++) {\n      score = fma(query[i], k_cache[at + i], score);\n      gain = fma(flow[i], v_cache[at + i], gain);\n    }\n    let slope = exp(score - level.x) * (gain - level.y) * params.scale;\n    for (var i = 0u; i < HEAD_DIM; i++) {\n      sums[i] = fma(slope, k_cache[at + i], sums[i]);\n    }\n  }\n  for (var i = 0u; i < HEAD_DIM; i++) {\n    dqkv[to + i] = sums[i];\n  }\n}\n",
    "bindings": [
      {
        "name": "rows",
        "access": "read"
      },
      {
        "name": "block_table",
        "access": "read"
      },
      {
        "name": "q",
        "access": "read"
      },
      {
        "name": "k_cache",
        "access": "read"
      },
      {
        "name": "v_cache",
        "access": "read"
      },
      {
        "name": "levels",
        "access": "read"
      },
      {
        "name": "dout",
        "access": "read"
      },
      {
        "name": "dqkv",
        "access": "read_write"
      }
    ],
    "params": [
      {
        "name": "heads",
        "type": "u32"
      },
      {
        "name": "kv_heads",
        "type": "u32"
      },
      {
        "name": "blocks_per_slot",
        "type": "u32"
      },
      {
        "name": "scale",
        "type": "f32"
      },
      {
        "name": "row_start",
        "type": "u32"
      },
      {
        "name": "row_end",
        "type": "u32"
      },
      {
        "name": "key_start",
        "type": "u32"
      },
      {
        "name": "key_end",
        "type": "u32"
      }
    ],
    "overrides": [],
    "preludes": [
      {
        "name": "HEAD_DIM",
        "type": "u32"
      }
    ]
  },
  attention_paged: {
    "source": "// One token of a ragged batch. `slot` finds the sequence's block table and sampling parameters.\nstruct Row {\n  slot: u32,\n  position: u32,\n  token: u32,\n  unused: u32,\n}\n\nconst FROM_SLOT = 0xffffffffu;\nconst NONE = 0xffffffffu;\nconst BLOCK = 16u;\n\n// Causal attention over the paged cache, prefill and decode alike: out[row, head] = softmax(q·K / √HEAD_DIM)·V over\n// positions 0 … position(row). One thread a (row, head), keys in order with a running maximum (Milakov and\n// Gimelshein, \"Online normalizer calculation for softmax\", 2018), so a row's result depends on its own past alone.\n// A dispatch may stop half-way through the keys: the sums wait in `out`, and softmax[row, head] = (largest score,\n// Σ exp(score − largest)) over the keys so far. The backward pass reads it too.\n//!prelude HEAD_DIM: u32\n//!use rows\nstruct Params {\n  heads: u32,\n  kv_heads: u32,\n  blocks_per_slot: u32,\n  scale: f32,\n  row_start: u32, // the rows of this dispatch: row_start … row_end\n  row_end: u32,\n  key_start: u32, // and their keys: positions key_start … key_end\n  key_end: u32,\n}\n\nvar<immediate> params: Params;\n@group(0) @binding(0) var<storage, read> rows: array<Row>;\n@group(0) @binding(1) var<storage, read> block_table: array<u32>;\n@group(0) @binding(2) var<storage, read> q: array<f32>;\n@group(0) @binding(3) var<storage, read> k_cache: array<f32>;\n@group(0) @binding(4) var<storage, read> v_cache: array<f32>;\n@group(0) @binding(5) var<storage, read_write> out: array<f32>;\n@group(0) @binding(6) var<storage, read_write> softmax: array<vec2f>;\n\n@compute @workgroup_size(64)\nfn main(@builtin(global_invocation_id) id: vec3u) {\n  let item = params.row_start * params.heads + id.x;\n  if (item >= params.row_end * params.heads) {\n    return;\n  }\n  let row = rows[item / params.heads];\n  if (params.key_start > row.position) {\n    return;\n  }\n  let head = item % params.heads;\n  let kv_head = head / (params.heads / params.kv_heads);\n  let q_at = item * HEAD_DIM;\n  var query: array<f32, HEAD_DIM>;\n  var sums: array<f32, HEAD_DIM>;\n  for (var i = 0u; i < HEAD_DIM; i++) {\n    query[i] = q[q_at + i] * params.scale;\n  }\n  var largest = -3.0e38;\n  var total = 0.0;\n  if (params.key_start > 0u) {\n    largest = softmax[item].x;\n    total = softmax[item].y;\n    for (var i = 0u; i < HEAD_DIM; i++) {\n      sums[i] = out[q_at + i];\n    }\n  }\n  let end = min(row.position + 1u, params.key_end);\n  let table_at = row.slot * params.blocks_per_slot;\n  for (var position = params.key_start; position < end; position++) {\n    let entry = block_table[table_at + position / BLOCK] * BLOCK + position % BLOCK;\n    let at = (entry * params.kv_heads + kv_head) * HEAD_DIM;\n    var score = 0.0;\n    for (var i = 0u; i < HEAD_DIM; i++) {\n      score = fma(query[i], k_cache[at + i], score);\n    }\n    let new_largest = max(largest, score);\n    let shrink = exp(largest - new_largest);\n    let weight = exp(score - new_largest);\n    largest = new_largest;\n    total = fma(total, shrink, weight);\n    for (var i = 0u; i < HEAD_DIM; i++) {\n      sums[i] = fma(sums[i], shrink, weight * v_cache[at + i]);\n    }\n  }\n  softmax[item] = vec2f(largest, total);\n  let is_done = end > row.position;\n  for (var i = 0u; i < HEAD_DIM; i++) {\n    if (is_done) {\n      sums[i] /= total;\n    }\n    out[q_at + i] = sums[i];\n  }\n}\n",
    "bindings": [
      {
        "name": "rows",
        "access": "read"
      },
      {
        "name": "block_table",
        "access": "read"
      },
      {
        "name": "q",
        "access": "read"
      },
      {
        "name": "k_cache",
        "access": "read"
      },
      {
        "name": "v_cache",
        "access": "read"
      },
      {
        "name": "out",
        "access": "read_write"
      },
      {
        "name": "softmax",
        "access": "read_write"
      }
    ],
    "params": [
      {
        "name": "heads",
        "type": "u32"
      },
      {
        "name": "kv_heads",
        "type": "u32"
      },
      {
        "name": "blocks_per_slot",
        "type": "u32"
      },
      {
        "name": "scale",
        "type": "f32"
      },
      {
        "name": "row_start",
        "type": "u32"
      },
      {
        "name": "row_end",
        "type": "u32"
      },
      {
        "name": "key_start",
        "type": "u32"
      },
      {
        "name": "key_end",
        "type": "u32"
      }
    ],
    "overrides": [],
    "preludes": [
      {
        "name": "HEAD_DIM",
        "type": "u32"
      }
    ]
  },
  clip_scale: {
    "source": "// From the partial sums of squares to result = (global norm, factor), factor = min(1, norm_max / (norm + 1e-6)).\n// One thread: the partials are few and their order is the point.\nstruct Params {\n  count: u32,\n  norm_max: f32,\n}\n\nvar<immediate> params: Params;\n@group(0) @binding(0) var<storage, read> partials: array<f32>;\n@group(0) @binding(1) var<storage, read_write> result: array<f32>;\n\n@compute @workgroup_size(1)\nfn main() {\n  var sum = 0.0;\n  for (var i = 0u; i < params.count; i++) {\n    sum += partials[i];\n  }\n  let norm = sqrt(sum);\n  result[0] = norm;\n  result[1] = min(1.0, params.norm_max / (norm + 1.0e-6));\n}\n",
    "bindings": [
      {
        "name": "partials",
        "access": "read"
      },
      {
        "name": "result",
        "access": "read_write"
      }
    ],
    "params": [
      {
        "name": "count",
        "type": "u32"
      },
      {
        "name": "norm_max",
        "type": "f32"
      }
    ],
    "overrides": [],
    "preludes": []
  },
  embed_rows: {
    "source": "// One token of a ragged batch. `slot` finds the sequence's block table and sampling parameters.\nstruct Row {\n  slot: u32,\n  position: u32,\n  token: u32,\n  unused: u32,\n}\n\nconst FROM_SLOT = 0xffffffffu;\nconst NONE = 0xffffffffu;\nconst BLOCK = 16u;\n\n// x[row] = embedding[token(row)], the token coming from the row table or, for a decode row, from what its slot\n// sampled last (FROM_SLOT), so that a token feeds the next step without leaving the device.\n//!use rows\nstruct Params {\n  hidden: u32,\n  row_start: u32, // first row of this dispatch\n}\n\nvar<immediate> params: Params;\n@group(0) @binding(0) var<storage, read> rows: array<Row>;\n@group(0) @binding(1) var<storage, read> slot_tokens: array<u32>;\n@group(0) @binding(2) var<storage, read> embedding: array<f32>;\n@group(0) @binding(3) var<storage, read_write> x: array<f32>;\n\n@compute @workgroup_size(64)\nfn main(@builtin(global_invocation_id) id: vec3u) {\n  if (id.x >= params.hidden) {\n    return;\n  }\n  let row_index = params.row_start + id.y;\n  let row = rows[row_index];\n  var token = row.token;\n  if (token == FROM_SLOT) {\n    token = slot_tokens[row.slot];\n  }\n  x[row_index * params.hidden + id.x] = embedding[token * params.hidden + id.x];\n}\n",
    "bindings": [
      {
        "name": "rows",
        "access": "read"
      },
      {
        "name": "slot_tokens",
        "access": "read"
      },
      {
        "name": "embedding",
        "access": "read"
      },
      {
        "name": "x",
        "access": "read_write"
      }
    ],
    "params": [
      {
        "name": "hidden",
        "type": "u32"
      },
      {
        "name": "row_start",
        "type": "u32"
      }
    ],
    "overrides": [],
    "preludes": []
  },
  embed_rows_grad: {
    "source": "// Gradient of embed_rows, added to what is there. The host sorts the rows by token: segment s is token\n// segments[s].x with rows row_order[segments[s].y … segments[s].z). One thread a (segment, column), so no two\n// threads add to the same element and the order of addition is fixed.\nstruct Params {\n  hidden: u32,\n  segment_start: u32, // first segment of this dispatch\n  column_start: u32,  // and first column\n}\n\nvar<immediate> params: Params;\n@group(0) @binding(0) var<storage, read> segments: array<vec4u>;\n@group(0) @binding(1) var<storage, read> row_order: array<u32>;\n@group(0) @binding(2) var<storage, read> dx: array<f32>;\n@group(0) @binding(3) var<storage, read_write> dembedding: array<f32>;\n\n@compute @workgroup_size(64)\nfn main(@builtin(global_invocation_id) id: vec3u) {\n  let column = params.column_start + id.x;\n  if (column >= params.hidden) {\n    return;\n  }\n  let segment = segments[params.segment_start + id.y];\n  var sum = 0.0;\n  for (var i = segment.y; i < segment.z; i++) {\n    sum += dx[row_order[i] * params.hidden + column];\n  }\n  dembedding[segment.x * params.hidden + column] += sum;\n}\n",
    "bindings": [
      {
        "name": "segments",
        "access": "read"
      },
      {
        "name": "row_order",
        "access": "read"
      },
      {
        "name": "dx",
        "access": "read"
      },
      {
        "name": "dembedding",
        "access": "read_write"
      }
    ],
    "params": [
      {
        "name": "hidden",
        "type": "u32"
      },
      {
        "name": "segment_start",
        "type": "u32"
      },
      {
        "name": "column_start",
        "type": "u32"
      }
    ],
    "overrides": [],
    "preludes": []
  },
  matmul_nn: {
    "source": "// y[rows, columns] = x[rows, inner] · w[inner, columns], plus residual[rows, columns] when HAS_RESIDUAL is 1.\n// A thread keeps TILE_ROWS × 4 sums in registers; its 4 columns lie LANES apart, so neighbouring threads read\n// neighbouring weights, and a value of x is shared by all of them. Every sum runs over `inner` in order with fused\n// multiply-adds: a row's result does not depend on how many rows there are. A dispatch may stop half-way through the\n// sums; they wait in y, and the next one goes on with the same bits.\n//!prelude TILE_ROWS: u32\nstruct Params {\n  rows: u32,\n  inner: u32,\n  columns: u32,\n  x_start: u32,      // first row of x\n  y_start: u32,      // first row of y and residual\n  column_start: u32, // the columns of this dispatch: column_start … column_end\n  column_end: u32,\n  inner_start: u32,  // and its part of the sums; what came before stands in y\n  inner_end: u32,\n}\n\noverride HAS_RESIDUAL: u32 = 0u;\n\nconst LANES = 16u;\nconst GROUPS = 4u;\nconst TILE_COLUMNS = 4u;\n\nvar<immediate> params: Params;\n@group(0) @binding(0) var<storage, read> x: array<f32>;\n@group(0) @binding(1) var<storage, read> w: array<f32>;\n@group(0) @binding(2) var<storage, read> residual: array<f32>;\n@group(0) @binding(3) var<storage, read_write> y: array<f32>;\n\n@compute @workgroup_size(LANES, GROUPS)\nfn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_id) local: vec3u) {\n  let row0 = (group.y * GROUPS + local.y) * TILE_ROWS;\n  let column0 = params.column_start + group.x * LANES * TILE_COLUMNS + local.x;\n  if (row0 >= params.rows || column0 >= params.column_end) {\n    return;\n  }\n  var sums: array<vec4f, TILE_ROWS>;\n  var x_at: array<u32, TILE_ROWS>;\n  for (var r = 0u; r < TILE_ROWS; r++) {\n    x_at[r] = (params.x_start + min(row0 + r, params.rows - 1u)) * params.inner;\n  }\n  let last = params.columns - 1u;\n  if (params.inner_start > 0u) {\n    for (var r = 0u; r < TILE_ROWS; r++) {\n      let y_at = (params.y_start + min(row0 + r, params.rows - 1u)) * params.columns;\n      for (var c = 0u; c < TILE_COLUMNS; c++) {\n        sums[r][c] = y[y_at + min(column0 + c * LANES, last)];\n      }\n    }\n  }\n  var w_at = min(vec4u(column0, column0 + LANES, column0 + 2u * LANES, column0 + 3u * LANES), vec4u(last)) +\n    params.inner_start * params.columns;\n  for (var k = params.inner_start; k < params.inner_end; k++) {\n    let weights = vec4f(w[w_at.x], w[w_at.y], w[w_at.z], w[w_at.w]);\n    w_at += vec4u(params.columns);\n    for (var r = 0u; r < TILE_ROWS; r++) {\n      sums[r] = fma(vec4f(x[x_at[r] + k]), weights, sums[r]);\n    }\n  }\n  let adds_residual = HAS_RESIDUAL == 1u && params.inner_end == params.inner;\n  for (var r = 0u; r < TILE_ROWS; r++) {\n    let row = row0 + r;\n    if (row >= params.rows) {\n      break;\n    }\n    for (var c = 0u; c < TILE_COLUMNS; c++) {\n      let column = column0 + c * LANES;\n      if (column < params.column_end) {\n        let at = (params.y_start + row) * params.columns + column;\n        var sum = sums[r][c];\n        if (adds_residual) {\n          sum += residual[at];\n        }\n        y[at] = sum;\n      }\n    }\n  }\n}\n",
    "bindings": [
      {
        "name": "x",
        "access": "read"
      },
      {
        "name": "w",
        "access": "read"
      },
      {
        "name": "residual",
        "access": "read"
      },
      {
        "name": "y",
        "access": "read_write"
      }
    ],
    "params": [
      {
        "name": "rows",
        "type": "u32"
      },
      {
        "name": "inner",
        "type": "u32"
      },
      {
        "name": "columns",
        "type": "u32"
      },
      {
        "name": "x_start",
        "type": "u32"
      },
      {
        "name": "y_start",
        "type": "u32"
      },
      {
        "name": "column_start",
        "type": "u32"
      },
      {
        "name": "column_end",
        "type": "u32"
      },
      {
        "name": "inner_start",
        "type": "u32"
      },
      {
        "name": "inner_end",
        "type": "u32"
      }
    ],
    "overrides": [
      {
        "name": "HAS_RESIDUAL",
        "type": "u32",
        "default": 0
      }
    ],
    "preludes": [
      {
        "name": "TILE_ROWS",
        "type": "u32"
      }
    ]
  },
  matmul_nt: {
    "source": "// y[rows, columns] = x[rows, inner] · w[columns, inner]ᵀ, plus residual[rows, columns] when HAS_RESIDUAL is 1.\n// Serves the output head (w is [vocabulary, hidden]) and the gradient of a matmul's input (w is the input-major\n// weight read the other way). A thread keeps TILE_ROWS × 4 sums; every sum runs over `inner` in order, in one dispatch\n// or in several as in matmul_nn.\n//!prelude TILE_ROWS: u32\nstruct Params {\n  rows: u32,\n  inner: u32,\n  columns: u32,\n  x_start: u32,      // first row of x\n  y_start: u32,      // first row of y and residual\n  column_start: u32, // the columns of this dispatch: column_start … column_end\n  column_end: u32,\n  inner_start: u32,  // and its part of the sums; what came before stands in y\n  inner_end: u32,\n}\n\noverride HAS_RESIDUAL: u32 = 0u;\n\nconst LANES = 16u;\nconst GROUPS = 4u;\nconst TILE_COLUMNS = 4u;\n\nvar<immediate> params: Params;\n@group(0) @binding(0) var<storage, read> x: array<f32>;\n@group(0) @binding(1) var<storage, read> w: array<f32>;\n@group(0) @binding(2) var<storage, read> residual: array<f32>;\n@group(0) @binding(3) var<storage, read_write> y: array<f32>;\n\n@compute @workgroup_size(LANES, GROUPS)\nfn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_id) local: vec3u) {\n  let row0 = (group.y * GROUPS + local.y) * TILE_ROWS;\n  let column0 = params.column_start + group.x * LANES * TILE_COLUMNS + local.x;\n  if (row0 >= params.rows || column0 >= params.column_end) {\n    return;\n  }\n  var sums: array<vec4f, TILE_ROWS>;\n  var x_at: array<u32, TILE_ROWS>;\n  for (var r = 0u; r < TILE_ROWS; r++) {\n    x_at[r] = (params.x_start + min(row0 + r, params.rows - 1u)) * params.inner;\n  }\n  let last = params.columns - 1u;\n  if (params.inner_start > 0u) {\n    for (var r = 0u; r < TILE_ROWS; r++) {\n      let y_at = (params.y_start + min(row0 + r, params.rows - 1u)) * params.columns;\n      for (var c = 0u; c < TILE_COLUMNS; c++) {\n        sums[r][c] = y[y_at + min(column0 + c * LANES, last)];\n      }\n    }\n  }\n  let w_at = min(vec4u(column0, column0 + LANES, column0 + 2u * LANES, column0 + 3u * LANES), vec4u(last)) *\n    params.inner;\n  for (var k = params.inner_start; k < params.inner_end; k++) {\n    let weights = vec4f(w[w_at.x + k], w[w_at.y + k], w[w_at.z + k], w[w_at.w + k]);\n    for (var r = 0u; r < TILE_ROWS; r++) {\n      sums[r] = fma(vec4f(x[x_at[r] + k]), weights, sums[r]);\n    }\n  }\n  let adds_residual = HAS_RESIDUAL == 1u && params.inner_end == params.inner;\n  for (var r = 0u; r < TILE_ROWS; r++) {\n    let row = row0 + r;\n    if (row >= params.rows) {\n      break;\n    }\n    for (var c = 0u; c < TILE_COLUMNS; c++) {\n      let column = column0 + c * LANES;\n      if (column < params.column_end) {\n        let at = (params.y_start + row) * params.columns + column;\n        var sum = sums[r][c];\n        if (adds_residual) {\n          sum += residual[at];\n        }\n        y[at] = sum;\n      }\n    }\n  }\n}\n",
    "bindings": [
      {
        "name": "x",
        "access": "read"
      },
      {
        "name": "w",
        "access": "read"
      },
      {
        "name": "residual",
        "access": "read"
      },
      {
        "name": "y",
        "access": "read_write"
      }
    ],
    "params": [
      {
        "name": "rows",
        "type": "u32"
      },
      {
        "name": "inner",
        "type": "u32"
      },
      {
        "name": "columns",
        "type": "u32"
      },
      {
        "name": "x_start",
        "type": "u32"
      },
      {
        "name": "y_start",
        "type": "u32"
      },
      {
        "name": "column_start",
        "type": "u32"
      },
      {
        "name": "column_end",
        "type": "u32"
      },
      {
        "name": "inner_start",
        "type": "u32"
      },
      {
        "name": "inner_end",
        "type": "u32"
      }
    ],
    "overrides": [
      {
        "name": "HAS_RESIDUAL",
        "type": "u32",
        "default": 0
      }
    ],
    "preludes": [
      {
        "name": "TILE_ROWS",
        "type": "u32"
      }
    ]
  },
  matmul_tn: {
    "source": "// y[inner, columns] += x[rows, inner]ᵀ · g[rows, columns]: the gradient of a weight, added to what is there.\n// A thread keeps TILE_ROWS × 4 sums (TILE_ROWS along `inner`); every sum runs over the rows in order.\n//!prelude TILE_ROWS: u32\nstruct Params {\n  rows: u32,\n  inner: u32,\n  columns: u32,\n  x_start: u32,     // first row of x\n  g_start: u32,     // first row of g\n  inner_start: u32, // the part of y that this dispatch makes\n  inner_end: u32,\n  column_start: u32,\n  column_end: u32,\n}\n\nconst LANES = 16u;\nconst GROUPS = 4u;\nconst TILE_COLUMNS = 4u;\n\nvar<immediate> params: Params;\n@group(0) @binding(0) var<storage, read> x: array<f32>;\n@group(0) @binding(1) var<storage, read> g: array<f32>;\n@group(0) @binding(2) var<storage, read_write> y: array<f32>;\n\n@compute @workgroup_size(LANES, GROUPS)\nfn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_id) local: vec3u) {\n  let inner0 = params.inner_start + (group.y * GROUPS + local.y) * TILE_ROWS;\n  let column0 = params.column_start + group.x * LANES * TILE_COLUMNS + local.x;\n  if (inner0 >= params.inner_end || column0 >= params.column_end) {\n    return;\n  }\n  var sums: array<vec4f, TILE_ROWS>;\n  let last = params.columns - 1u;\n  var g_at = min(vec4u(column0, column0 + LANES, column0 + 2u * LANES, column0 + 3u * LANES), vec4u(last)) +\n    params.g_start * params.columns;\n  for (var row = 0u; row < params.rows; row++) {\n    let gradients = vec4f(g[g_at.x], g[g_at.y], g[g_at.z], g[g_at.w]);\n    g_at += vec4u(params.columns);\n    for (var r = 0u; r < TILE_ROWS; r++) {\n      let source = min(inner0 + r, params.inner - 1u);\n      sums[r] = fma(vec4f(x[(params.x_start + row) * params.inner + source]), gradients, sums[r]);\n    }\n  }\n  for (var r = 0u; r < TILE_ROWS; r++) {\n    let to = inner0 + r;\n    if (to >= params.inner_end) {\n      break;\n    }\n    for (var c = 0u; c < TILE_COLUMNS; c++) {\n      let column = column0 + c * LANES;\n      if (column < params.column_end) {\n        y[to * params.columns + column] += sums[r][c];\n      }\n    }\n  }\n}\n",
    "bindings": [
      {
        "name": "x",
        "access": "read"
      },
      {
        "name": "g",
        "access": "read"
      },
      {
        "name": "y",
        "access": "read_write"
      }
    ],
    "params": [
      {
        "name": "rows",
        "type": "u32"
      },
      {
        "name": "inner",
        "type": "u32"
      },
      {
        "name": "columns",
        "type": "u32"
      },
      {
        "name": "x_start",
        "type": "u32"
      },
      {
        "name": "g_start",
        "type": "u32"
      },
      {
        "name": "inner_start",
        "type": "u32"
      },
      {
        "name": "inner_end",
        "type": "u32"
      },
      {
        "name": "column_start",
        "type": "u32"
      },
      {
        "name": "column_end",
        "type": "u32"
      }
    ],
    "overrides": [],
    "preludes": [
      {
        "name": "TILE_ROWS",
        "type": "u32"
      }
    ]
  },
  policy_gradient: {
    "source": "// What the sampling kernel leaves for each row: the token drawn or scored, and what the loss needs to know of its\n// distribution.\nstruct Sampled {\n  token: u32,\n  logprob: f32,\n  raw_logprob: f32,\n  flags: u32,\n}\n\nstruct RowStats {\n  threshold: f32,\n  logsumexp: f32, // of the kept scaled logits, the given token always counted\n  entropy: f32,   // of the kept distribution, without a given token that it does not keep, in nats\n  inverse_temperature: f32,\n}\n\n// Turns logits[row, vocabulary] into d(loss)/d(logits) in place, and gives each row's loss and metrics.\n// The clipped policy-gradient loss (Schulman et al., \"Proximal policy optimization algorithms\", 2017) with GRPO's\n// per-token form and the k3 estimator of the KL to a reference (Shao et al., \"DeepSeekMath\", 2024):\n//   loss = weight · (−min(ratio·A, clip(ratio, 1−clip_low, 1+clip_high)·A) + kl_coefficient · (e^δ − δ − 1))\n// with ratio = exp(logprob − old_logprob), δ = ref_logprob − logprob. Which tokens are kept counts as constant.\n// With CROSS_ENTROPY 1 the loss is −weight · logprob instead (supervised training).\n//!use sampled\nstruct Params {\n  vocabulary: u32,\n  row_start: u32,    // first of the loss rows\n  logits_start: u32, // its row of the logits\n  clip_low: f32,\n  clip_high: f32,\n  kl_coefficient: f32,\n}\n\noverride CROSS_ENTROPY: u32 = 0u;\n\nstruct LossRow {\n  weight: f32, // 0: the row trains nothing, its metrics are (0, 1, 0, 0)\n  advantage: f32,\n  old_logprob: f32,\n  ref_logprob: f32,\n}\n\nstruct LossMetrics {\n  loss: f32,\n  ratio: f32,\n  clipped: f32,\n  kl: f32,\n}\n\nvar<immediate> params: Params;\n@group(0) @binding(0) var<storage, read> loss_rows: array<LossRow>;\n@group(0) @binding(1) var<storage, read> sampled: array<Sampled>;\n@group(0) @binding(2) var<storage, read> stats: array<RowStats>;\n@group(0) @binding(3) var<storage, read_write> logits: array<f32>;\n@group(0) @binding(4) var<storage, read_write> metrics: array<LossMetrics>;\n\n@compute @workgroup_size(64)\nfn main(@builtin(global_invocation_id) id: vec3u) {\n  if (id.x >= params.vocabulary) {\n    return;\n  }\n  let row = params.row_start + id.y;\n  let target_row = loss_rows[row];\n  let at = (params.logits_start + id.y) * params.vocabulary + id.x;\n  if (target_row.weight == 0.0) {\n    // Its other numbers may be anything: zero times infinity must not get in.\n    logits[at] = 0.0;\n    if (id.x == 0u) {\n      metrics[row] = LossMetrics(0.0, 1.0, 0.0, 0.0);\n    }\n    return;\n  }\n  let score = sampled[row];\n  let distribution = stats[row];\n  var ratio = 1.0;\n  var clipped = 0.0;\n  var kl = 0.0;\n  var loss = -score.logprob;\n  var slope = -1.0; // d(loss)/d(logprob) before the weight\n  if (CROSS_ENTROPY == 0u) {\n    ratio = exp(score.logprob - target_row.old_logprob);\n    let free = ratio * target_row.advantage;\n    let bounded = clamp(ratio, 1.0 - params.clip_low, 1.0 + params.clip_high) * target_row.advantage;\n    loss = -min(free, bounded);\n    slope = -free;\n    if (bounded < free) {\n      clipped = 1.0;\n      slope = 0.0;\n    }\n    if (params.kl_coefficient != 0.0) {\n      let apart = target_row.ref_logprob - score.logprob;\n      kl = exp(apart) - apart - 1.0;\n      loss = fma(params.kl_coefficient, kl, loss);\n      slope = fma(params.kl_coefficient, 1.0 - exp(apart), slope);\n    }\n  }\n  let z = logits[at] * distribution.inverse_temperature;\n  let is_token = id.x == score.token;\n  var probability = 0.0;\n  if (z >= distribution.threshold || is_token) {\n    probability = exp(z - distribution.logsumexp);\n  }\n  logits[at] = target_row.weight * slope * (select(0.0, 1.0, is_token) - probability) * distribution.inverse_temperature;\n  if (id.x == 0u) {\n    metrics[row] = LossMetrics(target_row.weight * loss, ratio, clipped, kl);\n  }\n}\n",
    "bindings": [
      {
        "name": "loss_rows",
        "access": "read"
      },
      {
        "name": "sampled",
        "access": "read"
      },
      {
        "name": "stats",
        "access": "read"
      },
      {
        "name": "logits",
        "access": "read_write"
      },
      {
        "name": "metrics",
        "access": "read_write"
      }
    ],
    "params": [
      {
        "name": "vocabulary",
        "type": "u32"
      },
      {
        "name": "row_start",
        "type": "u32"
      },
      {
        "name": "logits_start",
        "type": "u32"
      },
      {
        "name": "clip_low",
        "type": "f32"
      },
      {
        "name": "clip_high",
        "type": "f32"
      },
      {
        "name": "kl_coefficient",
        "type": "f32"
      }
    ],
    "overrides": [
      {
        "name": "CROSS_ENTROPY",
        "type": "u32",
        "default": 0
      }
    ],
    "preludes": []
  },
  rmsnorm_gain_grad: {
    "source": "// Gradient of rmsnorm_row with respect to its gain, added to what is there: dgain[i] += Σ_row dy · x · scale[row].\n// One thread a column, rows in order.\nstruct Params {\n  rows: u32,\n  hidden: u32,\n  column_start: u32, // first column of this dispatch\n}\n\nvar<immediate> params: Params;\n@group(0) @binding(0) var<storage, read> x: array<f32>;\n@group(0) @binding(1) var<storage, read> scale: array<f32>;\n@group(0) @binding(2) var<storage, read> dy: array<f32>;\n@group(0) @binding(3) var<storage, read_write> dgain: array<f32>;\n\n@compute @workgroup_size(64)\nfn main(@builtin(global_invocation_id) id: vec3u) {\n  let column = params.column_start + id.x;\n  if (column >= params.hidden) {\n    return;\n  }\n  var sum = 0.0;\n  for (var row = 0u; row < params.rows; row++) {\n    let at = row * params.hidden + column;\n    sum = fma(dy[at], x[at] * scale[row], sum);\n  }\n  dgain[column] += sum;\n}\n",
    "bindings": [
      {
        "name": "x",
        "access": "read"
      },
      {
        "name": "scale",
        "access": "read"
      },
      {
        "name": "dy",
        "access": "read"
      },
      {
        "name": "dgain",
        "access": "read_write"
      }
    ],
    "params": [
      {
        "name": "rows",
        "type": "u32"
      },
      {
        "name": "hidden",
        "type": "u32"
      },
      {
        "name": "column_start",
        "type": "u32"
      }
    ],
    "overrides": [],
    "preludes": []
  },
  rmsnorm_row: {
    "source": "// Reductions among the LANES threads that share a row (8 or 64); 64 / LANES rows share a workgroup. Partial results\n// are combined in lane order, by eights and then the eights, so the result depends on the row alone. All threads of\n// the workgroup must call these. Afterwards lane_values still holds every thread's own value.\nconst ROWS_PER_GROUP = 64u / LANES;\nconst EIGHTS = LANES / 8u;\nvar<workgroup> lane_values: array<f32, 64>;\nvar<workgroup> eight_values: array<f32, 8>;\n\nfn lanes_sum(value: f32, thread: u32) -> f32 {\n  workgroupBarrier();\n  lane_values[thread] = value;\n  workgroupBarrier();\n  let first = thread / 8u * 8u;\n  var total = 0.0;\n  for (var lane = 0u; lane < 8u; lane++) {\n    total += lane_values[first + lane];\n  }\n  if (EIGHTS > 1u) {\n    if (thread % 8u == 0u) {\n      eight_values[thread / 8u] = total;\n    }\n    workgroupBarrier();\n    total = 0.0;\n    for (var eight = 0u; eight < EIGHTS; eight++) {\n      total += eight_values[eight];\n    }\n  }\n  return total;\n}\n\nfn lanes_max(value: f32, thread: u32) -> f32 {\n  workgroupBarrier();\n  lane_values[thread] = value;\n  workgroupBarrier();\n  let first = thread / 8u * 8u;\n  var largest = lane_values[first];\n  for (var lane = 1u; lane < 8u; lane++) {\n    largest = max(largest, lane_values[first + lane]);\n  }\n  if (EIGHTS > 1u) {\n    if (thread % 8u == 0u) {\n      eight_values[thread / 8u] = largest;\n    }\n    workgroupBarrier();\n    largest = eight_values[0];\n    for (var eight = 1u; eight < EIGHTS; eight++) {\n      largest = max(largest, eight_values[eight]);\n    }\n  }\n  return largest;\n}\n\n// y[row] = x[from(row)] / sqrt(mean(x²) + eps) · gain, and scale[row] = 1 / sqrt(…) for the backward pass.\n// With GATHER 1 row i of the output is row row_index[i] of the input: only rows that need logits go on.\n//!prelude LANES: u32\n//!use lanes\nstruct Params {\n  hidden: u32,\n  eps: f32,\n  row_start: u32, // the rows of this dispatch: row_start … row_end\n  row_end: u32,\n}\n\noverride GATHER: u32 = 0u;\n\nvar<immediate> params: Params;\n@group(0) @binding(0) var<storage, read> x: array<f32>;\n@group(0) @binding(1) var<storage, read> gain: array<f32>;\n@group(0) @binding(2) var<storage, read> row_index: array<u32>;\n@group(0) @binding(3) var<storage, read_write> y: array<f32>;\n@group(0) @binding(4) var<storage, read_write> scale: array<f32>;\n\n@compute @workgroup_size(64)\nfn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {\n  let wanted = params.row_start + group.x * ROWS_PER_GROUP + thread / LANES;\n  let row = min(wanted, params.row_end - 1u);\n  let lane = thread % LANES;\n  var source = row;\n  if (GATHER == 1u) {\n    source = row_index[row];\n  }\n  let x_at = source * params.hidden;\n  var sum = 0.0;\n  for (var i = lane; i < params.hidden; i += LANES) {\n    let value = x[x_at + i];\n    sum = fma(value, value, sum);\n  }\n  let factor = 1.0 / sqrt(lanes_sum(sum, thread) / f32(params.hidden) + params.eps);\n  if (wanted >= params.row_end) {\n    return;\n  }\n  for (var i = lane; i < params.hidden; i += LANES) {\n    y[row * params.hidden + i] = x[x_at + i] * factor * gain[i];\n  }\n  if (lane == 0u) {\n    scale[row] = factor;\n  }\n}\n",
    "bindings": [
      {
        "name": "x",
        "access": "read"
      },
      {
        "name": "gain",
        "access": "read"
      },
      {
        "name": "row_index",
        "access": "read"
      },
      {
        "name": "y",
        "access": "read_write"
      },
      {
        "name": "scale",
        "access": "read_write"
      }
    ],
    "params": [
      {
        "name": "hidden",
        "type": "u32"
      },
      {
        "name": "eps",
        "type": "f32"
      },
      {
        "name": "row_start",
        "type": "u32"
      },
      {
        "name": "row_end",
        "type": "u32"
      }
    ],
    "overrides": [
      {
        "name": "GATHER",
        "type": "u32",
        "default": 0
      }
    ],
    "preludes": [
      {
        "name": "LANES",
        "type": "u32"
      }
    ]
  },
  rmsnorm_row_grad: {
    "source": "// Reductions among the LANES threads that share a row (8 or 64); 64 / LANES rows share a workgroup. Partial results\n// are combined in lane order, by eights and then the eights, so the result depends on the row alone. All threads of\n// the workgroup must call these. Afterwards lane_values still holds every thread's own value.\nconst ROWS_PER_GROUP = 64u / LANES;\nconst EIGHTS = LANES / 8u;\nvar<workgroup> lane_values: array<f32, 64>;\nvar<workgroup> eight_values: array<f32, 8>;\n\nfn lanes_sum(value: f32, thread: u32) -> f32 {\n  workgroupBarrier();\n  lane_values[thread] = value;\n  workgroupBarrier();\n  let first = thread / 8u * 8u;\n  var total = 0.0;\n  for (var lane = 0u; lane < 8u; lane++) {\n    total += lane_values[first + lane];\n  }\n  if (EIGHTS > 1u) {\n    if (thread % 8u == 0u) {\n      eight_values[thread / 8u] = total;\n    }\n    workgroupBarrier();\n    total = 0.0;\n    for (var eight = 0u; eight < EIGHTS; eight++) {\n      total += eight_values[eight];\n    }\n  }\n  return total;\n}\n\nfn lanes_max(value: f32, thread: u32) -> f32 {\n  workgroupBarrier();\n  lane_values[thread] = value;\n  workgroupBarrier();\n  let first = thread / 8u * 8u;\n  var largest = lane_values[first];\n  for (var lane = 1u; lane < 8u; lane++) {\n    largest = max(largest, lane_values[first + lane]);\n  }\n  if (EIGHTS > 1u) {\n    if (thread % 8u == 0u) {\n      eight_values[thread / 8u] = largest;\n    }\n    workgroupBarrier();\n    largest = eight_values[0];\n    for (var eight = 1u; eight < EIGHTS; eight++) {\n      largest = max(largest, eight_values[eight]);\n    }\n  }\n  return largest;\n}\n\n// Gradient of rmsnorm_row with respect to its input, added to what already flows past the norm:\n// out[row] = passing[row] + s · (g − x̂ · mean(g · x̂)) with g = dy · gain, x̂ = x · s, s = scale[row].\n//!prelude LANES: u32\n//!use lanes\nstruct Params {\n  hidden: u32,\n  row_start: u32, // the rows of this dispatch: row_start … row_end\n  row_end: u32,\n}\n\noverride HAS_PASSING: u32 = 1u;\n\nvar<immediate> params: Params;\n@group(0) @binding(0) var<storage, read> x: array<f32>;\n@group(0) @binding(1) var<storage, read> gain: array<f32>;\n@group(0) @binding(2) var<storage, read> scale: array<f32>;\n@group(0) @binding(3) var<storage, read> dy: array<f32>;\n@group(0) @binding(4) var<storage, read> passing: array<f32>;\n@group(0) @binding(5) var<storage, read_write> dx: array<f32>;\n\n@compute @workgroup_size(64)\nfn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {\n  let wanted = params.row_start + group.x * ROWS_PER_GROUP + thread / LANES;\n  let row = min(wanted, params.row_end - 1u);\n  let at = row * params.hidden;\n  let factor = scale[row];\n  var sum = 0.0;\n  for (var i = thread % LANES; i < params.hidden; i += LANES) {\n    sum = fma(dy[at + i] * gain[i], x[at + i] * factor, sum);\n  }\n  let mean = lanes_sum(sum, thread) / f32(params.hidden);\n  if (wanted >= params.row_end) {\n    return;\n  }\n  for (var i = thread % LANES; i < params.hidden; i += LANES) {\n    let through = factor * (dy[at + i] * gain[i] - x[at + i] * factor * mean);\n    if (HAS_PASSING == 1u) {\n      dx[at + i] = passing[at + i] + through;\n    } else {\n      dx[at + i] = through;\n    }\n  }\n}\n",
    "bindings": [
      {
        "name": "x",
        "access": "read"
      },
      {
        "name": "gain",
        "access": "read"
      },
      {
        "name": "scale",
        "access": "read"
      },
      {
        "name": "dy",
        "access": "read"
      },
      {
        "name": "passing",
        "access": "read"
      },
      {
        "name": "dx",
        "access": "read_write"
      }
    ],
    "params": [
      {
        "name": "hidden",
        "type": "u32"
      },
      {
        "name": "row_start",
        "type": "u32"
      },
      {
        "name": "row_end",
        "type": "u32"
      }
    ],
    "overrides": [
      {
        "name": "HAS_PASSING",
        "type": "u32",
        "default": 1
      }
    ],
    "preludes": [
      {
        "name": "LANES",
        "type": "u32"
      }
    ]
  },
  rope_grad: {
    "source": "// One token of a ragged batch. `slot` finds the sequence's block table and sampling parameters.\nstruct Row {\n  slot: u32,\n  position: u32,\n  token: u32,\n  unused: u32,\n}\n\nconst FROM_SLOT = 0xffffffffu;\nconst NONE = 0xffffffffu;\nconst BLOCK = 16u;\n\n// Gradient of rope_kv_write: turns the query and key columns of dqkv[rows, (heads + 2 · kv_heads) · HEAD_DIM] back by\n// their position, in place. Values were not turned. One thread a pair.\n//!prelude HEAD_DIM: u32\n//!use rows\nstruct Params {\n  heads: u32,\n  kv_heads: u32,\n  row_start: u32, // first row of this dispatch\n}\n\nvar<immediate> params: Params;\n@group(0) @binding(0) var<storage, read> rows: array<Row>;\n@group(0) @binding(1) var<storage, read> angles: array<vec2f>;\n@group(0) @binding(2) var<storage, read_write> dqkv: array<f32>;\n\nconst HALF = HEAD_DIM / 2u;\n\n@compute @workgroup_size(64)\nfn main(@builtin(global_invocation_id) id: vec3u) {\n  if (id.x >= (params.heads + params.kv_heads) * HALF) {\n    return;\n  }\n  let row_index = params.row_start + id.y;\n  let head = id.x / HALF;\n  let pair = id.x % HALF;\n  let at = (row_index * (params.heads + 2u * params.kv_heads) + head) * HEAD_DIM + pair;\n  let low = dqkv[at];\n  let high = dqkv[at + HALF];\n  let turn = angles[rows[row_index].position * HALF + pair];\n  dqkv[at] = fma(low, turn.x, high * turn.y);\n  dqkv[at + HALF] = fma(high, turn.x, -(low * turn.y));\n}\n",
    "bindings": [
      {
        "name": "rows",
        "access": "read"
      },
      {
        "name": "angles",
        "access": "read"
      },
      {
        "name": "dqkv",
        "access": "read_write"
      }
    ],
    "params": [
      {
        "name": "heads",
        "type": "u32"
      },
      {
        "name": "kv_heads",
        "type": "u32"
      },
      {
        "name": "row_start",
        "type": "u32"
      }
    ],
    "overrides": [],
    "preludes": [
      {
        "name": "HEAD_DIM",
        "type": "u32"
      }
    ]
  },
  rope_kv_write: {
    "source": "// One token of a ragged batch. `slot` finds the sequence's block table and sampling parameters.\nstruct Row {\n  slot: u32,\n  position: u32,\n  token: u32,\n  unused: u32,\n}\n\nconst FROM_SLOT = 0xffffffffu;\nconst NONE = 0xffffffffu;\nconst BLOCK = 16u;\n\n// Rotates queries and keys by their position (half-split pairs, as Hugging Face Llama does) and writes keys and\n// values into the paged cache. qkv is [rows, (heads + 2 · kv_heads) · HEAD_DIM]; one thread a pair.\n// angles[position · HEAD_DIM / 2 + i] is (cos, sin), made on the host in float64.\n//!prelude HEAD_DIM: u32\n//!use rows\nstruct Params {\n  heads: u32,\n  kv_heads: u32,\n  blocks_per_slot: u32,\n  row_start: u32, // first row of this dispatch\n}\n\nvar<immediate> params: Params;\n@group(0) @binding(0) var<storage, read> rows: array<Row>;\n@group(0) @binding(1) var<storage, read> block_table: array<u32>;\n@group(0) @binding(2) var<storage, read> angles: array<vec2f>;\n@group(0) @binding(3) var<storage, read> qkv: array<f32>;\n@group(0) @binding(4) var<storage, read_write> q: array<f32>;\n@group(0) @binding(5) var<storage, read_write> k_cache: array<f32>;\n@group(0) @binding(6) var<storage, read_write> v_cache: array<f32>;\n\nconst HALF = HEAD_DIM / 2u;\n\n@compute @workgroup_size(64)\nfn main(@builtin(global_invocation_id) id: vec3u) {\n  let all_heads = params.heads + 2u * params.kv_heads;\n  if (id.x >= all_heads * HALF) {\n    return;\n  }\n  let row_index = params.row_start + id.y;\n  let row = rows[row_index];\n  let head = id.x / HALF;\n  let pair = id.x % HALF;\n  let source = (row_index * all_heads + head) * HEAD_DIM + pair;\n  let low = qkv[source];\n  let high = qkv[source + HALF];\n  let turn = angles[row.position * HALF + pair];\n  let rotated_low = fma(low, turn.x, -(high * turn.y));\n  let rotated_high = fma(high, turn.x, low * turn.y);\n  if (head < params.heads) {\n    let to = (row_index * params.heads + head) * HEAD_DIM + pair;\n    q[to] = rotated_low;\n    q[to + HALF] = rotated_high;\n    return;\n  }\n  let block = block_table[row.slot * params.blocks_per_slot + row.position / BLOCK];\n  let entry = block * BLOCK + row.position % BLOCK;\n  if (head < params.heads + params.kv_heads) {\n    let to = (entry * params.kv_heads + head - params.heads) * HEAD_DIM + pair;\n    k_cache[to] = rotated_low;\n    k_cache[to + HALF] = rotated_high;\n  } else {\n    let to = (entry * params.kv_heads + head - params.heads - params.kv_heads) * HEAD_DIM + pair;\n    v_cache[to] = low;\n    v_cache[to + HALF] = high;\n  }\n}\n",
    "bindings": [
      {
        "name": "rows",
        "access": "read"
      },
      {
        "name": "block_table",
        "access": "read"
      },
      {
        "name": "angles",
        "access": "read"
      },
      {
        "name": "qkv",
        "access": "read"
      },
      {
        "name": "q",
        "access": "read_write"
      },
      {
        "name": "k_cache",
        "access": "read_write"
      },
      {
        "name": "v_cache",
        "access": "read_write"
      }
    ],
    "params": [
      {
        "name": "heads",
        "type": "u32"
      },
      {
        "name": "kv_heads",
        "type": "u32"
      },
      {
        "name": "blocks_per_slot",
        "type": "u32"
      },
      {
        "name": "row_start",
        "type": "u32"
      }
    ],
    "overrides": [],
    "preludes": [
      {
        "name": "HEAD_DIM",
        "type": "u32"
      }
    ]
  },
  sample_row: {
    "source": "// Reductions among the LANES threads that share a row (8 or 64); 64 / LANES rows share a workgroup. Partial results\n// are combined in lane order, by eights and then the eights, so the result depends on the row alone. All threads of\n// the workgroup must call these. Afterwards lane_values still holds every thread's own value.\nconst ROWS_PER_GROUP = 64u / LANES;\nconst EIGHTS = LANES / 8u;\nvar<workgroup> lane_values: array<f32, 64>;\nvar<workgroup> eight_values: array<f32, 8>;\n\nfn lanes_sum(value: f32, thread: u32) -> f32 {\n  workgroupBarrier();\n  lane_values[thread] = value;\n  workgroupBarrier();\n  let first = thread / 8u * 8u;\n  var total = 0.0;\n  for (var lane = 0u; lane < 8u; lane++) {\n    total += lane_values[first + lane];\n  }\n  if (EIGHTS > 1u) {\n    if (thread % 8u == 0u) {\n      eight_values[thread / 8u] = total;\n    }\n    workgroupBarrier();\n    total = 0.0;\n    for (var eight = 0u; eight < EIGHTS; eight++) {\n      total += eight_values[eight];\n    }\n  }\n  return total;\n}\n\nfn lanes_max(value: f32, thread: u32) -> f32 {\n  workgroupBarrier();\n  lane_values[thread] = value;\n  workgroupBarrier();\n  let first = thread / 8u * 8u;\n  var largest = lane_values[first];\n  for (var lane = 1u; lane < 8u; lane++) {\n    largest = max(largest, lane_values[first + lane]);\n  }\n  if (EIGHTS > 1u) {\n    if (thread % 8u == 0u) {\n      eight_values[thread / 8u] = largest;\n    }\n    workgroupBarrier();\n    largest = eight_values[0];\n    for (var eight = 1u; eight < EIGHTS; eight++) {\n      largest = max(largest, eight_values[eight]);\n    }\n  }\n  return largest;\n}\n\n// One token of a ragged batch. `slot` finds the sequence's block table and sampling parameters.\nstruct Row {\n  slot: u32,\n  position: u32,\n  token: u32,\n  unused: u32,\n}\n\nconst FROM_SLOT = 0xffffffffu;\nconst NONE = 0xffffffffu;\nconst BLOCK = 16u;\n\n// Threefry-2x32, 20 rounds: the same function as `threefry2x32` in src/lib/prng.ts.\nfn threefry_rotate(x: u32, bits: u32) -> u32 {\n  return (x << bits) | (x >> (32u - bits));\n}\n\nfn threefry_mix(x: vec2u, bits: u32) -> vec2u {\n  let sum = x.x + x.y;\n  return vec2u(sum, threefry_rotate(x.y, bits) ^ sum);\n}\n\nfn threefry_rounds(start: vec2u, bits: vec4u) -> vec2u {\n  return threefry_mix(threefry_mix(threefry_mix(threefry_mix(start, bits.x), bits.y), bits.z), bits.w);\n}\n\nfn threefry2x32(key: vec2u, counter: vec2u) -> vec2u {\n  let parity = 0x1bd11bdau ^ key.x ^ key.y;\n  let even = vec4u(13u, 15u, 26u, 6u);\n  let odd = vec4u(17u, 29u, 16u, 24u);\n  var x = counter + key;\n  x = threefry_rounds(x, even) + vec2u(key.y, parity + 1u);\n  x = threefry_rounds(x, odd) + vec2u(parity, key.x + 2u);\n  x = threefry_rounds(x, even) + vec2u(key.x, key.y + 3u);\n  x = threefry_rounds(x, odd) + vec2u(key.y, parity + 4u);\n  x = threefry_rounds(x, even) + vec2u(parity, key.x + 5u);\n  return x;\n}\n\n// Uniform in the open interval (0, 1): never 0 and never 1. With 23 bits the half is exact; with 24 it would round.\nfn uniform_open(word: u32) -> f32 {\n  return (f32(word >> 9u) + 0.5) * 1.1920928955078125e-7;\n}\n\n// The distribution a token is drawn from: logits over temperature, then min_p, top_k and top_p as one threshold on\n// the scaled logit. Generation and the loss both use this text, so both sides of a ratio see the same distribution.\n// Ties at the threshold are kept. The k-th largest value and the top_p cut are found exactly, bit by bit, over an\n// order-preserving map from floats to integers: no sorting, and cost independent of k and p.\nstruct Sampling {\n  temperature: f32, // 0: greedy, scored at temperature 1 without filters\n  top_p: f32,       // 1: off\n  min_p: f32,       // 0: off\n  top_k: u32,       // 0: off\n  key_low: u32,\n  key_high: u32,\n  stop_start: u32,  // the ids in `stops` that end the sequence\n  stop_count: u32,\n}\n\nconst USES_TOP_K = 1u;\nconst USES_TOP_P = 2u;\n\n// The passes over the vocabulary, so that a dispatch may end after any of them: the largest logit, a pass a bit of the\n// k-th largest value, the kept mass, a pass a bit of the top_p cut, and the draw, which is the caller's.\nconst FIRST_TOP_K = 1u;\nconst MASS = 33u;\nconst FIRST_TOP_P = 34u;\nconst DRAW = 66u;\n\nfn ordered_bits(value: f32) -> u32 {\n  let bits = bitcast<u32>(value);\n  return select(bits | 0x80000000u, ~bits, (bits & 0x80000000u) != 0u);\n}\n\nfn value_of_ordered(ordered: u32) -> f32 {\n  return bitcast<f32>(select(~ordered, ordered & 0x7fffffffu, (ordered & 0x80000000u) != 0u));\n}\n\n// What is known of a row's distribution: after the last pass before the draw, all of it.\nstruct Distribution {\n  inverse_temperature: f32,\n  largest_logit: f32,\n  largest: f32,   // of the scaled logits\n  threshold: f32, // scaled logits at or above it are kept\n  cut: u32,       // of the ordered bits searched for, those found so far\n  wanted: f32,    // mass that top_p keeps at the least\n}\n\nfn scaled_logit(index: u32, row_at: u32, inverse_temperature: f32) -> f32 {\n  return logits[row_at + index] * inverse_temperature;\n}\n\n// Mass of the kept tokens whose ordered bits are `least` or more.\nfn mass_from(least: u32, d: Distribution, row_at: u32, vocabulary: u32, lane: u32, thread: u32) -> f32 {\n  var mass = 0.0;\n  for (var i = lane; i < vocabulary; i += LANES) {\n    let z = scaled_logit(i, row_at, d.inverse_temperature);\n    mass += select(0.0, exp(z - d.largest), z >= d.threshold && ordered_bits(z) >= least);\n  }\n  return lanes_sum(mass, thread);\n}\n\n// Adds to what is `known` what the passes from passes.x to before passes.y find. `filters` is the same for the whole\n// dispatch: a row without a filter gets the same bits either way. The bits to search are not a constant, lest a\n// compiler writes the searches out 32 times (seconds of compiling on a CPU).\nfn find_distribution(\n  known: Distribution,\n  s: Sampling,\n  row_at: u32,\n  vocabulary: u32,\n  filters: u32,\n  passes: vec2u,\n  lane: u32,\n  thread: u32,\n) -> Distribution {\n  var d = known;\n  let greedy = s.temperature == 0.0;\n  d.inverse_temperature = select(1.0 / s.temperature, 1.0, greedy);\n  if (passes.x == 0u) {\n    var largest = -3.0e38;\n    for (var i = lane; i < vocabulary; i += LANES) {\n      largest = max(largest, logits[row_at + i]);\n    }\n    d.largest_logit = lanes_max(largest, thread);\n  }\n  d.largest = d.largest_logit * d.inverse_temperature; // rounding keeps the order: no scaled logit is larger\n  if (passes.x == 0u) {\n    d.threshold = -3.0e38;\n    if (!greedy && s.min_p > 0.0) {\n      d.threshold = d.largest + log(s.min_p);\n    }\n  }\n\n  // The largest value that top_k tokens or more reach.\n  let top_k_end = select(FIRST_TOP_K, MASS, (filters & USES_TOP_K) != 0u);\n  for (var bit = max(passes.x, FIRST_TOP_K); bit < min(passes.y, top_k_end); bit++) {\n    let candidate = d.cut | (0x80000000u >> (bit - FIRST_TOP_K));\n    var count = 0.0;\n    for (var i = lane; i < vocabulary; i += LANES) {\n      count += select(0.0, 1.0, ordered_bits(scaled_logit(i, row_at, d.inverse_temperature)) >= candidate);\n    }\n    if (lanes_sum(count, thread) >= f32(s.top_k)) {\n      d.cut = candidate;\n    }\n  }\n  if (passes.x < MASS && passes.y >= MASS) {\n    if (top_k_end == MASS && !greedy && s.top_k > 0u && s.top_k < vocabulary) {\n      d.threshold = max(d.threshold, value_of_ordered(d.cut));\n    }\n    d.cut = 0u;\n  }\n\n  // The largest value that a share top_p of the mass kept so far, or more, reaches.\n  let top_p_end = select(MASS, DRAW, (filters & USES_TOP_P) != 0u);\n  if (passes.x <= MASS && min(passes.y, top_p_end) > MASS) {\n    d.wanted = s.top_p * mass_from(0u, d, row_at, vocabulary, lane, thread);\n  }\n  for (var bit = max(passes.x, FIRST_TOP_P); bit < min(passes.y, top_p_end); bit++) {\n    let candidate = d.cut | (0x80000000u >> (bit - FIRST_TOP_P));\n    if (mass_from(candidate, d, row_at, vocabulary, lane, thread) >= d.wanted) {\n      d.cut = candidate;\n    }\n  }\n  if (passes.x < DRAW && min(passes.y, top_p_end) == DRAW && !greedy && s.top_p < 1.0) {\n    d.threshold = max(d.threshold, value_of_ordered(d.cut));\n  }\n  return d;\n}\n\n// What the sampling kernel leaves for each row: the token drawn or scored, and what the loss needs to know of its\n// distribution.\nstruct Sampled {\n  token: u32,\n  logprob: f32,\n  raw_logprob: f32,\n  flags: u32,\n}\n\nstruct RowStats {\n  threshold: f32,\n  logsumexp: f32, // of the kept scaled logits, the given token always counted\n  entropy: f32,   // of the kept distribution, without a given token that it does not keep, in nats\n  inverse_temperature: f32,\n}\n\n// Draws one token a row from its distribution (see lib/distribution.wgsl), or scores a given one, and gives its\n// log-probability under that distribution and under the raw logits. The same pipeline serves generation (draw) and\n// the trainer (score), so on-policy log-probabilities agree to the bit.\n// A draw inverts the cumulative distribution in index order with one uniform number keyed by (sequence, position).\n// A dispatch may end before the draw; what it found out waits where the row's results go.\n//!prelude LANES: u32\n//!use lanes\n//!use rows\n//!use threefry\n//!use distribution\n//!use sampled\nstruct Params {\n  rows: u32,\n  vocabulary: u32,\n  filters: u32,\n  row_start: u32,    // first of the sample rows\n  logits_start: u32, // its row of the logits\n  pass_start: u32,   // the passes of this dispatch: pass_start … pass_end\n  pass_end: u32,\n}\n\nstruct SampleRow {\n  slot: u32,\n  position: u32,\n  given: u32,  // NONE: draw\n  serial: u32, // of the sequence: a slot is done for the serial it holds, so a new sequence needs no reset\n}\n\nconst STOPPED = 1u;\nconst ALREADY_DONE = 2u;\n\nvar<immediate> params: Params;\n@group(0) @binding(0) var<storage, read> sample_rows: array<SampleRow>;\n@group(0) @binding(1) var<storage, read> sampling: array<Sampling>;\n@group(0) @binding(2) var<storage, read> stops: array<u32>;\n@group(0) @binding(3) var<storage, read> logits: array<f32>;\n@group(0) @binding(4) var<storage, read_write> slot_tokens: array<u32>;\n@group(0) @binding(5) var<storage, read_write> slot_done: array<u32>;\n@group(0) @binding(6) var<storage, read_write> sampled: array<Sampled>;\n@group(0) @binding(7) var<storage, read_write> stats: array<RowStats>;\n\nvar<workgroup> lane_tokens: array<u32, 64>;\n\n// The token of this lane's stretch that the draw falls on, or NONE when it falls on another lane's. Call it when\n// lane_values holds the kept mass of every lane's stretch.\nfn draw_token(d: Distribution, row_at: u32, wanted: f32, start: u32, end: u32, lane: u32, thread: u32) -> u32 {\n  let first = thread / LANES * LANES;\n  var before = 0.0;  // mass of the lanes before the owner\n  var passed = 0.0;  // mass of the lanes so far\n  var owner = LANES; // the last lane with any mass, if rounding leaves the wanted mass beyond them all\n  for (var other = 0u; other < LANES; other++) {\n    let mass = lane_values[first + other];\n    if (mass > 0.0) {\n      owner = other;\n      before = passed;\n      passed += mass;\n      if (passed > wanted) {\n        break;\n      }\n    }\n  }\n  var token = NONE;\n  if (lane == owner) {\n    for (var i = start; i < end; i++) {\n      let z = scaled_logit(i, row_at, d.inverse_temperature);\n      if (z >= d.threshold) {\n        token = i;\n        before += exp(z - d.largest);\n        if (before > wanted) {\n          break;\n        }\n      }\n    }\n  }\n  return token;\n}\n\n@compute @workgroup_size(64)\nfn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {\n  let wanted_row = group.x * ROWS_PER_GROUP + thread / LANES;\n  let local_row = min(wanted_row, params.rows - 1u);\n  let row = params.row_start + local_row;\n  let lane = thread % LANES;\n  let request = sample_rows[row];\n  let s = sampling[request.slot];\n  let row_at = (params.logits_start + local_row) * params.vocabulary;\n  var known: Distribution;\n  if (params.pass_start > 0u) {\n    known.threshold = stats[row].threshold;\n    known.cut = sampled[row].token;\n    known.largest_logit = sampled[row].logprob;\n    known.wanted = sampled[row].raw_logprob;\n  }\n  let passes = vec2u(params.pass_start, params.pass_end);\n  let d = find_distribution(known, s, row_at, params.vocabulary, params.filters, passes, lane, thread);\n  if (params.pass_end <= DRAW) {\n    storageBarrier(); // all lanes have read what is known before one writes over it\n    if (lane == 0u && wanted_row < params.rows) {\n      stats[row].threshold = d.threshold;\n      sampled[row] = Sampled(d.cut, d.largest_logit, d.wanted, 0u);\n    }\n    return;\n  }\n\n  // Each lane takes a stretch of neighbouring tokens, so that the lanes' masses in order are the tokens' in order.\n  let stretch = (params.vocabulary + LANES - 1u) / LANES;\n  let start = min(lane * stretch, params.vocabulary);\n  let end = min(start + stretch, params.vocabulary);\n  var raw_mass = 0.0;\n  var mass = 0.0;\n  var moment = 0.0;\n  var token = NONE;\n  for (var i = start; i < end; i++) {\n    let logit = logits[row_at + i];\n    raw_mass += exp(logit - d.largest_logit);\n    let z = logit * d.inverse_temperature;\n    if (z >= d.threshold) {\n      let weight = exp(z - d.largest);\n      mass += weight;\n      moment = fma(weight, z - d.largest, moment);\n    }\n    if (token == NONE && logit == d.largest_logit) {\n      token = i;\n    }\n  }\n  let raw_logsumexp = d.largest_logit + log(lanes_sum(raw_mass, thread));\n  let kept_moment = lanes_sum(moment, thread);\n  let kept = lanes_sum(mass, thread);\n  if (s.temperature != 0.0) {\n    let random = threefry2x32(vec2u(s.key_low, s.key_high), vec2u(request.position, 0u));\n    token = draw_token(d, row_at, uniform_open(random.x) * kept, start, end, lane, thread);\n  }\n  lane_tokens[thread] = token;\n  workgroupBarrier();\n  if (lane != 0u || wanted_row >= params.rows) {\n    return;\n  }\n  if (request.given != NONE) {\n    token = request.given;\n  } else {\n    for (var other = 1u; other < LANES; other++) {\n      token = min(token, lane_tokens[thread + other]);\n    }\n    // Logits that are not numbers keep no token: some token is taken then, and its log-probability shows it.\n    token = min(token, params.vocabulary - 1u);\n  }\n  let token_logit = scaled_logit(token, row_at, d.inverse_temperature);\n  // A given token may lie below the threshold of the weights it is scored under: it counts all the same.\n  let total = kept + select(exp(token_logit - d.largest), 0.0, token_logit >= d.threshold);\n  let logsumexp = d.largest + log(total);\n  stats[row] = RowStats(d.threshold, logsumexp, log(kept) - kept_moment / kept, d.inverse_temperature);\n  var flags = 0u;\n  if (request.given == NONE) {\n    if (slot_done[request.slot] == request.serial) {\n      flags = ALREADY_DONE;\n    }\n    for (var i = 0u; i < s.stop_count; i++) {\n      if (stops[s.stop_start + i] == token) {\n        flags |= STOPPED;\n        slot_done[request.slot] = request.serial;\n      }\n    }\n    slot_tokens[request.slot] = token;\n  }\n  sampled[row] = Sampled(\n    token,\n    token_logit - logsumexp,\n    logits[row_at + token] - raw_logsumexp,\n    flags,\n  );\n}\n",
    "bindings": [
      {
        "name": "sample_rows",
        "access": "read"
      },
      {
        "name": "sampling",
        "access": "read"
      },
      {
        "name": "stops",
        "access": "read"
      },
      {
        "name": "logits",
        "access": "read"
      },
      {
        "name": "slot_tokens",
        "access": "read_write"
      },
      {
        "name": "slot_done",
        "access": "read_write"
      },
      {
        "name": "sampled",
        "access": "read_write"
      },
      {
        "name": "stats",
        "access": "read_write"
      }
    ],
    "params": [
      {
        "name": "rows",
        "type": "u32"
      },
      {
        "name": "vocabulary",
        "type": "u32"
      },
      {
        "name": "filters",
        "type": "u32"
      },
      {
        "name": "row_start",
        "type": "u32"
      },
      {
        "name": "logits_start",
        "type": "u32"
      },
      {
        "name": "pass_start",
        "type": "u32"
      },
      {
        "name": "pass_end",
        "type": "u32"
      }
    ],
    "overrides": [],
    "preludes": [
      {
        "name": "LANES",
        "type": "u32"
      }
    ]
  },
  silu_gate: {
    "source": "// y[row, i] = silu(gate[row, i]) · up[row, i]; gate and up stand side by side in gate_up[rows, 2 · inner].\nstruct Params {\n  inner: u32,\n  row_start: u32, // first row of this dispatch\n}\n\nvar<immediate> params: Params;\n@group(0) @binding(0) var<storage, read> gate_up: array<f32>;\n@group(0) @binding(1) var<storage, read_write> y: array<f32>;\n\n@compute @workgroup_size(64)\nfn main(@builtin(global_invocation_id) id: vec3u) {\n  if (id.x >= params.inner) {\n    return;\n  }\n  let row = params.row_start + id.y;\n  let at = row * 2u * params.inner + id.x;\n  let gate = gate_up[at];\n  y[row * params.inner + id.x] = gate / (1.0 + exp(-gate)) * gate_up[at + params.inner];\n}\n",
    "bindings": [
      {
        "name": "gate_up",
        "access": "read"
      },
      {
        "name": "y",
        "access": "read_write"
      }
    ],
    "params": [
      {
        "name": "inner",
        "type": "u32"
      },
      {
        "name": "row_start",
        "type": "u32"
      }
    ],
    "overrides": [],
    "preludes": []
  },
  silu_gate_grad: {
    "source": "// Gradient of silu_gate: from dy[rows, inner] to d_gate_up[rows, 2 · inner], gate and up side by side.\nstruct Params {\n  inner: u32,\n  row_start: u32, // first row of this dispatch\n}\n\nvar<immediate> params: Params;\n@group(0) @binding(0) var<storage, read> gate_up: array<f32>;\n@group(0) @binding(1) var<storage, read> dy: array<f32>;\n@group(0) @binding(2) var<storage, read_write> d_gate_up: array<f32>;\n\n@compute @workgroup_size(64)\nfn main(@builtin(global_invocation_id) id: vec3u) {\n  if (id.x >= params.inner) {\n    return;\n  }\n  let row = params.row_start + id.y;\n  let at = row * 2u * params.inner + id.x;\n  let gate = gate_up[at];\n  let up = gate_up[at + params.inner];\n  let flow = dy[row * params.inner + id.x];\n  let sigmoid = 1.0 / (1.0 + exp(-gate));\n  d_gate_up[at] = flow * up * sigmoid * (1.0 + gate * (1.0 - sigmoid));\n  d_gate_up[at + params.inner] = flow * gate * sigmoid;\n}\n",
    "bindings": [
      {
        "name": "gate_up",
        "access": "read"
      },
      {
        "name": "dy",
        "access": "read"
      },
      {
        "name": "d_gate_up",
        "access": "read_write"
      }
    ],
    "params": [
      {
        "name": "inner",
        "type": "u32"
      },
      {
        "name": "row_start",
        "type": "u32"
      }
    ],
    "overrides": [],
    "preludes": []
  },
  sum_squares: {
    "source": "// partials[partial_start + i] = Σ values² over the i-th stretch of values[start … start + count). One thread a stretch.\n// First of two passes that give a gradient's global norm; clip_scale adds the partials in order.\nstruct Params {\n  start: u32,\n  count: u32,\n  stretch: u32,\n  partial_start: u32,\n}\n\nvar<immediate> params: Params;\n@group(0) @binding(0) var<storage, read> values: array<f32>;\n@group(0) @binding(1) var<storage, read_write> partials: array<f32>;\n\n@compute @workgroup_size(64)\nfn main(@builtin(global_invocation_id) id: vec3u) {\n  let first = id.x * params.stretch;\n  if (first >= params.count) {\n    return;\n  }\n  let end = params.start + min(first + params.stretch, params.count);\n  var sum = 0.0;\n  for (var i = params.start + first; i < end; i++) {\n    sum = fma(values[i], values[i], sum);\n  }\n  partials[params.partial_start + id.x] = sum;\n}\n",
    "bindings": [
      {
        "name": "values",
        "access": "read"
      },
      {
        "name": "partials",
        "access": "read_write"
      }
    ],
    "params": [
      {
        "name": "start",
        "type": "u32"
      },
      {
        "name": "count",
        "type": "u32"
      },
      {
        "name": "stretch",
        "type": "u32"
      },
      {
        "name": "partial_start",
        "type": "u32"
      }
    ],
    "overrides": [],
    "preludes": []
  },
  value_loss: {
    "source": "// Each row's clipped value loss and its slope d(loss)/d(value), with the clip around the old value as in Schulman et\n// al., \"Proximal policy optimization algorithms\" (2017), for the policy:\n//   loss = weight · ½ max((v − R)², (v_clipped − R)²),  v_clipped = clamp(v, old − clip, old + clip)\n// Inside the clip range both squares are the same number and only the first is computed: rounding must not take a\n// row's gradient away. One thread a row.\nstruct Params {\n  row_start: u32, // the rows of this dispatch: row_start … row_end\n  row_end: u32,\n  clip: f32,\n}\n\nstruct ValueRow {\n  weight: f32,\n  wanted: f32,    // the return R\n  old_value: f32,\n  unused: f32,\n}\n\nstruct ValueMetrics {\n  loss: f32,\n  clipped: f32, // 1 where the clip removed the gradient\n}\n\nvar<immediate> params: Params;\n@group(0) @binding(0) var<storage, read> value_rows: array<ValueRow>;\n@group(0) @binding(1) var<storage, read> values: array<f32>;\n@group(0) @binding(2) var<storage, read_write> slopes: array<f32>;\n@group(0) @binding(3) var<storage, read_write> metrics: array<ValueMetrics>;\n\n@compute @workgroup_size(64)\nfn main(@builtin(global_invocation_id) id: vec3u) {\n  let row = params.row_start + id.x;\n  if (row >= params.row_end) {\n    return;\n  }\n  let target_row = value_rows[row];\n  let value = values[row];\n  var slope = value - target_row.wanted;\n  var square = slope * slope;\n  var clipped = 0.0;\n  let moved = value - target_row.old_value;\n  if (abs(moved) > params.clip) {\n    let bounded = target_row.old_value + clamp(moved, -params.clip, params.clip) - target_row.wanted;\n    if (bounded * bounded > square) {\n      square = bounded * bounded;\n      slope = 0.0;\n      clipped = 1.0;\n    }\n  }\n  slopes[row] = target_row.weight * slope;\n  metrics[row] = ValueMetrics(target_row.weight * 0.5 * square, clipped);\n}\n",
    "bindings": [
      {
        "name": "value_rows",
        "access": "read"
      },
      {
        "name": "values",
        "access": "read"
      },
      {
        "name": "slopes",
        "access": "read_write"
      },
      {
        "name": "metrics",
        "access": "read_write"
      }
    ],
    "params": [
      {
        "name": "row_start",
        "type": "u32"
      },
      {
        "name": "row_end",
        "type": "u32"
      },
      {
        "name": "clip",
        "type": "f32"
      }
    ],
    "overrides": [],
    "preludes": []
  },
  value_row: {
    "source": "// Reductions among the LANES threads that share a row (8 or 64); 64 / LANES rows share a workgroup. Partial results\n// are combined in lane order, by eights and then the eights, so the result depends on the row alone. All threads of\n// the workgroup must call these. Afterwards lane_values still holds every thread's own value.\nconst ROWS_PER_GROUP = 64u / LANES;\nconst EIGHTS = LANES / 8u;\nvar<workgroup> lane_values: array<f32, 64>;\nvar<workgroup> eight_values: array<f32, 8>;\n\nfn lanes_sum(value: f32, thread: u32) -> f32 {\n  workgroupBarrier();\n  lane_values[thread] = value;\n  workgroupBarrier();\n  let first = thread / 8u * 8u;\n  var total = 0.0;\n  for (var lane = 0u; lane < 8u; lane++) {\n    total += lane_values[first + lane];\n  }\n  if (EIGHTS > 1u) {\n    if (thread % 8u == 0u) {\n      eight_values[thread / 8u] = total;\n    }\n    workgroupBarrier();\n    total = 0.0;\n    for (var eight = 0u; eight < EIGHTS; eight++) {\n      total += eight_values[eight];\n    }\n  }\n  return total;\n}\n\nfn lanes_max(value: f32, thread: u32) -> f32 {\n  workgroupBarrier();\n  lane_values[thread] = value;\n  workgroupBarrier();\n  let first = thread / 8u * 8u;\n  var largest = lane_values[first];\n  for (var lane = 1u; lane < 8u; lane++) {\n    largest = max(largest, lane_values[first + lane]);\n  }\n  if (EIGHTS > 1u) {\n    if (thread % 8u == 0u) {\n      eight_values[thread / 8u] = largest;\n    }\n    workgroupBarrier();\n    largest = eight_values[0];\n    for (var eight = 1u; eight < EIGHTS; eight++) {\n      largest = max(largest, eight_values[eight]);\n    }\n  }\n  return largest;\n}\n\n// values[row] = x[row] · w + bias, one number a row. LANES threads share a row, so the order of its sum depends on the\n// row's length alone.\n//!prelude LANES: u32\n//!use lanes\nstruct Params {\n  hidden: u32,\n  row_start: u32, // the rows of this dispatch: row_start … row_end\n  row_end: u32,\n}\n\nvar<immediate> params: Params;\n@group(0) @binding(0) var<storage, read> x: array<f32>;\n@group(0) @binding(1) var<storage, read> w: array<f32>;\n@group(0) @binding(2) var<storage, read> bias: array<f32>;\n@group(0) @binding(3) var<storage, read_write> values: array<f32>;\n\n@compute @workgroup_size(64)\nfn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {\n  let wanted = params.row_start + group.x * ROWS_PER_GROUP + thread / LANES;\n  let row = min(wanted, params.row_end - 1u);\n  let lane = thread % LANES;\n  var sum = 0.0;\n  for (var i = lane; i < params.hidden; i += LANES) {\n    sum = fma(x[row * params.hidden + i], w[i], sum);\n  }\n  let total = lanes_sum(sum, thread);\n  if (wanted < params.row_end && lane == 0u) {\n    values[row] = total + bias[0];\n  }\n}\n",
    "bindings": [
      {
        "name": "x",
        "access": "read"
      },
      {
        "name": "w",
        "access": "read"
      },
      {
        "name": "bias",
        "access": "read"
      },
      {
        "name": "values",
        "access": "read_write"
      }
    ],
    "params": [
      {
        "name": "hidden",
        "type": "u32"
      },
      {
        "name": "row_start",
        "type": "u32"
      },
      {
        "name": "row_end",
        "type": "u32"
      }
    ],
    "overrides": [],
    "preludes": [
      {
        "name": "LANES",
        "type": "u32"
      }
    ]
  },
  value_row_grad: {
    "source": "// Gradient of value_row with respect to its input: dx[row, i] = slopes[row] · w[i].\nstruct Params {\n  hidden: u32,\n  row_start: u32, // first row of this dispatch\n}\n\nvar<immediate> params: Params;\n@group(0) @binding(0) var<storage, read> slopes: array<f32>;\n@group(0) @binding(1) var<storage, read> w: array<f32>;\n@group(0) @binding(2) var<storage, read_write> dx: array<f32>;\n\n@compute @workgroup_size(64)\nfn main(@builtin(global_invocation_id) id: vec3u) {\n  if (id.x >= params.hidden) {\n    return;\n  }\n  let row = params.row_start + id.y;\n  dx[row * params.hidden + id.x] = slopes[row] * w[id.x];\n}\n",
    "bindings": [
      {
        "name": "slopes",
        "access": "read"
      },
      {
        "name": "w",
        "access": "read"
      },
      {
        "name": "dx",
        "access": "read_write"
      }
    ],
    "params": [
      {
        "name": "hidden",
        "type": "u32"
      },
      {
        "name": "row_start",
        "type": "u32"
      }
    ],
    "overrides": [],
    "preludes": []
  },
  value_weight_grad: {
    "source": "// Gradient of value_row with respect to its weight and bias, added to what is there: dw[i] += Σ_row slopes · x[row, i]\n// and dbias += Σ_row slopes. One thread a column, rows in order; the column past the last is the bias.\nstruct Params {\n  rows: u32,\n  hidden: u32,\n  column_start: u32, // first column of this dispatch\n}\n\nvar<immediate> params: Params;\n@group(0) @binding(0) var<storage, read> x: array<f32>;\n@group(0) @binding(1) var<storage, read> slopes: array<f32>;\n@group(0) @binding(2) var<storage, read_write> dw: array<f32>;\n@group(0) @binding(3) var<storage, read_write> dbias: array<f32>;\n\n@compute @workgroup_size(64)\nfn main(@builtin(global_invocation_id) id: vec3u) {\n  let column = params.column_start + id.x;\n  if (column > params.hidden) {\n    return;\n  }\n  var sum = 0.0;\n  if (column == params.hidden) {\n    for (var row = 0u; row < params.rows; row++) {\n      sum += slopes[row];\n    }\n    dbias[0] += sum;\n    return;\n  }\n  for (var row = 0u; row < params.rows; row++) {\n    sum = fma(slopes[row], x[row * params.hidden + column], sum);\n  }\n  dw[column] += sum;\n}\n",
    "bindings": [
      {
        "name": "x",
        "access": "read"
      },
      {
        "name": "slopes",
        "access": "read"
      },
      {
        "name": "dw",
        "access": "read_write"
      },
      {
        "name": "dbias",
        "access": "read_write"
      }
    ],
    "params": [
      {
        "name": "rows",
        "type": "u32"
      },
      {
        "name": "hidden",
        "type": "u32"
      },
      {
        "name": "column_start",
        "type": "u32"
      }
    ],
    "overrides": [],
    "preludes": []
  },
} as const;
